"""Quantisation to int8: calibration frames and quantised graphs."""
