"""Images on the GPU, and TensorRT execution contexts that compute with them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtime.backends.cuda.runtime import (
    Buffer,
    BufferPool,
    Cuda,
    Event,
    Graph,
    Stream,
    StreamHandle,
)
from runtime.backends.trt.engine import Engine
from runtime.errors import BackendError


class BufferLease:
    """A buffer in use; the last reference to the lease returns the buffer to its pool."""

    def __init__(self, pool: BufferPool, buffer: Buffer) -> None:
        self._pool = pool
        self.buffer = buffer

    def record_use(self, stream: StreamHandle, event: Event) -> None:
        """Marks the buffer as used by `stream` until `event`."""
        self.buffer.uses[stream] = event

    def __del__(self) -> None:
        self._pool.give_back(self.buffer)


@dataclass(frozen=True, eq=False)
class DeviceImage:
    """A batch of one image in GPU memory.

    Attributes:
        pointer: Address of the first byte.
        shape: (1, H, W, 3) or (1, 3, H, W).
        dtype: uint8 or float32.
        ready: The event after which the content is complete.
        memory: The owner of the memory: a `BufferLease`, or an object of the caller.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    ready: Event
    memory: object = field(repr=False)

    @property
    def is_external(self) -> bool:
        """Whether the memory belongs to the caller."""
        return not isinstance(self.memory, BufferLease)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def record_use(self, stream: StreamHandle, event: Event) -> None:
        """Marks the image as read by `stream` until `event`.

        For external memory this does nothing: the caller's stream waits for the result.
        """
        if isinstance(self.memory, BufferLease):
            self.memory.record_use(stream, event)


@dataclass(frozen=True)
class TensorAddresses:
    """Addresses on the GPU of the inputs and the output of one inference."""

    img0: int
    img1: int
    timestep: int
    imgt: int


class ExecutionSlot:
    """An execution context with its own stream and its own CUDA graph.

    Attributes:
        stream: The stream of the inferences.
        graph_problem: Why the launches cannot be recorded as a CUDA graph; None unless recording
            failed.
    """

    def __init__(self, cuda: Cuda, engine: Engine) -> None:
        self.stream = Stream(cuda)
        self.graph_problem: str | None = None
        self._cuda = cuda
        self._engine = engine
        try:
            self._context = engine.context(self.stream.handle)
            self.stream.synchronize()  # Waits for the selection of the profile.
        except BackendError:
            self.stream.close()
            raise
        self._shapes: Mapping[str, tuple[int, ...]] = {}
        self._graph: Graph | None = None
        self._warm = False

    def run(self, addresses: TensorAddresses, free_shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Queues one inference.

        Args:
            addresses: Addresses of its inputs and its output.
            free_shapes: Shapes of the inputs whose shape the engine leaves free, by name.

        Raises:
            BackendError: If TensorRT refuses a shape or an address, or cannot queue it.
        """
        if free_shapes != self._shapes:
            for name, shape in free_shapes.items():
                if not self._context.set_input_shape(name, shape):
                    raise BackendError(f"TensorRT refused {name} of shape {shape}")
            self._shapes = free_shapes
        for name, address in vars(addresses).items():
            if not self._context.set_tensor_address(name, address):
                raise BackendError(f"TensorRT refused the address {address:#x} for {name}")
        if not self._context.execute_async_v3(self.stream.handle):
            raise BackendError("TensorRT could not queue the inference")

    def replay(self, addresses: TensorAddresses) -> None:
        """Queues one inference as a CUDA graph, which is recorded at the second call.

        If the recording fails, this and every later inference is launched without a graph.

        Args:
            addresses: The same at every call.

        Raises:
            BackendError: If the inference cannot be queued.
        """
        if self._graph is None and self._warm and self.graph_problem is None:
            self._record(addresses)
        if self._graph is not None:
            self._graph.launch(self.stream)
        else:
            # The first inference cannot be recorded, as TensorRT prepares the context in it.
            self.run(addresses, {})
            self._warm = True

    def _record(self, addresses: TensorAddresses) -> None:
        """Records the launches of one inference; sets `graph_problem` and warns if that fails."""
        try:
            with self._cuda.capture(self.stream) as captured:
                self.run(addresses, {})
        except BackendError as error:
            self.graph_problem = f"{error}{self._engine.error_suffix()}"
            # Clears the error, which another library might read.
            self._cuda.api.cudaGetLastError()
            warnings.warn(
                f"the inference could not be recorded as a CUDA graph ({self.graph_problem}): its "
                "kernels are launched one by one, which is slower for small frames",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            (self._graph,) = captured

    def report_to(self, profiler: Any) -> None:
        """Attaches an IProfiler, which gets the time of each layer of each later inference."""
        self._context.profiler = profiler

    def close(self) -> None:
        """Frees context, graph and stream; the work of the stream must be done."""
        if self._graph is not None:
            self._graph.close()
        self._graph = None
        self._context = None
        self.stream.close()
