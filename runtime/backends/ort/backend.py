"""ONNX Runtime: the backend that runs everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.base import HostBackend, OpenOptions
from runtime.backends.onnx_format import check_ports, read_onnx
from runtime.backends.ort.binding import BoundBackend
from runtime.backends.ort.cuda_provider import (
    PROVIDER,
    cuda_failure,
    missing_for_cuda,
    provider_options,
    reason,
    why_not_loaded,
)
from runtime.errors import BackendError, ModelError
from runtime.machine import available_cpus, gpu_driver
from runtime.model_info import ModelInfo, Port
from runtime.telemetry import import_quietly

_CPU_PROVIDER = "CPUExecutionProvider"
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
            raise BackendError(f"{self.name} failed: {reason(error)}") from error
        result: NDArray[Any] = outputs[0]
        return result

    def close(self) -> None:
        """See `Backend.close`."""
        self._session = None


def open_model(path: Path, options: OpenOptions) -> OnnxRuntimeBackend | BoundBackend:
    """Loads an ONNX file of ours, by default on the processor.

    Raises:
        ModelError: If the file is damaged or not one of ours; see `read_onnx`.
        BackendError: If ONNX Runtime or what its provider for `device` needs is not available.
    """
    options.refuse("cuda_graph", "belongs to TensorRT engines: leave it out")
    for name in ("streams", "precision", "cache"):
        options.refuse(name, "is not for ONNX Runtime: leave it out, or use backend='openvino'")
    device = options.device or "cpu"
    on_gpu = device != "cpu"
    index = options.cuda_device() or 0
    ort = _import_onnxruntime()
    if on_gpu:
        _check_cuda(ort, device, index)
    content, info = read_onnx(path)
    provider = (PROVIDER, provider_options(index, info)) if on_gpu else _CPU_PROVIDER
    try:
        session = ort.InferenceSession(
            content,
            sess_options=_session_options(ort, options.threads),
            providers=[provider],
            # Or ONNX Runtime makes the session, or a call that fails, again on the CPU.
            enable_fallback=0,
        )
        session.disable_fallback()  # Older releases (1.20) ignore the option for calls.
    except Exception as error:  # ONNX Runtime's classes share no base but this one.
        if on_gpu and cuda_failure(error):
            raise _not_started(cuda_failure(error)) from error
        raise ModelError(
            f"{path} cannot be loaded by ONNX Runtime ({reason(error)}): export it again"
        ) from error
    # A provider that does not load is left out in any case, with a line in the log.
    if on_gpu and session.get_providers()[0] != PROVIDER:
        raise _not_started(why_not_loaded(ort))
    check_ports(_ports(session), info, path)
    bound = on_gpu if options.io_binding is None else options.io_binding
    if bound:
        return BoundBackend(ort, session, info, device=device)
    return OnnxRuntimeBackend(session, info, device=device)


def _check_cuda(ort: Any, device: str, index: int) -> None:
    """Refuses a machine where the CUDA provider cannot run; loads the libraries that it needs."""
    offered = ort.get_available_providers()
    if PROVIDER not in offered:
        raise BackendError(
            f"{PROVIDER} was asked for, this ONNX Runtime offers {', '.join(offered)}: "
            "pip uninstall onnxruntime, then pip install ifrnet-deploy[gpu], or use device='cpu'"
        )
    if missing := missing_for_cuda(ort, gpu_driver(), index):
        raise BackendError(f"ONNX Runtime cannot run on {device}: {missing.what}: {missing.remedy}")


def _not_started(why: str | None) -> BackendError:
    return BackendError(
        f"{PROVIDER} did not start ({why or 'ONNX Runtime gives no reason'}): "
        "see python -m runtime.doctor, or use device='cpu'"
    )


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
    options.intra_op_num_threads = threads or available_cpus()
    options.log_severity_level = 3
    # The memory plan that is made ahead takes twice the memory of the one that is made on the
    # way (1080p, small: 2645 against 1459 MB) and is no faster.
    options.enable_mem_pattern = False
    return options


def _ports(session: Any) -> Iterator[Port]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    for number, port in enumerate((*inputs, *outputs)):
        # A free axis has a name, or none at all.
        shape = tuple(n if isinstance(n, int) else None for n in port.shape)
        dtype = _KINDS.get(port.type, port.type)
        yield Port(port.name, dtype, shape, is_input=number < len(inputs))
