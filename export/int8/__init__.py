"""Quantisation to int8: calibration frames, quantised graphs, and what they cost."""
