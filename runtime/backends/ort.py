"""ONNX Runtime: the backend that runs everywhere."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.base import HostBackend, OpenOptions
from runtime.backends.external_data import has_external_data
from runtime.errors import BackendError, ModelError
from runtime.machine import available_processors
from runtime.manifest import EngineManifest, ModelInfo, manifest_path

_PROVIDERS: dict[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeBackend(HostBackend):
    """One ONNX Runtime session. `run` may be called from several threads at once."""

    def __init__(self, session: Any, info: ModelInfo, *, device: str) -> None:
        self.name = f"onnxruntime {device}"
        self.info = info
        self._session = session

    def run(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[Any]:
        """See `Backend.run`."""
        session = self._session
        if session is None:
            raise BackendError("the model is closed: open it again")
        try:
            outputs = session.run(["imgt"], {"img0": img0, "img1": img1, "timestep": timestep})
        except Exception as error:  # ONNX Runtime's classes share no base but this one.
            raise BackendError(f"{self.name} failed: {_first_line(error)}") from error
        result: NDArray[Any] = outputs[0]
        return result

    def close(self) -> None:
        """See `Backend.close`."""
        self._session = None


def open_model(path: Path, options: OpenOptions) -> OnnxRuntimeBackend:
    """Loads an ONNX file of ours, by default on the processor.

    A manifest beside the file must be the file's own. A file that names others for its weights
    is refused: it could read anything on this machine.

    Raises:
        ModelError: If the file is damaged or not one of ours.
        BackendError: If ONNX Runtime or the provider for `device` is not available.
    """
    for name in ("streams", "cuda_graph"):
        options.refuse(name, "belongs to TensorRT engines: leave it out")
    device = options.device or "cpu"
    kind, _, index = device.partition(":")
    ort = _import_onnxruntime()
    provider = _PROVIDERS[kind]
    if provider not in ort.get_available_providers():
        raise BackendError(
            f"{provider} was asked for, this ONNX Runtime offers "
            f"{', '.join(ort.get_available_providers())}: pip uninstall onnxruntime, then "
            "pip install ifrnet-deploy[gpu], or use device='cpu'"
        )
    if manifest_path(path).exists():
        EngineManifest.read(path)
    content = path.read_bytes()
    try:
        external = has_external_data(content)
    except ValueError as error:
        raise ModelError(f"{path} cannot be read as ONNX ({error}): export it again") from error
    if external:
        raise ModelError(f"{path} names other files for its weights: a model of ours is one file")
    try:
        chosen = (provider, {"device_id": index}) if index else provider
        session = ort.InferenceSession(
            content, sess_options=_session_options(ort, options.threads), providers=[chosen]
        )
    except Exception as error:  # ONNX Runtime's classes share no base but this one.
        raise ModelError(
            f"{path} cannot be loaded by ONNX Runtime ({_first_line(error)}): export it again"
        ) from error
    # ONNX Runtime falls back to the CPU with a line in the log when a provider fails to start.
    if session.get_providers()[0] != provider:
        raise BackendError(
            f"{provider} did not start and ONNX Runtime fell back to "
            f"{session.get_providers()[0]}: see python -m runtime.doctor, or use device='cpu'"
        )
    info = ModelInfo.from_properties(session.get_modelmeta().custom_metadata_map, source=str(path))
    _check_interface(session, info, path)
    return OnnxRuntimeBackend(session, info, device=device)


def _import_onnxruntime() -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise BackendError(
            "ONNX Runtime is not installed: pip install ifrnet-deploy[cpu] "
            "(or [gpu] for CUDA, never both)"
        ) from error


def _session_options(ort: Any, threads: int | None) -> Any:
    options = ort.SessionOptions()
    # The processors that this process may use: a container's share, not the whole machine.
    options.intra_op_num_threads = threads or available_processors()
    options.log_severity_level = 3
    # The memory plan that is made ahead takes twice the memory of the one that is made on the
    # way (1080p, small: 2645 against 1459 MB) and is no faster.
    options.enable_mem_pattern = False
    return options


def _check_interface(session: Any, info: ModelInfo, path: Path) -> None:
    """The graph must have the inputs and the output that its metadata promises."""
    sample = "tensor(uint8)" if info.io == "frames" else "tensor(float)"
    expected = {"img0": sample, "img1": sample, "timestep": "tensor(float)", "imgt": sample}
    found = {port.name: port.type for port in (*session.get_inputs(), *session.get_outputs())}
    if found != expected:
        raise ModelError(f"{path} has {found}, its metadata promises {expected}: export it again")
    height, width = info.size or (None, None)
    image = (height, width, 3) if info.io == "frames" else (3, height, width)
    promised = {
        "img0": (info.pairs_per_call, *image),
        "img1": (info.pairs_per_call, *image),
        "timestep": (info.frames_per_call, 1, 1, 1),
    }
    for port in session.get_inputs():
        wanted, shape = promised[port.name], tuple(port.shape)
        fits = (w is None or w == s for w, s in zip(wanted, shape, strict=False))
        if len(shape) != len(wanted) or not all(fits):
            raise ModelError(
                f"{path} has {port.name} of shape {shape}, its metadata promises {wanted}: "
                "export it again"
            )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
