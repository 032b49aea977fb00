"""Compares this runtime with other methods of frame interpolation, on one clip."""
