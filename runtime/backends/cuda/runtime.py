"""The CUDA runtime on one device, through cuda-python: memory, streams, events and graphs.

No function waits for the GPU unless its docstring states it. Events order the work: a buffer has
the event of its last use on each stream (`Buffer.uses`), and the next user waits for these.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any, NewType

import numpy as np
from numpy.typing import NDArray

from runtime.errors import BackendError, install_command

StreamHandle = NewType("StreamHandle", int)
"""A cudaStream_t as a number; 0 is the legacy default stream."""

OUT_OF_MEMORY = "cudaErrorMemoryAllocation"


class CudaError(BackendError):
    """A call of CUDA failed; `name` is CUDA's, such as cudaErrorMemoryAllocation."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def import_cuda() -> Any:
    """The module `cuda.bindings.runtime`.

    Raises:
        BackendError: If cuda-python is not installed.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise BackendError(
            f"cuda-python is not installed: {install_command('tensorrt')}"
        ) from error


class Event:
    """A point in the work of a stream; destroyed with its last reference."""

    def __init__(self, cuda: Cuda, *, timed: bool = False) -> None:
        flags = cuda.api.cudaEventDefault if timed else cuda.api.cudaEventDisableTiming
        self._cuda = cuda
        self.handle = cuda.call("cudaEventCreateWithFlags", flags)

    def wait(self) -> None:
        """Blocks the host until the point is reached."""
        self._cuda.call("cudaEventSynchronize", self.handle)

    def milliseconds_since(self, earlier: Event) -> float:
        """Time in ms since an earlier point; both must be timed, and both must be reached."""
        return float(self._cuda.call("cudaEventElapsedTime", earlier.handle, self.handle))

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            self._cuda.free("cudaEventDestroy", self.handle)


class Stream:
    """A queue of work that does not synchronise with the legacy default stream."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._owned = cuda.call("cudaStreamCreateWithFlags", cuda.api.cudaStreamNonBlocking)
        self.handle = StreamHandle(int(self._owned))

    def wait_for(self, event: Event) -> None:
        """Makes later work of this stream wait for `event`."""
        self._cuda.call("cudaStreamWaitEvent", self.handle, event.handle, 0)

    def record(self, *, timed: bool = False) -> Event:
        """Records an event after all work queued so far."""
        return self._cuda.record(self.handle, timed=timed)

    def synchronize(self) -> None:
        """Blocks the host until all queued work is done."""
        self._cuda.call("cudaStreamSynchronize", self.handle)

    def close(self) -> None:
        """Destroys the stream; work that is queued still runs."""
        self._cuda.free("cudaStreamDestroy", self.handle)


class Buffer:
    """Memory of a `BufferPool`.

    Attributes:
        pointer: Address of the first byte.
        size: Size in bytes.
        uses: Stream -> event after its last use of the buffer, which may not be reached yet.
    """

    __slots__ = ("pointer", "size", "uses")

    def __init__(self, pointer: int, size: int) -> None:
        self.pointer = pointer
        self.size = size
        self.uses: dict[StreamHandle, Event] = {}


class BufferPool:
    """A pool of buffers of each size, so that repeated work allocates nothing.

    First in, first out: the queued work of the buffer that was returned first is most likely done.
    Not safe for threads.

    Args:
        cuda: The device.
        pinned: Whether to allocate page-locked host memory, which asynchronous copies need;
            otherwise device memory.
    """

    def __init__(self, cuda: Cuda, *, pinned: bool) -> None:
        self._cuda = cuda
        self._allocate, self._free = (
            ("cudaMallocHost", "cudaFreeHost") if pinned else ("cudaMalloc", "cudaFree")
        )
        self._idle: defaultdict[int, deque[Buffer]] = defaultdict(deque)
        self._closed = False

    def take(self, size: int) -> Buffer:
        """Takes a buffer of `size` bytes; wait for its `uses` before it is written to.

        Raises:
            CudaError: If the memory cannot be allocated.
        """
        if self._idle[size]:
            return self._idle[size].popleft()
        return Buffer(int(self._cuda.call(self._allocate, size)), size)

    def give_back(self, buffer: Buffer) -> None:
        """Returns a buffer to the pool; queued work may still use it."""
        if self._closed:
            self._free_buffer(buffer)
        else:
            self._idle[buffer.size].append(buffer)

    def close(self) -> None:
        """Frees the idle buffers; those in use are freed when they are returned."""
        self._closed = True
        self.free_idle()

    def free_idle(self) -> bool:
        """Frees the idle buffers after their queued work; returns False if there are none."""
        any_idle = any(self._idle.values())
        for buffers in self._idle.values():
            while buffers:
                self._free_buffer(buffers.pop())
        return any_idle

    def _free_buffer(self, buffer: Buffer) -> None:
        # A lost device has freed its memory.
        with contextlib.suppress(CudaError), self._cuda.current():
            for event in buffer.uses.values():
                event.wait()
            self._cuda.free(self._free, buffer.pointer)
        buffer.uses.clear()


class Graph:
    """A CUDA graph: recorded work that one call queues; its addresses are fixed."""

    def __init__(self, cuda: Cuda, executable: Any) -> None:
        self._cuda = cuda
        self._executable = executable

    def launch(self, stream: Stream) -> None:
        """Queues the work."""
        self._cuda.call("cudaGraphLaunch", self._executable, stream.handle)

    def close(self) -> None:
        """Frees the graph."""
        self._cuda.free("cudaGraphExecDestroy", self._executable)


class Cuda:
    """One device.

    Args:
        device: CUDA's index of the device.

    Raises:
        BackendError: If cuda-python is not installed.
        CudaError: If the device cannot be used.
    """

    def __init__(self, device: int) -> None:
        self.api = import_cuda()
        self.device = device
        with self.current():
            self.call("cudaMemGetInfo")  # Creates the context, so that errors are raised here.

    def call(self, name: str, *arguments: Any) -> Any:
        """Calls a function of the CUDA runtime.

        Returns:
            Its result without the error code: one value, or a tuple of none or several.

        Raises:
            CudaError: If it fails.
        """
        error, *results = getattr(self.api, name)(*arguments)
        if error != self.api.cudaError_t.cudaSuccess:
            raise self._error(name, error, arguments)
        return results[0] if len(results) == 1 else tuple(results)

    def free(self, name: str, handle: Any) -> None:
        """Calls a function that frees `handle`; errors are ignored: a lost device raises them."""
        getattr(self.api, name)(handle)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes this the current device of the calling thread, and restores the previous one."""
        before = self.call("cudaGetDevice")
        if before == self.device:
            yield
            return
        self.call("cudaSetDevice", self.device)
        try:
            yield
        finally:
            self.free("cudaSetDevice", before)

    def record(self, stream: StreamHandle, *, timed: bool = False) -> Event:
        """Records an event after all work queued so far on a stream, which may be the caller's."""
        event = Event(self, timed=timed)
        self.call("cudaEventRecord", event.handle, stream)
        return event

    def copy(self, stream: Stream, target: int, source: int, size: int, kind: str) -> None:
        """Queues a copy of `size` bytes; `kind` is one of cudaMemcpyKind, as "HostToDevice"."""
        kinds = self.api.cudaMemcpyKind
        direction = getattr(kinds, f"cudaMemcpy{kind}")
        self.call("cudaMemcpyAsync", target, source, size, direction, stream.handle)

    @contextlib.contextmanager
    def capture(self, stream: Stream) -> Iterator[list[Graph]]:
        """Records the work that the block queues on `stream`, instead of running it.

        Yields:
            A list that holds the graph after the block.

        Raises:
            CudaError: If the work cannot be recorded.
        """
        captured: list[Graph] = []
        # Thread-local, since other threads may allocate meanwhile.
        mode = self.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", stream.handle, mode)
        try:
            yield captured
        except BaseException:
            # A failed capture must be ended too; its graph is discarded.
            error, graph = self.api.cudaStreamEndCapture(stream.handle)
            if error == self.api.cudaError_t.cudaSuccess:
                self.free("cudaGraphDestroy", graph)
            raise
        graph = self.call("cudaStreamEndCapture", stream.handle)
        try:
            captured.append(Graph(self, self.call("cudaGraphInstantiate", graph, 0)))
        finally:
            self.free("cudaGraphDestroy", graph)

    def _error(self, name: str, error: Any, arguments: tuple[Any, ...]) -> CudaError:
        label = getattr(error, "name", str(error))
        if label != OUT_OF_MEMORY:
            return CudaError(label, f"{name} failed with {label} on GPU {self.device}")
        self.api.cudaGetLastError()  # Clears the error, which another library might read.
        _, free, total = self.api.cudaMemGetInfo()
        asked = f"{arguments[0] / 2**20:.0f} MiB were asked for, " if name == "cudaMalloc" else ""
        where = "the host" if name == "cudaMallocHost" else f"GPU {self.device}"
        return CudaError(
            label,
            f"{where} is out of memory ({asked}{(free or 0) / 2**20:.0f} of "
            f"{(total or 0) / 2**20:.0f} MiB of the GPU are free): close other programs, use "
            "fewer streams, or build an engine for smaller frames",
        )


def host_view(buffer: Buffer, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A pinned buffer as an array of a shape and type; valid for as long as the buffer."""
    memory = (ctypes.c_uint8 * buffer.size).from_address(buffer.pointer)
    return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
