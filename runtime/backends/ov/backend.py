"""OpenVINO on the processor.

Float32 is said to it, for on processors with bfloat16 its own choice is that. Its cache is not
used: it takes a blob whose weights are damaged without a word (64 of 12.9 million bytes turned over
gave another picture), and it reads the ONNX file even where the blob is at hand. `ov_cache` keeps
blobs with a checksum.

Measured on a busy x86-64 with AVX2 (OpenVINO 2026.4, small, 448x256, processor time of a pair, one
thread, in turns, the least of 7): the graph as exported 322 ms, the graph that is rewritten for
ONNX Runtime 327, which is no difference; the first is what is built for it, for there a PReLU is
part of its convolution. Pinning of threads is left as OpenVINO has it: two models side by side
were no faster without.
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

from runtime.backends.base import NO_CACHE, HostBackend, InferencePrecision, OpenOptions
from runtime.backends.onnx_format import check_ports, read_onnx
from runtime.backends.ov.cache import ModelCache
from runtime.errors import BackendError, ModelError
from runtime.machine import available_cpus, cache_folder
from runtime.model_info import INPUTS, OUTPUT, ModelInfo, Port
from runtime.telemetry import import_quietly

_HINTS: dict[InferencePrecision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES: dict[InferencePrecision, str] = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}


class OpenVinoBackend(HostBackend):
    """A compiled model. All methods may be called from several threads at once.

    With one stream a pair is computed while the caller waits for it; with several, `submit`
    queues it and comes back.

    Args:
        compiled: An openvino.CompiledModel.
        info: What the model says about itself.
        name: For messages and reports.
        streams: Inferences at the same time.
    """

    def __init__(self, compiled: Any, info: ModelInfo, *, name: str, streams: int) -> None:
        self.name = name
        self.info = info
        # One more than run at a time is queued, so that no stream is ever without work.
        self.lookahead = 0 if streams == 1 else streams
        self._requests = _Requests(compiled, streams + 1, name)

    def run(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[Any]:
        """See `HostBackend.run`."""
        return self._requests.start(img0, img1, timestep).result()

    def submit(self, pairs: Sequence[tuple[Any, Any]], timestep: NDArray[np.float32]) -> list[Any]:
        """See `Backend.submit`. Waits for images that are still being made."""
        arrays = [tuple(map(_array, pair)) for pair in pairs]
        img0, img1 = (
            arrays[0][k] if len(arrays) == 1 else np.concatenate([pair[k] for pair in arrays])
            for k in (0, 1)
        )
        call = self._requests.start(img0, img1, timestep)
        return [_Queued(call, row) for row in range(len(timestep))]

    def download(self, image: Any) -> Callable[[], NDArray[Any]]:
        """See `Backend.download`."""
        return lambda: _array(image)

    def close(self) -> None:
        """See `Backend.close`."""
        self._requests.close()


class _Call:
    """One inference; its result is fetched once, by whoever asks first."""

    def __init__(self, owner: _Requests, request: Any, feed: Mapping[str, NDArray[Any]]) -> None:
        self._owner = owner
        self._request = request
        self._feed: Mapping[str, NDArray[Any]] | None = feed  # OpenVINO reads it where it lies.
        self._lock = threading.Lock()
        self._made: NDArray[Any] | None = None
        self._error: BackendError | None = None
        request.start_async(feed, share_inputs=True)

    def result(self) -> NDArray[Any]:
        """Waits; a new array of B images.

        Raises:
            BackendError: If the inference failed.
        """
        with self._lock:
            if self._request is not None:
                self._fetch(self._request)
        if self._error is not None:
            raise self._error
        assert self._made is not None
        return self._made

    def _fetch(self, request: Any) -> None:
        try:
            request.wait()
            self._made = request.get_tensor("imgt").data.copy()
        except Exception as error:  # OpenVINO raises RuntimeError and its children.
            self._error = BackendError(f"{self._owner.name} failed: {_first_line(error)}")
        self._request = self._feed = None
        self._owner.give_back(request, self)


class _Queued:
    """An image that is being made: a row of what a call makes."""

    def __init__(self, call: _Call, row: int) -> None:
        self._call = call
        self._row = row

    def array(self) -> NDArray[Any]:
        """Waits for it; a batch of one."""
        return self._call.result()[self._row : self._row + 1]


class _Requests:
    """Inference requests by turns; where all are taken, the oldest is waited for."""

    def __init__(self, compiled: Any, count: int, name: str) -> None:
        self.name = name
        self._compiled = compiled
        self._idle = [compiled.create_infer_request() for _ in range(count)]
        self._under_way: deque[_Call] = deque()
        self._changed = threading.Condition()

    def start(self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]) -> _Call:
        """Queues an inference.

        Raises:
            BackendError: If the model is closed, or refuses what it was given.
        """
        request = self._take()
        feed = {"img0": img0, "img1": img1, "timestep": timestep}
        try:
            call = _Call(self, request, feed)
        except Exception as error:  # OpenVINO raises RuntimeError and its children.
            self.give_back(request)
            raise BackendError(f"{self.name} failed: {_first_line(error)}") from error
        with self._changed:
            self._under_way.append(call)
            self._changed.notify()
        return call

    def give_back(self, request: Any, call: _Call | None = None) -> None:
        """Ends the use of a request."""
        with self._changed:
            with contextlib.suppress(ValueError):
                self._under_way.remove(call)  # type: ignore[arg-type]  # None is not in it.
            self._idle.append(request)
            self._changed.notify()

    def close(self) -> None:
        """Frees the model once what is under way is done."""
        with self._changed:
            self._compiled = None
            under_way = list(self._under_way)
            self._changed.notify_all()
        for call in under_way:
            with contextlib.suppress(BackendError):
                call.result()
        with self._changed:
            self._idle.clear()

    def _take(self) -> Any:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._compiled is None or self._idle or self._under_way
                )
                if self._compiled is None:
                    raise BackendError("the model is closed: open it again")
                if self._idle:
                    return self._idle.pop()
                oldest = self._under_way.popleft()
            with contextlib.suppress(BackendError):
                oldest.result()  # Whoever waits for it is told of its error.


def open_model(path: Path, options: OpenOptions) -> OpenVinoBackend:
    """Loads an ONNX file of ours, on the processor.

    Raises:
        ModelError: If the file is damaged or not one of ours; see `read_onnx`.
        BackendError: If OpenVINO is not installed, or does not have what the options ask for.
    """
    options.refuse("cuda_graph", "belongs to TensorRT engines: leave it out")
    options.refuse("io_binding", "belongs to ONNX Runtime: leave it out")
    if options.device not in (None, "cpu"):
        raise BackendError(
            f"device {options.device!r} was asked for, OpenVINO runs on the processor here: "
            "use device='cpu', or backend='onnxruntime'"
        )
    openvino = import_openvino()
    content, info = read_onnx(path)
    precision, streams = options.precision or "fp32", options.streams or 1
    if precision != "fp32" and (info.size is None or info.tuned_for != "any"):
        # There OpenVINO replaces nodes of the coordinates, whose marks go with them.
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
    """The module.

    Raises:
        BackendError: If it is not installed or does not load.
    """
    try:
        return import_quietly("openvino")
    except ImportError as error:
        raise BackendError(
            f"OpenVINO does not load ({_first_line(error)}): pip install "
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
    """Compiles an ONNX file, or takes from the cache what was compiled before.

    Args:
        openvino: The module.
        content: The file.
        precision: Of convolutions.
        streams: Inferences at the same time.
        threads: Processors that they share.
        cache: As of `OpenOptions`.

    Returns:
        An openvino.CompiledModel.

    Raises:
        BackendError: If the processor lacks the precision, this OpenVINO does not keep the
            coordinates float32 in it, or there are fewer threads than streams.
        RuntimeError: If OpenVINO cannot read the file.
    """
    if streams > threads:
        raise BackendError(
            f"streams={streams} came with {threads} threads, and each needs one: use fewer streams"
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
    kept = None if cache == NO_CACHE else ModelCache(folder, openvino, core, content, settings)
    if kept is not None and (compiled := kept.read()) is not None:
        return compiled
    model = _from_onnx(openvino, content)
    if precision == "fp32":
        compiled = core.compile_model(model, "CPU", settings)
    else:
        from runtime.backends.ov.precision import compiled_with_float32

        compiled = compiled_with_float32(openvino, core, model, settings)
    if kept is not None:
        kept.write(compiled)
    return compiled


def _from_onnx(openvino: Any, content: bytes) -> Any:
    """The model of an ONNX file, an openvino.Model.

    `Core.read_model` would take the same bytes for OpenVINO's own format where they are that too,
    and the model would not be the one that was checked.

    Raises:
        RuntimeError: If OpenVINO cannot read the file.
    """
    reader = openvino.frontend.FrontEndManager().load_by_framework("onnx")
    try:
        return reader.convert(reader.load(io.BytesIO(content)))
    except Exception as error:  # The front end's classes share no base but this one.
        raise RuntimeError(str(error)) from error


def capabilities(openvino: Any) -> tuple[str, list[str]]:
    """The processor's name and what it computes in, as OpenVINO says: FP32, BF16, INT8 ..."""
    core = _core(openvino)
    return (
        str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip(),
        list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
    )


@functools.cache
def _core(openvino: Any) -> Any:
    """One for the process: it holds the plugin and its threads."""
    return openvino.Core()


def _check_capability(core: Any, precision: InferencePrecision) -> None:
    """OpenVINO itself computes in float32, or imitates, what the processor does not have."""
    offered = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if _CAPABILITIES[precision] not in offered:
        has = [name for name, said in _CAPABILITIES.items() if said in offered]
        raise BackendError(
            f"precision={precision!r} was asked for, this processor has {', '.join(has)} only: "
            "leave it out"
        )


def _ports(compiled: Any) -> Iterator[Port]:
    inputs, outputs = compiled.inputs, compiled.outputs
    for number, port in enumerate((*inputs, *outputs)):
        shape = (n.get_length() if n.is_static else None for n in port.get_partial_shape())
        # Where a cast is left out, its result lends the port a second name.
        names = port.get_names()
        name = next(iter(names & {*INPUTS, OUTPUT}), min(names, default=""))
        dtype = port.get_element_type().to_dtype().name
        yield Port(name, dtype, tuple(shape), is_input=number < len(inputs))


def _array(image: Any) -> NDArray[Any]:
    array: NDArray[Any] = image.array() if isinstance(image, _Queued) else image
    return array


def _first_line(error: BaseException) -> str:
    """The sentence of an error of OpenVINO, which begins with places in its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (told or lines or [type(error).__name__])[0]
