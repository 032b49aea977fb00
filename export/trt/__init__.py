"""TensorRT engines, built for each generation of TensorRT."""
