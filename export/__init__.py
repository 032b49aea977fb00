"""Exports checkpoints to ONNX and builds engines; each result is compared with a reference."""
