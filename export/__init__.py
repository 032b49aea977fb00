"""Checkpoint -> ONNX -> engine, each step a module, each result compared with PyTorch."""
