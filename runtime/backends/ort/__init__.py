"""ONNX Runtime, on a CPU and with CUDA."""
