"""The runs that are measured: artefacts, PyTorch, and plain ONNX exports in TensorRT."""
