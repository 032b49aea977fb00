"""ONNX Runtime: the backend that runs everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.base import HostBackend, OpenOptions
from runtime.backends.onnx_file import Port, check_ports, read_onnx
from runtime.errors import BackendError, ModelError
from runtime.machine import available_processors
from runtime.manifest import ModelInfo
from runtime.telemetry import import_quietly

_PROVIDERS: dict[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_KINDS: dict[str, str] = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


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

    Raises:
        ModelError: If the file is damaged or not one of ours; see `read_onnx`.
        BackendError: If ONNX Runtime or the provider for `device` is not available.
    """
    options.refuse("cuda_graph", "belongs to TensorRT engines: leave it out")
    for name in ("streams", "precision", "cache"):
        options.refuse(name, "is not for ONNX Runtime: leave it out, or use backend='openvino'")
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
    content, info = read_onnx(path)
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
    check_ports(dict(_ports(session)), info, path)
    return OnnxRuntimeBackend(session, info, device=device)


def _import_onnxruntime() -> Any:
    try:
        return import_quietly("onnxruntime")
    except ImportError as error:
        raise BackendError(
            "ONNX Runtime is not installed: pip install ifrnet-deploy[cpu] "
            "(or [gpu] for CUDA, never both)"
        ) from error


def _session_options(ort: Any, threads: int | None) -> Any:
    """The options that pay.

    Measured on a busy x86-64 with AVX2 (1.32, small, 448x256, processor time of a pair on one
    thread, in turns, the least of 9; 467 ms as it is): without the layout optimisation 551. No
    difference that shows above the noise: denormals as zero, no arena, no prepacked weights. A
    graph that was saved optimised opens in 29 ms of processor time instead of 77, and fits one
    kind of processor only. Spinning needs an idle machine to be judged, and is left on.
    """
    options = ort.SessionOptions()
    # The processors that this process may use: a container's share, not the whole machine.
    options.intra_op_num_threads = threads or available_processors()
    options.log_severity_level = 3
    # The memory plan that is made ahead takes twice the memory of the one that is made on the
    # way (1080p, small: 2645 against 1459 MB) and is no faster.
    options.enable_mem_pattern = False
    return options


def _ports(session: Any) -> Iterator[tuple[str, Port]]:
    for port in (*session.get_inputs(), *session.get_outputs()):
        # A free axis has a name, or none at all.
        shape = (n if isinstance(n, int) else None for n in port.shape)
        yield port.name, Port(_KINDS.get(port.type, port.type), tuple(shape))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
