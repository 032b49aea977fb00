"""Parity with PyTorch and image quality, sample by sample."""
