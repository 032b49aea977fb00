"""ONNX graphs: passes that every export applies, and rewrites for one target."""
