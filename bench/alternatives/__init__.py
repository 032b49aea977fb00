"""Measures other ways to make frames between frames beside this runtime, on one clip."""
