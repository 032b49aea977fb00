"""The CUDA runtime, and arrays on a GPU."""
