"""What is measured: artefacts, PyTorch, and plain ONNX exports in TensorRT."""
