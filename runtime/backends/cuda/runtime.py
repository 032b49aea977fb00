"""The CUDA runtime on one device, through cuda-python: memory, streams, events and graphs.

Nothing here waits unless it says so. What orders the work is said with events: every buffer knows
the last use of it on each stream (`Buffer.uses`), and whoever takes it next waits for those.
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

from runtime.errors import BackendError

StreamHandle = NewType("StreamHandle", int)
"""A cudaStream_t as a number; 0 is the legacy default stream."""

OUT_OF_MEMORY = "cudaErrorMemoryAllocation"


class CudaError(BackendError):
    """A call of CUDA failed; `name` is CUDA's own, for example cudaErrorMemoryAllocation."""

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
            "cuda-python is not installed: pip install 'ifrnet-deploy[tensorrt]'"
        ) from error


class Event:
    """A point in a stream's work. Freed with its last reference."""

    def __init__(self, cuda: Cuda, *, timed: bool = False) -> None:
        flags = cuda.api.cudaEventDefault if timed else cuda.api.cudaEventDisableTiming
        self._cuda = cuda
        self.handle = cuda.call("cudaEventCreateWithFlags", flags)

    def wait(self) -> None:
        """Waits, on the host, until the point is reached."""
        self._cuda.call("cudaEventSynchronize", self.handle)

    def milliseconds_since(self, earlier: Event) -> float:
        """Time between two points that were reached; both events must be timed."""
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
        """Later work of this stream starts after `event`."""
        self._cuda.call("cudaStreamWaitEvent", self.handle, event.handle, 0)

    def record(self, *, timed: bool = False) -> Event:
        """An event after all work queued so far."""
        return self._cuda.record(self.handle, timed=timed)

    def synchronize(self) -> None:
        """Waits until all queued work is done."""
        self._cuda.call("cudaStreamSynchronize", self.handle)

    def close(self) -> None:
        """Frees the stream once its work is done."""
        self._cuda.free("cudaStreamDestroy", self.handle)


class Buffer:
    """Memory of a `Pool`.

    Attributes:
        pointer: Its address.
        size: In bytes.
        uses: The last use on each stream that may still be under way.
    """

    __slots__ = ("pointer", "size", "uses")

    def __init__(self, pointer: int, size: int) -> None:
        self.pointer = pointer
        self.size = size
        self.uses: dict[StreamHandle, Event] = {}


class Pool:
    """Memory by size, kept for the next that asks: steady work allocates nothing.

    Buffers go out in the order in which they came back: the longest idle is the likeliest to be
    free of work. Not locked: its owner is.

    Args:
        cuda: The device.
        pinned: Host memory that copies can run from and to while the host works.
    """

    def __init__(self, cuda: Cuda, *, pinned: bool) -> None:
        self._cuda = cuda
        self._allocate, self._free = (
            ("cudaMallocHost", "cudaFreeHost") if pinned else ("cudaMalloc", "cudaFree")
        )
        self._idle: defaultdict[int, deque[Buffer]] = defaultdict(deque)
        self._closed = False

    def take(self, size: int) -> Buffer:
        """A buffer of `size` bytes; its `uses` may still be under way.

        Raises:
            CudaError: If there is no more memory.
        """
        if self._idle[size]:
            return self._idle[size].popleft()
        return Buffer(int(self._cuda.call(self._allocate, size)), size)

    def give_back(self, buffer: Buffer) -> None:
        """Ends the use of a buffer; what is queued for it may still run."""
        if self._closed:
            self._free_buffer(buffer)
        else:
            self._idle[buffer.size].append(buffer)

    def close(self) -> None:
        """Frees what is idle; what is still out is freed when it comes back."""
        self._closed = True
        self.free_idle()

    def free_idle(self) -> bool:
        """Gives up what is kept for the next that asks; whether there was anything."""
        any_idle = any(self._idle.values())
        for buffers in self._idle.values():
            while buffers:
                self._free_buffer(buffers.pop())
        return any_idle

    def _free_buffer(self, buffer: Buffer) -> None:
        # A device that is lost has freed it already.
        with contextlib.suppress(CudaError), self._cuda.current():
            for event in buffer.uses.values():
                event.wait()
            self._cuda.free(self._free, buffer.pointer)
        buffer.uses.clear()


class Graph:
    """Work that was recorded once and is queued with one call; its addresses are fixed."""

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
        device: Its index as CUDA counts.

    Raises:
        BackendError: If cuda-python is not installed.
        CudaError: If the device cannot be used.
    """

    def __init__(self, device: int) -> None:
        self.api = import_cuda()
        self.device = device
        with self.current():
            self.call("cudaMemGetInfo")  # The first call makes the context, or says why not.

    def call(self, name: str, *arguments: Any) -> Any:
        """Calls `name`; returns its result, or a tuple of several.

        Raises:
            CudaError: If it fails.
        """
        error, *results = getattr(self.api, name)(*arguments)
        if error != self.api.cudaError_t.cudaSuccess:
            raise self._error(name, error, arguments)
        return results[0] if len(results) == 1 else tuple(results)

    def free(self, name: str, handle: Any) -> None:
        """Calls what frees `handle`; a device that is lost has freed it already."""
        getattr(self.api, name)(handle)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes this the calling thread's device and puts back what was there."""
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
        """An event after all work queued so far on a stream of anybody."""
        event = Event(self, timed=timed)
        self.call("cudaEventRecord", event.handle, stream)
        return event

    def copy(self, stream: Stream, target: int, source: int, size: int, kind: str) -> None:
        """Queues a copy; `kind` as in cudaMemcpyKind, for example "HostToDevice"."""
        kinds = self.api.cudaMemcpyKind
        direction = getattr(kinds, f"cudaMemcpy{kind}")
        self.call("cudaMemcpyAsync", target, source, size, direction, stream.handle)

    @contextlib.contextmanager
    def capture(self, stream: Stream) -> Iterator[list[Graph]]:
        """Records what is queued on `stream` inside; the list holds the graph afterwards."""
        captured: list[Graph] = []
        # Only this thread's calls matter: others may allocate while we record.
        mode = self.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", stream.handle, mode)
        try:
            yield captured
        except BaseException:
            # A failed capture must be ended too; what it recorded is of no use.
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
        self.api.cudaGetLastError()  # Or the next to ask, another library perhaps, is told too.
        _, free, total = self.api.cudaMemGetInfo()
        wanted = f"{arguments[0] / 2**20:.0f} MiB were wanted, " if name == "cudaMalloc" else ""
        where = "host" if name == "cudaMallocHost" else f"GPU {self.device}"
        return CudaError(
            label,
            f"the {where} is out of memory ({wanted}{(free or 0) / 2**20:.0f} of "
            f"{(total or 0) / 2**20:.0f} MiB of the GPU are free): close other programs, use "
            "fewer streams, or build an engine for smaller frames",
        )


def host_view(buffer: Buffer, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A pinned buffer as an array; valid while the buffer is."""
    memory = (ctypes.c_uint8 * buffer.size).from_address(buffer.pointer)
    return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
