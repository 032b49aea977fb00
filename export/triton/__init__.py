"""Model repositories of NVIDIA Triton Inference Server."""
