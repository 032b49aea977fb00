"""The ONNX Runtime backend, on the CPU and with CUDA."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
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
    cuda_provider_problem,
    provider_options,
    reason,
    why_not_loaded,
)
from runtime.backends.sizes import PreparedSizes
from runtime.errors import BackendError, ModelError, install_command
from runtime.machine import available_cpus, gpu_driver
from runtime.model_info import ModelInfo, Port
from runtime.telemetry import import_quietly

_CPU_PROVIDER = "CPUExecutionProvider"
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OnnxRuntimeBackend(HostBackend):
    """ONNX Runtime without I/O binding. Threads may share it.

    Args:
        session_for: Returns the onnxruntime.InferenceSession for a size (height, width) of images.
        info: Metadata of the model.
        device: "cpu", "cuda" or "cuda:N".
    """

    def __init__(
        self, session_for: Callable[[tuple[int, int]], Any], info: ModelInfo, *, device: str
    ) -> None:
        self.name = f"onnxruntime {device}"
        self.info = info
        self._sessions = PreparedSizes(session_for)

    def run(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[Any]:
        """Runs the model on a batch; see `HostBackend.run`."""
        feed = {"img0": img0, "img1": img1, "timestep": timestep}
        try:
            session = self._sessions.at(self.info.layout.size_of(img0.shape))
            outputs = session.run(["imgt"], feed)
        except BackendError:
            raise
        except Exception as error:  # ONNX Runtime's errors have no other base class.
            raise BackendError(f"{self.name} failed: {reason(error)}") from error
        result: NDArray[Any] = outputs[0]
        return result

    def close(self) -> None:
        """Frees the model."""
        self._sessions.close()


def open_model(path: Path, options: OpenOptions) -> OnnxRuntimeBackend | BoundBackend:
    """Loads an ONNX file of this package, by default on the CPU.

    Raises:
        ModelError: If the file is damaged or not from this package; see `read_onnx`.
        BackendError: If an option is not for ONNX Runtime, or ONNX Runtime or a requirement of its
            provider for the device is missing.
    """
    options.refuse("cuda_graph", "is for TensorRT engines: leave it out")
    for name in ("streams", "precision", "cache"):
        options.refuse(name, "is not for ONNX Runtime: leave it out, or use backend='openvino'")
    device = options.device or "cpu"
    on_gpu = device != "cpu"
    index = options.cuda_device() or 0
    ort = _import_onnxruntime()
    if on_gpu:
        _check_cuda(ort, device, index)
    _, content, info, _ = read_onnx(path)
    provider = (PROVIDER, provider_options(index, info)) if on_gpu else _CPU_PROVIDER
    session_for = functools.partial(_session, ort, content, provider, options.threads)
    try:
        session = session_for({})
    except Exception as error:  # ONNX Runtime's errors have no other base class.
        if on_gpu and cuda_failure(error):
            raise _not_started(cuda_failure(error)) from error
        raise ModelError(
            f"{path} cannot be loaded by ONNX Runtime ({reason(error)}): export it again"
        ) from error
    # ONNX Runtime drops a provider that does not load, and reports that in its log only.
    if on_gpu and session.get_providers()[0] != PROVIDER:
        raise _not_started(why_not_loaded(ort))
    check_ports(_ports(session), info, path)
    bound = on_gpu if options.io_binding is None else options.io_binding
    if bound:
        return BoundBackend(ort, session, info, device=device)
    if on_gpu or (axes := free_axes(session, info)) is None:
        return OnnxRuntimeBackend(lambda _: session, info, device=device)
    return OnnxRuntimeBackend(
        lambda size: session_for(dict(zip(axes, size, strict=True))), info, device=device
    )


def _session(
    ort: Any, content: bytes, provider: object, threads: int | None, lengths: Mapping[str, int]
) -> Any:
    """Creates an onnxruntime.InferenceSession; `lengths` fixes free axes, by their names."""
    settings = _session_options(ort, threads)
    for name, length in lengths.items():
        settings.add_free_dimension_override_by_name(name, length)
    session = ort.InferenceSession(
        content,
        sess_options=settings,
        providers=[provider],
        # Otherwise ONNX Runtime repeats a session or a call that fails on the CPU.
        enable_fallback=0,
    )
    session.disable_fallback()  # Older releases (1.20) ignore the option for calls.
    return session


def free_axes(session: Any, info: ModelInfo) -> tuple[str, str] | None:
    """The names of the free height and width of the images; None if they have a fixed size.

    Args:
        session: An onnxruntime.InferenceSession.
        info: Metadata of the model.
    """
    shape = session.get_inputs()[0].shape
    height, width = (shape[axis] for axis in info.layout.size_axes)
    return (height, width) if isinstance(height, str) and isinstance(width, str) else None


def _check_cuda(ort: Any, device: str, index: int) -> None:
    """Checks that the CUDA provider can run on a device, and loads the libraries that it needs.

    Raises:
        BackendError: If it cannot.
    """
    available = ort.get_available_providers()
    if PROVIDER not in available:
        raise BackendError(
            f"{PROVIDER} was asked for, this ONNX Runtime has {', '.join(available)}: "
            f"pip uninstall onnxruntime, then {install_command('gpu')}, or use device='cpu'"
        )
    if found := cuda_provider_problem(ort, gpu_driver(), index):
        raise BackendError(f"ONNX Runtime cannot run on {device} ({found.problem}): {found.remedy}")


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
            f"ONNX Runtime is not installed: {install_command('cpu')} (or [gpu] for CUDA, never "
            "both)"
        ) from error


def _session_options(ort: Any, threads: int | None) -> Any:
    """The options of a session.

    Measured with ONNX Runtime 1.32 on a busy x86-64 CPU with AVX2 (small, 448x256, CPU time of a
    pair on one thread, interleaved rounds, the minimum of 9): 467 ms with these options, 551 ms
    without the layout optimisation. No difference above the noise: denormals as zero, no arena, no
    prepacked weights. A graph that was saved after optimisation opens in 29 ms of CPU time instead
    of 77, but fits one type of CPU only. Spinning keeps its default, on: its effect can only be
    measured on an idle machine.
    """
    options = ort.SessionOptions()
    # Not ONNX Runtime's default, which counts the CPUs of the machine and not of the container.
    options.intra_op_num_threads = threads or available_cpus()
    options.log_severity_level = 3
    # With memory patterns, which plan memory before a run, a model needs 2645 MB (1080p, small);
    # without them 1459 MB. Both are equally fast.
    options.enable_mem_pattern = False
    return options


def _ports(session: Any) -> Iterator[Port]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    for number, port in enumerate((*inputs, *outputs)):
        # ONNX Runtime gives a free axis as a name or None.
        shape = tuple(n if isinstance(n, int) else None for n in port.shape)
        dtype = _DTYPES.get(port.type, port.type)
        yield Port(port.name, dtype, shape, is_input=number < len(inputs))
