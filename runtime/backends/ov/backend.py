"""The OpenVINO backend, on the CPU.

Float32 is set explicitly, since OpenVINO chooses bfloat16 on CPUs that support it. OpenVINO's own
cache is not used: it loads a blob with damaged weights without an error (64 of 12.9 million bytes
inverted gave another image), and it reads the ONNX file even if the blob exists.
`runtime.backends.ov.cache` stores blobs with a checksum.

Measured with OpenVINO 2026.4 on a busy x86-64 CPU with AVX2 (small, 448x256, CPU time of a pair on
one thread, interleaved rounds, the minimum of 7): 322 ms with the graph as exported, 327 ms with
the graph that is rewritten for ONNX Runtime, which is no difference. The graph as exported is
built, since there OpenVINO fuses PReLU into the convolution. Thread pinning is left at its default:
two models side by side were no faster without it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.base import (
    NO_CACHE,
    HostBackend,
    InferencePrecision,
    OpenOptions,
    concatenated,
)
from runtime.backends.onnx_format import check_ports, read_onnx
from runtime.backends.ov.cache import CacheEntry
from runtime.errors import BackendError, ModelError
from runtime.machine import available_cpus, cache_folder
from runtime.model_info import INPUTS, OUTPUT, ModelInfo, Port
from runtime.telemetry import import_quietly

_HINTS: dict[InferencePrecision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES: dict[InferencePrecision, str] = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}


class OpenVinoBackend(HostBackend):
    """A model that OpenVINO compiled. Threads may share it.

    `submit` starts an inference and returns. With one stream no pair is queued ahead.

    Args:
        compiled: An openvino.CompiledModel.
        info: Metadata of the model.
        name: Name of the backend, in messages and reports.
        streams: Number of inferences that run at the same time.
    """

    def __init__(self, compiled: Any, info: ModelInfo, *, name: str, streams: int) -> None:
        self.name = name
        self.info = info
        # One request more than streams, so that no stream is ever without work.
        self.lookahead = 0 if streams == 1 else streams
        self._requests = _RequestPool(compiled, streams + 1, name)

    def run(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[Any]:
        """Runs the model on a batch and waits for it; see `HostBackend.run`."""
        return self._requests.start(img0, img1, timestep).result()

    def submit(self, pairs: Sequence[tuple[Any, Any]], timestep: NDArray[np.float32]) -> list[Any]:
        """Starts an inference; waits for its inputs. See `Backend.submit`."""
        arrays = [(_as_array(first), _as_array(second)) for first, second in pairs]
        inference = self._requests.start(*concatenated(arrays), timestep)
        return [_PendingImage(inference, row) for row in range(len(timestep))]

    def download(self, image: Any) -> Callable[[], NDArray[Any]]:
        """Returns a function that waits for the image; see `Backend.download`."""
        return lambda: _as_array(image)

    def close(self) -> None:
        """Frees the model after the inferences in flight."""
        self._requests.close()


class _Inference:
    """One inference; the first caller of `result` fetches the result, once."""

    def __init__(
        self, owner: _RequestPool, request: Any, inputs: Mapping[str, NDArray[Any]]
    ) -> None:
        self._owner = owner
        self._request = request
        # A reference: OpenVINO reads the arrays themselves during the inference.
        self._inputs: Mapping[str, NDArray[Any]] | None = inputs
        self._lock = threading.Lock()
        self._result: NDArray[Any] | None = None
        self._error: BackendError | None = None
        request.start_async(inputs, share_inputs=True)

    def result(self) -> NDArray[Any]:
        """Waits for the inference; returns a new array of B images.

        Raises:
            BackendError: If the inference failed.
        """
        with self._lock:
            if self._request is not None:
                self._fetch(self._request)
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def _fetch(self, request: Any) -> None:
        try:
            request.wait()
            self._result = request.get_tensor("imgt").data.copy()
        except Exception as error:  # OpenVINO raises RuntimeError and its subclasses.
            self._error = BackendError(f"{self._owner.name} failed: {_first_line(error)}")
        self._request = self._inputs = None
        self._owner.give_back(request, self)


class _PendingImage:
    """An image that an inference makes: row `row` of its result."""

    def __init__(self, inference: _Inference, row: int) -> None:
        self._inference = inference
        self._row = row

    def array(self) -> NDArray[Any]:
        """Waits for the image; returns it as a batch of one.

        Raises:
            BackendError: If the inference failed.
        """
        return self._inference.result()[self._row : self._row + 1]


class _RequestPool:
    """Inference requests that are used again; if all are in use, the oldest is waited for."""

    def __init__(self, compiled: Any, count: int, name: str) -> None:
        self.name = name
        self._compiled = compiled
        self._idle = [compiled.create_infer_request() for _ in range(count)]
        self._in_flight: deque[_Inference] = deque()
        self._changed = threading.Condition()

    def start(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> _Inference:
        """Starts an inference.

        Raises:
            BackendError: If the model is closed, or OpenVINO refuses the inputs.
        """
        request = self._take()
        inputs = {"img0": img0, "img1": img1, "timestep": timestep}
        try:
            inference = _Inference(self, request, inputs)
        except Exception as error:  # OpenVINO raises RuntimeError and its subclasses.
            self.give_back(request)
            raise BackendError(f"{self.name} failed: {_first_line(error)}") from error
        with self._changed:
            self._in_flight.append(inference)
            self._changed.notify()
        return inference

    def give_back(self, request: Any, inference: _Inference | None = None) -> None:
        """Returns a request to the pool."""
        with self._changed:
            if inference is not None and inference in self._in_flight:
                self._in_flight.remove(inference)
            self._idle.append(request)
            self._changed.notify()

    def close(self) -> None:
        """Frees the model after the inferences in flight."""
        with self._changed:
            self._compiled = None
            in_flight = list(self._in_flight)
            self._changed.notify_all()
        for inference in in_flight:
            with contextlib.suppress(BackendError):
                inference.result()
        with self._changed:
            self._idle.clear()

    def _take(self) -> Any:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._compiled is None or self._idle or self._in_flight
                )
                if self._compiled is None:
                    raise BackendError("the model is closed: open it again")
                if self._idle:
                    return self._idle.pop()
                oldest = self._in_flight.popleft()
            with contextlib.suppress(BackendError):
                oldest.result()  # Its error is raised again for the caller that waits for it.


def open_model(path: Path, options: OpenOptions) -> OpenVinoBackend:
    """Loads an ONNX file of this package on the CPU.

    Raises:
        ModelError: If the file is damaged or not from this package; see `read_onnx`.
        BackendError: If OpenVINO is not installed, or does not support an option.
    """
    options.refuse("cuda_graph", "is for TensorRT engines: leave it out")
    options.refuse("io_binding", "is for ONNX Runtime: leave it out")
    if options.device not in (None, "cpu"):
        raise BackendError(
            f"device {options.device!r} was asked for, OpenVINO is used on the CPU only: "
            "use device='cpu', or backend='onnxruntime'"
        )
    openvino = import_openvino()
    content, info = read_onnx(path)
    precision, streams = options.precision or "fp32", options.streams or 1
    if precision != "fp32" and (info.size is None or info.tuned_for != "any"):
        # In these models OpenVINO replaces nodes of the coordinates, which removes their marks.
        raise BackendError(
            f"precision={precision!r} is for models of one size that are not tuned for ONNX "
            "Runtime: build one with --size HxW --backend openvino"
        )
    try:
        compiled = compiled_model(
            openvino,
            content,
            precision=precision,
            streams=streams,
            threads=options.threads or available_cpus(),
            cache=options.cache,
        )
    except RuntimeError as error:
        raise ModelError(
            f"{path} cannot be loaded by OpenVINO ({_first_line(error)}): export it again"
        ) from error
    check_ports(_ports(compiled), info, path)
    name = "openvino cpu" if precision == "fp32" else f"openvino cpu {precision}"
    return OpenVinoBackend(compiled, info, name=name, streams=streams)


def import_openvino() -> Any:
    """Imports the module `openvino`, with its telemetry off.

    Raises:
        BackendError: If it is not installed or does not load.
    """
    try:
        return import_quietly("openvino")
    except ImportError as error:
        raise BackendError(
            f"OpenVINO cannot be imported ({_first_line(error)}): pip install "
            "'ifrnet-deploy[openvino]', or use backend='onnxruntime'"
        ) from error


def compiled_model(
    openvino: Any,
    content: bytes,
    *,
    precision: InferencePrecision,
    streams: int,
    threads: int,
    cache: str | None,
) -> Any:
    """Compiles an ONNX file, or reads the compiled model from the cache.

    Args:
        openvino: The module.
        content: The ONNX file.
        precision: Type in which convolutions are computed.
        streams: Number of inferences that run at the same time.
        threads: Number of CPUs that they share.
        cache: Folder for compiled models; None for the default folder, "none" for no cache.

    Returns:
        An openvino.CompiledModel.

    Raises:
        BackendError: If the CPU does not support the precision, this OpenVINO cannot keep the
            coordinates in float32 with it, or there are fewer threads than streams.
        RuntimeError: If OpenVINO cannot read the file.
    """
    if streams > threads:
        raise BackendError(
            f"streams={streams} was given with {threads} threads, each stream needs one: use fewer "
            "streams"
        )
    core = _core(openvino)
    _check_capability(core, precision)
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": str(threads),
    }
    folder = cache_folder() / "openvino" if cache is None else Path(cache)
    entry = None if cache == NO_CACHE else CacheEntry(folder, openvino, core, content, settings)
    if entry is not None and (compiled := entry.read()) is not None:
        return compiled
    model = _from_onnx(openvino, content)
    if precision == "fp32":
        compiled = core.compile_model(model, "CPU", settings)
    else:
        from runtime.backends.ov.precision import compiled_with_float32

        compiled = compiled_with_float32(openvino, core, model, settings)
    if entry is not None:
        entry.write(compiled)
    return compiled


def _from_onnx(openvino: Any, content: bytes) -> Any:
    """Reads an ONNX file as an openvino.Model.

    `Core.read_model` is not used: it would read bytes that are also a valid file in OpenVINO's own
    format as that format, which is not the model that was checked.

    Raises:
        RuntimeError: If OpenVINO cannot read the file.
    """
    reader = openvino.frontend.FrontEndManager().load_by_framework("onnx")
    try:
        return reader.convert(reader.load(io.BytesIO(content)))
    except Exception as error:  # The front end's classes share no base but this one.
        raise RuntimeError(str(error)) from error


def capabilities(openvino: Any) -> tuple[str, list[str]]:
    """The name of the CPU and the types that it computes in: "FP32", "BF16", "INT8" and others."""
    core = _core(openvino)
    return (
        str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip(),
        list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
    )


@functools.cache
def _core(openvino: Any) -> Any:
    """The openvino.Core of the process, which owns the plugin and its threads."""
    return openvino.Core()


def _check_capability(core: Any, precision: InferencePrecision) -> None:
    """Checks that the CPU computes in a type; OpenVINO would use float32 or emulate the type.

    Raises:
        BackendError: If it does not.
    """
    available = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if _CAPABILITIES[precision] not in available:
        usable = [name for name, capability in _CAPABILITIES.items() if capability in available]
        raise BackendError(
            f"precision={precision!r} was asked for, this CPU has {', '.join(usable)} only: "
            "leave it out"
        )


def _ports(compiled: Any) -> Iterator[Port]:
    inputs, outputs = compiled.inputs, compiled.outputs
    for number, port in enumerate((*inputs, *outputs)):
        shape = (n.get_length() if n.is_static else None for n in port.get_partial_shape())
        # If OpenVINO removes a cast, the port has the name of its result too.
        names = port.get_names()
        name = next(iter(names & {*INPUTS, OUTPUT}), min(names, default=""))
        dtype = port.get_element_type().to_dtype().name
        yield Port(name, dtype, tuple(shape), is_input=number < len(inputs))


def _as_array(image: Any) -> NDArray[Any]:
    """The image as a batch of one on the host; waits for an image that is being made."""
    array: NDArray[Any] = image.array() if isinstance(image, _PendingImage) else image
    return array


def _first_line(error: BaseException) -> str:
    """The first line of an error of OpenVINO after the lines that name places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (reasons or lines or [type(error).__name__])[0]
