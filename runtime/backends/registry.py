"""Which backend runs a model, by name or by the suffix of the file, and opens it."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import get_args

from runtime.backends.base import SERVED, Backend, BackendName, OpenOptions
from runtime.errors import BackendError, ModelError
from runtime.manifest import backend_in_manifest

_MODULES: dict[str, str] = {
    "onnxruntime": "runtime.backends.ort.backend",
    "openvino": "runtime.backends.ov.backend",
    "tensorrt": "runtime.backends.trt.backend",
}
"""Of files. A module is imported when it is asked for, as each needs packages of its own."""

_SERVED_MODULE = "runtime.backends.triton.backend"
_SUFFIXES = (".onnx", ".engine", ".plan")


def open_backend(
    model: str | Path, options: OpenOptions, *, backend: BackendName | None = None
) -> Backend:
    """Loads `model` with the backend that is named or, without a name, with `default_backend`.

    Raises:
        ModelError: If the file is missing, damaged, or its suffix means nothing.
        BackendError: If the backend is unknown, not installed or not available.
    """
    if backend is not None and backend not in get_args(BackendName):
        raise BackendError(
            f"backend {backend!r} is unknown: use one of {', '.join(get_args(BackendName))}"
        )
    served = str(model).startswith(SERVED)
    if backend is not None and (backend == "triton") != served:
        raise BackendError(
            f"backend {backend!r} came with {model}: 'triton', and nothing else, is for models "
            f"that are served at {SERVED}HOST:PORT/MODEL"
        )
    if served:
        server: Backend = importlib.import_module(_SERVED_MODULE).open_model(str(model), options)
        return server
    path = Path(model)
    if not path.is_file():
        raise ModelError(
            f"{path} does not exist: make a model with "
            "python -m export.to_onnx --weights demo --output model.onnx"
        )
    name = backend or default_backend(path, options)
    module = importlib.import_module(_MODULES[name])
    opened: Backend = module.open_model(path, options)
    return opened


def default_backend(path: Path, options: OpenOptions) -> BackendName:
    """The backend that runs a file where the caller names none.

    Engines run in TensorRT. ONNX files run in ONNX Runtime on a GPU; on a CPU in the backend that
    the manifest beside the file names, which is the one that the file was compared with; without a
    manifest in OpenVINO where it is installed, else in ONNX Runtime.

    Raises:
        ModelError: If the suffix means nothing.
        BackendError: If the manifest names a backend that is unknown.
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise ModelError(
            f"{path.name} has no known suffix: expected {', '.join(_SUFFIXES)}, or name the backend"
        )
    if suffix != ".onnx":
        return "tensorrt"
    if (options.device or "cpu") != "cpu":
        return "onnxruntime"
    named = backend_in_manifest(path)
    if named is None:
        return "openvino" if importlib.util.find_spec("openvino") else "onnxruntime"
    for known in _MODULES:
        if named == known:
            return known  # type: ignore[return-value]  # One of BackendName, all but "triton".
    raise BackendError(f"the manifest of {path} names {named}, which is unknown: name the backend")
