"""The one interface of all backends, and how one is chosen: by name or by suffix."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from runtime.errors import BackendError, ModelError
from runtime.manifest import ModelInfo

BackendName = Literal["onnxruntime"]
Device = Literal["cpu", "cuda"]

_MODULES: dict[str, str] = {"onnxruntime": "runtime.backends.ort"}
_BY_SUFFIX: dict[str, str] = {".onnx": "onnxruntime"}


class Backend(Protocol):
    """A loaded model.

    Attributes:
        name: For messages and reports, for example "onnxruntime cpu".
        info: The model's self-description.
    """

    name: str
    info: ModelInfo

    def run(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[Any]:
        """Runs the model; arrays are C-contiguous and as the model's I/O kind says.

        Args:
            img0: First frame of the pair, batch axis first, N = 1.
            img1: Second frame.
            timestep: float32 (T, 1, 1, 1), T as the model's `steps_per_call`.

        Returns:
            A new array that belongs to the caller, batch axis T.

        Raises:
            BackendError: If the inference fails.
        """
        ...

    def close(self) -> None:
        """Frees the model. Further calls of `run` raise BackendError."""
        ...


def open_backend(
    model: str | Path,
    *,
    backend: BackendName | None = None,
    device: Device = "cpu",
    threads: int | None = None,
) -> Backend:
    """Loads `model` with the backend that is named or, without a name, that its suffix means.

    Raises:
        ModelError: If the file is missing, damaged, or its suffix means nothing.
        BackendError: If the backend is unknown, not installed or not available.
    """
    path = Path(model)
    if not path.is_file():
        raise ModelError(
            f"{path} does not exist: make a model with "
            "python -m export.to_onnx --weights demo --output model.onnx"
        )
    if backend is not None and backend not in get_args(BackendName):
        raise BackendError(
            f"backend {backend!r} is unknown: use one of {', '.join(get_args(BackendName))}"
        )
    if device not in get_args(Device):
        raise BackendError(
            f"device {device!r} is unknown: use one of {', '.join(get_args(Device))}"
        )
    if threads is not None and threads < 1:
        raise BackendError(f"threads is {threads}: use 1 or more, or None for all processors")
    name = backend or _BY_SUFFIX.get(path.suffix.lower())
    if name is None:
        raise ModelError(
            f"{path.name} has no known suffix: expected {', '.join(_BY_SUFFIX)}, "
            "or name the backend"
        )
    module = importlib.import_module(_MODULES[name])
    opened: Backend = module.open_model(path, device=device, threads=threads)
    return opened
