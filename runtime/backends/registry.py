"""Chooses the backend of a model and opens the model in it."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import get_args

from runtime.backends.base import TRITON_SCHEME, Backend, BackendName, OpenOptions
from runtime.backends.demo import DEMO, demo_model
from runtime.errors import BackendError, ModelError, kind_of
from runtime.manifest import backend_in_manifest

_MODULES: dict[str, str] = {
    "onnxruntime": "runtime.backends.ort.backend",
    "openvino": "runtime.backends.ov.backend",
    "tensorrt": "runtime.backends.trt.backend",
}
"""Backend of a file -> its module, imported on demand, since each needs other packages."""

_TRITON_MODULE = "runtime.backends.triton.backend"
_SUFFIXES = (".onnx", ".engine", ".plan")


def open_backend(
    model: str | Path, options: OpenOptions, *, backend: BackendName | None = None
) -> Backend:
    """Opens a model.

    Args:
        model: Path of a file, "demo" for a model that is shipped, or a triton:// address.
        options: Options of the backend.
        backend: Name of the backend; by default the result of `default_backend`.

    Raises:
        ModelError: If the file is missing or damaged, is a folder, or its suffix is unknown.
        BackendError: If the backend is unknown, not installed or not available.
    """
    _check_model(model)
    if backend is not None and backend not in get_args(BackendName):
        raise BackendError(
            f"backend {backend!r} is unknown: use one of {', '.join(get_args(BackendName))}"
        )
    served = str(model).startswith(TRITON_SCHEME)
    if backend is not None and (backend == "triton") != served:
        raise BackendError(
            f"backend {backend!r} was given for {model}: use 'triton' for models at "
            f"{TRITON_SCHEME}HOST:PORT/MODEL and only for these"
        )
    opened: Backend
    if served:
        opened = importlib.import_module(_TRITON_MODULE).open_model(str(model), options)
        return opened
    if str(model) == DEMO:
        name = backend or installed_backend(options.device)
        path = demo_model(name, options.device)
    else:
        path = Path(model)
        _check_file(path)
        name = backend or default_backend(path, options)
    opened = importlib.import_module(_MODULES[name]).open_model(path, options)
    return opened


def _check_file(path: Path) -> None:
    """Checks that the path is that of a file.

    Raises:
        ModelError: If it is not.
    """
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a folder: give the model file in it")
        exists = path.is_file()
    except OSError as error:  # As for a name that is too long.
        raise ModelError(
            f"{path} cannot be opened ({error.strerror}): give the path of a model file"
        ) from error
    if not exists:
        raise ModelError(
            f"{path} does not exist: give a file of export.build_engine, or demo for the model "
            "that is shipped"
        )


def _check_model(model: object) -> None:
    """Checks that a value may be the path or the address of a model.

    Raises:
        ModelError: If it is not.
    """
    if not isinstance(model, str | os.PathLike) or not str(model):
        found = "''" if model == "" else kind_of(model)
        raise ModelError(
            f"the model is {found}: give the path of a file of export.build_engine or "
            "export.to_onnx, 'demo', or triton://HOST:PORT/NAME"
        )


def installed_backend(device: str | None = None, *, preferred: str | None = None) -> BackendName:
    """The backend that runs ONNX files on a device: on a GPU always ONNX Runtime.

    Args:
        device: "cpu", "cuda" or "cuda:N"; None for the CPU.
        preferred: "onnxruntime" or "openvino", the choice on a CPU if it is installed. Without it,
            or if it is not installed: OpenVINO if it is installed, else ONNX Runtime.
    """
    if (device or "cpu") != "cpu":
        return "onnxruntime"
    order: list[BackendName] = ["openvino", "onnxruntime"]
    if preferred == "onnxruntime":
        order.reverse()
    return next((name for name in order if importlib.util.find_spec(name)), order[-1])


def default_backend(path: Path, options: OpenOptions) -> BackendName:
    """The backend that runs a file by default.

    Engines run in TensorRT. ONNX files run on a GPU in ONNX Runtime, and on the CPU in the backend
    that the manifest beside the file names, since the file was compared in that one. Without a
    manifest, or if that backend is not installed, they run in OpenVINO if it is installed, else in
    ONNX Runtime.

    Raises:
        ModelError: If the suffix is unknown.
        BackendError: If the manifest names an unknown backend.
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise ModelError(
            f"{path.name} has an unknown suffix, expected {', '.join(_SUFFIXES)}: rename it, or "
            "name the backend"
        )
    if suffix != ".onnx":
        return "tensorrt"
    if (options.device or "cpu") != "cpu":
        return installed_backend(options.device)
    named = backend_in_manifest(path)
    if named is not None and named not in ("onnxruntime", "openvino"):
        raise BackendError(
            f"the manifest of {path} names the unknown backend {named}: name the backend"
        )
    return installed_backend(preferred=named)
