"""Runs a model once in OpenCV's DNN module: python run_opencv.py MODEL INPUTS.npz OUTPUT.npy."""

import sys

import cv2
import numpy as np

model, inputs, output = sys.argv[1:]
net = cv2.dnn.readNetFromONNX(model)
with np.load(inputs) as arrays:
    for name in arrays.files:
        net.setInput(arrays[name], name)
np.save(output, net.forward())
