"""The models that are shipped with the package, which the name "demo" opens."""

from __future__ import annotations

from pathlib import Path

from runtime.backends.base import BackendName
from runtime.errors import BackendError
from runtime.files import SHIPPED_MODELS

DEMO = "demo"
"""Name that opens a shipped model; the shipped weights have the same name."""


def demo_model(backend: BackendName, device: str | None = None) -> Path:
    """The shipped model for a backend: variant small, any frame size and time step, float32.

    Args:
        backend: The backend that runs it.
        device: "cpu", "cuda" or "cuda:N"; None for the CPU.

    Raises:
        BackendError: If no model is shipped for the backend.
    """
    if backend not in ("onnxruntime", "openvino"):
        raise BackendError(
            f"no model for {backend} is shipped, as engines fit one kind of GPU: build one with "
            "python -m export.build_engine --weights demo --size HxW --output model.engine"
        )
    # The graph that is tuned for ONNX Runtime's CPU kernels is slower with CUDA.
    tuned = backend == "onnxruntime" and (device or "cpu") == "cpu"
    return SHIPPED_MODELS / f"demo_{'onnxruntime' if tuned else 'openvino'}.onnx"
