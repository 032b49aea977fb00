"""Images on the GPU, and the execution contexts that make one of two."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtime.backends.cuda.runtime import Buffer, Cuda, Event, Graph, Pool, Stream, StreamHandle
from runtime.backends.trt.engine import Engine
from runtime.errors import BackendError


class Memory:
    """A buffer in use; gives it back with the last reference to an image in it."""

    def __init__(self, pool: Pool, buffer: Buffer) -> None:
        self._pool = pool
        self.buffer = buffer

    def used(self, stream: StreamHandle, event: Event) -> None:
        """Notes that `stream` may use the buffer until `event`."""
        self.buffer.uses[stream] = event

    def __del__(self) -> None:
        self._pool.give_back(self.buffer)


@dataclass(frozen=True, eq=False)
class DeviceImage:
    """A batch of one on the GPU.

    Attributes:
        pointer: Address of the first byte.
        shape: (1, H, W, 3) or (1, 3, H, W).
        dtype: uint8 or float32.
        ready: When its content is there.
        memory: Keeps the content alive: our buffer, or whatever owns the memory of a caller.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    ready: Event
    memory: object = field(repr=False)

    @property
    def is_the_callers(self) -> bool:
        """Whether the memory is not ours."""
        return not isinstance(self.memory, Memory)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def used(self, stream: StreamHandle, event: Event) -> None:
        """Notes that `stream` may read the image until `event`.

        Nothing is noted for a caller's memory: the caller's stream waits for the result.
        """
        if isinstance(self.memory, Memory):
            self.memory.used(stream, event)


@dataclass(frozen=True)
class Call:
    """Where one inference finds its inputs and leaves its result."""

    img0: int
    img1: int
    timestep: int
    imgt: int


class Lane:
    """One execution context with a stream and, where launches are recorded, a graph of its own.

    Attributes:
        stream: Where the inferences are queued.
        graph_problem: Why launches cannot be recorded as a CUDA graph; None unless that was tried
            and failed.
    """

    def __init__(self, cuda: Cuda, engine: Engine) -> None:
        self.stream = Stream(cuda)
        self.graph_problem: str | None = None
        self._cuda = cuda
        self._engine = engine
        try:
            self._context = engine.context(self.stream.handle)
            self.stream.synchronize()  # The profile is selected.
        except BackendError:
            self.stream.close()
            raise
        self._shapes: Mapping[str, tuple[int, ...]] = {}
        self._graph: Graph | None = None
        self._warm = False

    def run(self, call: Call, free_shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Queues one inference; `free_shapes`: of the inputs whose shape the engine leaves free."""
        if free_shapes != self._shapes:
            for name, shape in free_shapes.items():
                if not self._context.set_input_shape(name, shape):
                    raise BackendError(f"TensorRT refused {name} of shape {shape}")
            self._shapes = free_shapes
        for name, address in vars(call).items():
            if not self._context.set_tensor_address(name, address):
                raise BackendError(f"TensorRT refused the address {address:#x} for {name}")
        if not self._context.execute_async_v3(self.stream.handle):
            raise BackendError("TensorRT could not queue the inference")

    def replay(self, call: Call) -> None:
        """Queues the inference that is recorded at the second call; it is always the same one.

        Where it cannot be recorded, this and every later inference is launched plainly.
        """
        if self._graph is None and self._warm and self.graph_problem is None:
            self._record(call)
        if self._graph is not None:
            self._graph.launch(self.stream)
        else:
            self.run(call, {})  # What TensorRT prepares at its first call cannot be recorded.
            self._warm = True

    def _record(self, call: Call) -> None:
        """Records the launches of one inference, or notes why that is not possible."""
        try:
            with self._cuda.capture(self.stream) as captured:
                self.run(call, {})
        except BackendError as error:
            self.graph_problem = f"{error}{self._engine.said()}"
            # Or the next to ask for the last error, another library perhaps, is given this one.
            self._cuda.api.cudaGetLastError()
            warnings.warn(
                f"the inference could not be recorded as a CUDA graph ({self.graph_problem}): its "
                "kernels are launched one by one, which takes longer for small frames",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            (self._graph,) = captured

    def report_to(self, profiler: Any) -> None:
        """Tells an IProfiler of TensorRT how long each layer of each later inference takes."""
        self._context.profiler = profiler

    def close(self) -> None:
        """Frees context, graph and stream; the stream's work must be done."""
        if self._graph is not None:
            self._graph.close()
        self._graph = None
        self._context = None
        self.stream.close()
