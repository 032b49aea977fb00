"""The OpenVINO backend, on the CPU.

The precision is always set: by default OpenVINO computes in bfloat16 on CPUs that support it, even
the coordinates. OpenVINO's own cache is not used: it loads a blob with damaged weights without
an error (64 of 12.9 million bytes inverted gave another image), and it reads the ONNX file even if
the blob exists. `runtime.backends.ov.cache` stores blobs with a checksum.

Measured with OpenVINO 2026.4 on a busy x86-64 CPU with AVX2 (small, 448x256, CPU time of a pair on
one thread, interleaved rounds, the minimum of 7): 322 ms with the graph as exported, 327 ms with
the graph that is rewritten for ONNX Runtime, which is within the noise. Artefacts for OpenVINO have
the graph as exported, in which OpenVINO fuses PReLU into the convolution. Thread pinning keeps its
default: two models at the same time were no faster without it.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.base import HostBackend, InferencePrecision, OpenOptions, concatenated
from runtime.backends.build_command import build_command
from runtime.backends.onnx_format import OnnxFile, check_ports, read_onnx
from runtime.backends.ov.automatic import AutomaticPrecision, automatic_precision
from runtime.backends.ov.compilation import (
    Compilation,
    compiled_model,
    from_onnx,
    import_openvino,
    reason,
    shapes_at,
    trusted_cache,
)
from runtime.backends.ov.precision import COORDINATES_OUTPUT, keeps_coordinates
from runtime.backends.sizes import PreparedSizes
from runtime.errors import BackendError, ModelError
from runtime.machine import available_cpus
from runtime.model_info import INPUTS, OUTPUT, ModelInfo, Port


class OpenVinoBackend(HostBackend):
    """A model that OpenVINO compiled. Threads may share it.

    `submit` starts an inference and returns. With one stream no pair is queued ahead.

    Args:
        compile_for: Compiles the model for a size (height, width) of its images; returns an
            openvino.CompiledModel.
        info: Metadata of the model.
        precision: Type in which convolutions are computed; part of the name of the backend.
        streams: Number of inferences that run at the same time.
        notes: Notes for the user on how it was opened, as sentences.
    """

    def __init__(
        self,
        compile_for: Callable[[tuple[int, int]], Any],
        info: ModelInfo,
        *,
        precision: InferencePrecision,
        streams: int,
        notes: Sequence[str] = (),
    ) -> None:
        self.name = name = f"openvino cpu {precision}"
        self.info = info
        self.precision = precision
        self.notes = notes
        # One request more than streams, so that no stream is ever without work.
        self.lookahead = 0 if streams == 1 else streams
        self._pools = PreparedSizes(lambda size: _RequestPool(compile_for(size), streams + 1, name))

    def run(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[Any]:
        """Runs the model on a batch and waits for it; see `HostBackend.run`."""
        return self._start(img0, img1, timestep).result()

    def submit(self, pairs: Sequence[tuple[Any, Any]], timestep: NDArray[np.float32]) -> list[Any]:
        """Starts an inference; waits for its inputs. See `Backend.submit`."""
        arrays = [(_as_array(first), _as_array(second)) for first, second in pairs]
        inference = self._start(*concatenated(arrays), timestep)
        return [_PendingImage(inference, row) for row in range(len(timestep))]

    def download(self, image: Any) -> Callable[[], NDArray[Any]]:
        """Returns a function that waits for the image; see `Backend.download`."""
        return lambda: _as_array(image)

    def close(self) -> None:
        """Frees the model after the inferences in flight."""
        for pool in self._pools.close():
            pool.close()

    def _start(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> _Inference:
        pool = self._pools.at(self.info.layout.size_of(img0.shape))
        return pool.start(img0, img1, timestep)


class _Inference:
    """One inference; the first call of `result` fetches the result, later calls return it."""

    def __init__(
        self, owner: _RequestPool, request: Any, inputs: Mapping[str, NDArray[Any]]
    ) -> None:
        self._owner = owner
        self._request = request
        # Keeps the arrays alive: OpenVINO reads them without a copy during the inference.
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
            self._error = BackendError(f"{self._owner.name} failed: {reason(error)}")
        self._request = self._inputs = None
        self._owner.give_back(request, self)


class _PendingImage:
    """An image of an inference that may still run: row `row` of its result."""

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
    """A fixed number of inference requests; if all are in use, `start` waits for the oldest."""

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
            raise BackendError(f"{self.name} failed: {reason(error)}") from error
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
                oldest.result()  # Its own caller gets its error.


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
    file = read_onnx(path)
    info = file.info
    chosen = _precision(openvino, file, options)
    cache, cache_note = trusted_cache(options.cache)
    compilation = Compilation(
        precision=chosen.precision,
        streams=options.streams or 1,
        threads=options.threads or available_cpus(),
        cache=cache,
    )
    compilation.check(openvino)

    def compile_for(size: tuple[int, int]) -> Any:
        with _loading(path):
            return compiled_model(openvino, file.content, compilation, shapes=shapes_at(info, size))

    opened = functools.partial(
        OpenVinoBackend,
        info=info,
        precision=compilation.precision,
        streams=compilation.streams,
        notes=[note for note in (chosen.note, cache_note) if note],
    )
    if info.size is None:
        with _loading(path):
            check_ports(_ports(from_onnx(openvino, file.content)), info, path)
        return opened(compile_for)
    compiled = compile_for(info.size)
    check_ports(_ports(compiled), info, path)
    return opened(lambda _: compiled)


def _precision(openvino: Any, file: OnnxFile, options: OpenOptions) -> AutomaticPrecision:
    """The precision of the options, or else the automatic one.

    Raises:
        BackendError: If the model cannot be computed in the precision of the options.
    """
    asked = options.precision
    if asked is None or asked == "auto":
        return automatic_precision(openvino, file)
    if asked != "fp32" and not keeps_coordinates(file.info):
        raise BackendError(
            f"precision={asked!r} was asked for, {file.path.name} is tuned for ONNX Runtime: "
            f"build a plain one with {build_command(file.info, 'openvino')}"
        )
    return AutomaticPrecision(asked)


@contextlib.contextmanager
def _loading(path: Path) -> Iterator[None]:
    """Converts errors of OpenVINO in the block to ModelError."""
    try:
        yield
    except RuntimeError as error:
        raise ModelError(
            f"{path} cannot be loaded by OpenVINO ({reason(error)}): export it again"
        ) from error


def _ports(model: Any) -> Iterator[Port]:
    """The ports of an openvino.Model or CompiledModel, without the added outputs."""
    inputs, outputs = model.inputs, model.outputs
    for number, port in enumerate((*inputs, *outputs)):
        shape = (n.get_length() if n.is_static else None for n in port.get_partial_shape())
        # If OpenVINO removes a cast at a port, the port also has the name of the cast's result.
        names = port.get_names()
        if any(name.startswith(COORDINATES_OUTPUT) for name in names):
            continue
        name = next(iter(names & {*INPUTS, OUTPUT}), min(names, default=""))
        dtype = port.get_element_type().to_dtype().name
        yield Port(name, dtype, tuple(shape), is_input=number < len(inputs))


def _as_array(image: Any) -> NDArray[Any]:
    """The image as a batch of one on the host; waits if it is not complete."""
    array: NDArray[Any] = image.array() if isinstance(image, _PendingImage) else image
    return array
