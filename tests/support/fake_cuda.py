"""A simulator of `cuda.bindings.runtime` on host memory, made to find missing synchronisation.

Streams are queues, and nothing runs before it must: a scheduler with a seed decides what runs when,
within what CUDA allows. Two operations that touch the same bytes without an order between them, a
pinned buffer that changes under a pending copy, use after free: each is a violation, recorded in
`FakeCuda.violations` and raised as AssertionError.
"""

# ruff: noqa: N801, N802, N803, N815, N816 (the names are CUDA's)

from __future__ import annotations

import ctypes
import functools
import gc
import importlib.machinery
import random
import sys
import threading
import types
import zlib
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from typing import Any

import numpy as np

Range = tuple[int, int]
"""Address and number of bytes."""

MODES = ("late", "others", "random", "eager")
"""What the scheduler runs first. late: only what is waited for; others: everything else that may
run; random: anything; eager: anything, and some of it at once, while it is being enqueued."""

PER_THREAD = 2
"""Handle of the default stream of each thread; 0 and 1 are the legacy default stream."""

_ERRORS = """
0 cudaSuccess no error
1 cudaErrorInvalidValue invalid argument
2 cudaErrorMemoryAllocation out of memory
3 cudaErrorInitializationError initialization error
35 cudaErrorInsufficientDriver CUDA driver version is insufficient for CUDA runtime version
100 cudaErrorNoDevice no CUDA-capable device is detected
101 cudaErrorInvalidDevice invalid device ordinal
400 cudaErrorInvalidResourceHandle invalid resource handle
401 cudaErrorIllegalState the operation cannot be performed in the present state
600 cudaErrorNotReady device not ready
700 cudaErrorIllegalAddress an illegal memory access was encountered
719 cudaErrorLaunchFailure unspecified launch failure
900 cudaErrorStreamCaptureUnsupported operation not permitted when stream is capturing
901 cudaErrorStreamCaptureInvalidated operation failed due to a previous error during capture
905 cudaErrorStreamCaptureIsolation dependency created on uncaptured work in another stream
906 cudaErrorStreamCaptureImplicit operation would make the legacy stream depend on a capturing \
blocking stream
907 cudaErrorCapturedEvent operation not permitted on an event last recorded in a capturing stream
908 cudaErrorStreamCaptureWrongThread attempt to terminate a thread-local capture sequence from \
another thread
999 cudaErrorUnknown unknown error
"""
_LINES = [line.split(" ", 2) for line in _ERRORS.strip().splitlines()]
_TEXTS = {name: text.encode() for _, name, text in _LINES}
cudaError_t = IntEnum("cudaError_t", {name: int(value) for value, name, _ in _LINES})
_COPIES = ("HostToHost", "HostToDevice", "DeviceToHost", "DeviceToDevice", "Default")


def _enum(name: str, *members: str) -> Any:
    return IntEnum(name, [name.removesuffix("Kind") + member for member in members], start=0)


cudaMemcpyKind = _enum("cudaMemcpyKind", *_COPIES)
cudaStreamCaptureMode = _enum("cudaStreamCaptureMode", "Global", "ThreadLocal", "Relaxed")
cudaStreamCaptureStatus = _enum("cudaStreamCaptureStatus", "None", "Active", "Invalidated")
cudaMemoryType = _enum("cudaMemoryType", "Unregistered", "Host", "Device", "Managed")


class _Handle:
    """A handle: int() gives its number. Equality is identity, as in cuda-bindings 12.8."""

    def __init__(self, init_value: int = 0) -> None:
        self._value = init_value

    def __int__(self) -> int:
        return self._value

    __index__ = __int__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._value:#x}>"


class cudaStream_t(_Handle):
    pass


class cudaEvent_t(_Handle):
    pass


class cudaGraph_t(_Handle):
    pass


class cudaGraphExec_t(_Handle):
    pass


class cudaPointerAttributes:
    def __init__(self, memory: _Memory | None, address: int) -> None:
        kinds = {"host": cudaMemoryType(1), "device": cudaMemoryType(2)}
        self.type = kinds[memory.kind] if memory else cudaMemoryType(0)
        self.device = memory.device if memory else -1
        self.devicePointer = address if memory else 0
        self.hostPointer = address if not memory or memory.kind == "host" else 0


class _Failed(Exception):  # noqa: N818
    """A CUDA error, which `_api` turns into an error code."""


class _Memory:
    """An allocation. After it is freed its bytes stay mapped and contain garbage."""

    def __init__(self, size: int, kind: str, device: int, owner: str) -> None:
        self.size, self.kind, self.device, self.owner, self.live = size, kind, device, owner, True
        raw = np.empty(size + 256, np.uint8)
        skip = -raw.ctypes.data % 256
        self.bytes = raw[skip : skip + size]
        self.address = raw.ctypes.data + skip
        self.bytes.fill(0xCD)


class _Node:
    """The work of an operation in a queue or in a graph."""

    def __init__(
        self, name: str, run: Callable[[], None], reads: Iterable[Range], writes: Iterable[Range]
    ) -> None:
        self.name, self.run, self.reads, self.writes = name, run, tuple(reads), tuple(writes)


class _Op:
    """An entry of a queue: a node, or a marker (a record, a wait) without a node."""

    def __init__(self, node: _Node | None, stream: _Stream, deps: list[_Op]) -> None:
        self.node, self.stream, self.deps = node, stream, deps
        self.clock: dict[int, int] = {}  # Vector clock: entries of each stream up to this one.
        self.seq = 0
        self.done = False
        self.at_ms = 0.0
        self.pinned: list[tuple[Range, int]] = []  # Pinned bytes that it will read, with checksums.


class _Stream:
    def __init__(self, handle: int, flags: int, device: int) -> None:
        self.handle, self.device, self.blocking = handle, device, not flags & 1
        self.queue: deque[_Op] = deque()
        self.tail: _Op | None = None
        self.clock: dict[int, int] = {}
        self.capture: _Capture | None = None


class _Capture:
    def __init__(self, mode: cudaStreamCaptureMode) -> None:
        self.mode, self.thread = mode, threading.get_ident()
        self.nodes: list[_Node] = []
        self.invalid = False


class _Event:
    def __init__(self, flags: int, device: int) -> None:
        self.timing, self.device = not flags & 2, device
        self.record: _Op | _Capture | None = None


class _Exec:
    """An instantiated graph; its launches run one after the other."""

    def __init__(self, nodes: list[_Node]) -> None:
        self.nodes = nodes
        self.last: _Op | None = None


def _api(*, outputs: int = 0, in_capture: bool = True) -> Callable[..., Any]:
    """Makes a function of the CUDA runtime: it returns (error, *outputs).

    On an error the outputs are None.

    Args:
        outputs: Number of outputs.
        in_capture: Whether the function may be called while a stream is capturing.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__

        @functools.wraps(function)
        def call(self: FakeCuda, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
            with self._lock:
                self.calls[name] += 1
                try:
                    self._raise_faults(name, in_capture)
                    values = function(self, *args, **kwargs) or ()
                    self._progress()
                except _Failed as failed:
                    self._last_error = cudaError_t[failed.args[0]]
                    return (self._last_error, *(None,) * outputs)
                return (cudaError_t.cudaSuccess, *values)

        call.outputs = outputs
        return call

    return decorate


class FakeCuda:
    """Stands in for the module `cuda.bindings.runtime`; names without `cuda` are for tests.

    Args:
        seed: Seed of the scheduler. It also chooses the mode: MODES[seed % 4].
        mode: One of MODES, in place of the seed's.
        devices: Number of devices.
        memory: Bytes of device memory.
    """

    cudaError_t = cudaError_t
    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaStreamCaptureStatus = cudaStreamCaptureStatus
    cudaMemoryType = cudaMemoryType
    cudaPointerAttributes = cudaPointerAttributes
    cudaStream_t = cudaStream_t
    cudaEvent_t = cudaEvent_t
    cudaGraph_t = cudaGraph_t
    cudaGraphExec_t = cudaGraphExec_t
    cudaStreamDefault, cudaStreamNonBlocking = 0, 1
    cudaEventDefault, cudaEventBlockingSync, cudaEventDisableTiming = 0, 1, 2
    cudaHostAllocDefault, cudaHostAllocPortable = 0, 1

    def __init__(
        self, seed: int = 0, *, mode: str | None = None, devices: int = 1, memory: int = 8 << 30
    ) -> None:
        self.mode = mode or MODES[seed % len(MODES)]
        self.calls: Counter[str] = Counter()
        self.log: list[str] = []
        self.violations: list[str] = []
        self._random = random.Random(seed)
        self.device_count, self.total_memory = devices, memory
        self._thread = threading.local()
        self._lock = threading.RLock()
        self._handles = iter(range(0x1000, sys.maxsize, 0x10))
        self._memory: list[_Memory] = []  # Sorted by address; freed ones stay.
        self._streams: dict[int, _Stream] = {}
        self._defaults: dict[tuple[int, int], _Stream] = {}  # (device, thread); thread 0: legacy.
        self._queues: list[_Stream] = []  # Also destroyed streams, which still finish.
        self._events: dict[int, _Event] = {}
        self._graphs: dict[int, list[_Node]] = {}
        self._execs: dict[int, _Exec] = {}
        self._accesses: list[_Op] = []  # Those not known to the host as complete.
        self._host_clock: dict[int, int] = {}
        self._faults: dict[str, tuple[int, str, bool]] = {}
        self._last_error = cudaError_t.cudaSuccess
        self._lost = False
        self._now_ms = 0.0

    # For tests ------------------------------------------------------------------------------

    def fail_next(
        self, function: str, error_name: str, *, after: int = 0, sticky: bool = False
    ) -> None:
        """Makes a later call of `function` fail, after `after` calls that succeed.

        A sticky error loses the device.
        """
        self._faults[function] = (after, error_name, sticky)

    def lose_device(self) -> None:
        """Makes every later call fail with cudaErrorLaunchFailure; all resources count as freed."""
        self._lost = True
        for stream in self._queues:
            for op in stream.queue:
                op.done = True
            stream.queue.clear()
        for memory in self._memory:
            memory.live = False
        for held in (self._events, self._graphs, self._execs, self._accesses):
            held.clear()
        self._streams.clear()

    def left(self) -> list[str]:
        """Descriptions of the resources that are not freed."""
        gc.collect()
        names = [f"{m.owner} {m.size} bytes" for m in self._memory if m.live]
        for kind, held in (
            ("stream", self._streams),
            ("event", self._events),
            ("graph", self._graphs),
            ("graph exec", self._execs),
        ):
            names += [f"{kind} {handle:#x}" for handle in held]
        return names

    def assert_nothing_left(self) -> None:
        """Fails if there was a violation, or if a resource is not freed."""
        assert not self.violations, self.violations
        left = self.left()
        assert not left, f"not freed: {left}"

    @property
    def current_device(self) -> int:
        """The current device of the calling thread."""
        return getattr(self._thread, "device", 0)

    def violation(self, message: str) -> None:
        """Records a misuse and raises it."""
        self.violations.append(message)
        raise AssertionError(message)

    # For the fake TensorRT ------------------------------------------------------------------

    def enqueue(
        self,
        stream: int,
        run: Callable[[], None],
        *,
        reads: Iterable[Range] = (),
        writes: Iterable[Range] = (),
        name: str = "kernel",
    ) -> bool:
        """A kernel launch; False where CUDA would return an error."""
        with self._lock:
            try:
                self._raise_faults("enqueue", True)
                found = self._stream(stream)
                if found.device != self.current_device:
                    self.violation(
                        f"{name}: the stream is of device {found.device}, "
                        f"the current device is {self.current_device}"
                    )
                self._push(found, _Node(name, run, reads, writes))
                self._progress()
            except _Failed as failed:
                self._last_error = cudaError_t[failed.args[0]]
                return False
            return True

    def is_capturing(self, stream: int) -> bool:
        """Whether the stream is between Begin and EndCapture."""
        return not self._lost and self._stream(stream).capture is not None

    def invalidate_capture(self, stream: int) -> None:
        """Invalidates a capture, as a forbidden call does."""
        capture = self._stream(stream).capture
        assert capture is not None
        capture.invalid = True

    def allocate(self, size: int, owner: str) -> int | None:
        """Allocates device memory for a library; None if there is too little."""
        with self._lock:
            try:
                self._raise_faults("allocate", True)
                return self._new_memory(size, "device", owner)
            except _Failed:
                return None

    def free(self, address: int) -> None:
        """Frees memory of `allocate` after all work on the device has finished."""
        with self._lock:
            if not self._lost:
                self._free(address, "device")

    # Devices and errors ---------------------------------------------------------------------

    @_api(outputs=1)
    def cudaGetDeviceCount(self) -> tuple[int]:
        if not self.device_count:
            raise _Failed("cudaErrorNoDevice")
        return (self.device_count,)

    @_api()
    def cudaSetDevice(self, device: int) -> None:
        if not 0 <= device < self.device_count:
            raise _Failed("cudaErrorInvalidDevice")
        self._thread.device = device

    @_api(outputs=1)
    def cudaGetDevice(self) -> tuple[int]:
        return (self.current_device,)

    @_api(outputs=2)
    def cudaMemGetInfo(self) -> tuple[int, int]:
        return self.total_memory - self._used(), self.total_memory

    @_api(in_capture=False)
    def cudaDeviceSynchronize(self) -> None:
        self._run_all()

    def cudaGetErrorName(self, error: cudaError_t) -> tuple[Any, bytes]:
        return cudaError_t.cudaSuccess, cudaError_t(error).name.encode()

    def cudaGetErrorString(self, error: cudaError_t) -> tuple[Any, bytes]:
        return cudaError_t.cudaSuccess, _TEXTS[cudaError_t(error).name]

    def cudaGetLastError(self) -> tuple[Any]:
        last = self._last_error
        if not self._lost:  # A lost device stays lost.
            self._last_error = cudaError_t.cudaSuccess
        return (last,)

    # Memory ---------------------------------------------------------------------------------

    @_api(outputs=1, in_capture=False)
    def cudaMalloc(self, size: int) -> tuple[int]:
        return (self._new_memory(size, "device", "cudaMalloc"),)

    @_api(in_capture=False)
    def cudaFree(self, devPtr: Any) -> None:
        self._free(_integer(devPtr), "device")

    @_api(outputs=1, in_capture=False)
    def cudaMallocHost(self, size: int) -> tuple[int]:
        return (self._new_memory(size, "host", "cudaMallocHost"),)

    @_api(outputs=1, in_capture=False)
    def cudaHostAlloc(self, size: int, flags: int) -> tuple[int]:
        del flags
        return (self._new_memory(size, "host", "cudaHostAlloc"),)

    @_api(in_capture=False)
    def cudaFreeHost(self, ptr: Any) -> None:
        self._free(_integer(ptr), "host")

    @_api(outputs=1)
    def cudaPointerGetAttributes(self, ptr: Any) -> tuple[cudaPointerAttributes]:
        address = _integer(ptr)
        memory = self._memory_at(address)
        return (cudaPointerAttributes(memory if memory and memory.live else None, address),)

    @_api()
    def cudaMemcpyAsync(
        self, dst: Any, src: Any, count: int, kind: cudaMemcpyKind, stream: Any
    ) -> None:
        kind = cudaMemcpyKind(kind.value)  # Raises for an int, as cuda-bindings 12.8 does.
        target, source = (_integer(dst), count), (_integer(src), count)
        if not count:
            return
        name = f"copy {kind.name.removeprefix('cudaMemcpy')}"
        kinds = [self._check_range(r, name).kind for r in (source, target)]
        found = "To".join(k.title() for k in kinds)
        if kind != cudaMemcpyKind.cudaMemcpyDefault and kind.name != f"cudaMemcpy{found}":
            self.violation(f"{name}: the addresses are {found}")
        if _overlap(source, target):
            self.violation(f"{name}: source and target overlap")
        run = functools.partial(ctypes.memmove, target[0], source[0], count)
        self._push(self._stream(stream), _Node(name, run, [source], [target]))

    @_api()
    def cudaMemsetAsync(self, devPtr: Any, value: int, count: int, stream: Any) -> None:
        target = (_integer(devPtr), count)
        if count:
            run = functools.partial(ctypes.memset, target[0], value, count)
            self._push(self._stream(stream), _Node("memset", run, [], [target]))

    # Streams and events ---------------------------------------------------------------------

    @_api(outputs=1)
    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[cudaStream_t]:
        handle = next(self._handles)
        self._streams[handle] = _Stream(handle, flags, self.current_device)
        self._queues.append(self._streams[handle])
        return (cudaStream_t(handle),)

    @_api()
    def cudaStreamDestroy(self, stream: Any) -> None:
        if self._stream(stream).capture:
            self.violation("a stream that is capturing was destroyed")
        if _integer(stream) not in self._streams:
            raise _Failed("cudaErrorInvalidResourceHandle")
        del self._streams[_integer(stream)]

    @_api(in_capture=False)
    def cudaStreamSynchronize(self, stream: Any) -> None:
        self._wait_on_host(self._stream(stream).tail)

    @_api(in_capture=False)
    def cudaStreamQuery(self, stream: Any) -> None:
        self._poll(self._stream(stream).tail)

    @_api()
    def cudaStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> None:
        if flags:
            self.violation(f"cudaStreamWaitEvent has the flags {flags}: not simulated")
        waiting, record = self._stream(stream), self._event(event).record
        if isinstance(record, _Capture):
            if waiting.capture is not record:
                self.violation("an event of a capture joins another stream: not simulated")
        elif waiting.capture and record:
            waiting.capture.invalid = True
            raise _Failed("cudaErrorStreamCaptureIsolation")
        elif record:
            self._push(waiting, None, after=(record,))

    @_api(outputs=1)
    def cudaEventCreateWithFlags(self, flags: int) -> tuple[cudaEvent_t]:
        handle = next(self._handles)
        self._events[handle] = _Event(flags, self.current_device)
        return (cudaEvent_t(handle),)

    @_api()
    def cudaEventDestroy(self, event: Any) -> None:
        self._event(event)
        del self._events[_integer(event)]

    @_api()
    def cudaEventRecord(self, event: Any, stream: Any) -> None:
        recorded, on = self._event(event), self._stream(stream)
        if recorded.device != on.device:
            raise _Failed("cudaErrorInvalidResourceHandle")
        recorded.record = on.capture or self._push(on, None)

    @_api(in_capture=False)
    def cudaEventSynchronize(self, event: Any) -> None:
        self._wait_on_host(self._record_of(event))

    @_api(in_capture=False)
    def cudaEventQuery(self, event: Any) -> None:
        self._poll(self._record_of(event))

    @_api(outputs=1)
    def cudaEventElapsedTime(self, start: Any, end: Any) -> tuple[float]:
        """One millisecond for each operation that ran between the two events."""
        records = [self._record_of(event) for event in (start, end)]
        if None in records or not all(self._event(event).timing for event in (start, end)):
            raise _Failed("cudaErrorInvalidResourceHandle")
        first, last = records
        assert first
        assert last
        if not (first.done and last.done):
            raise _Failed("cudaErrorNotReady")
        return (last.at_ms - first.at_ms,)

    # Graphs ---------------------------------------------------------------------------------

    @_api()
    def cudaStreamBeginCapture(self, stream: Any, mode: cudaStreamCaptureMode) -> None:
        found = self._stream(stream)
        if found.handle == 0:
            raise _Failed("cudaErrorStreamCaptureUnsupported")
        if found.capture:
            raise _Failed("cudaErrorIllegalState")
        found.capture = _Capture(cudaStreamCaptureMode(mode.value))

    @_api(outputs=1)
    def cudaStreamEndCapture(self, stream: Any) -> tuple[cudaGraph_t]:
        found = self._stream(stream)
        capture = found.capture
        if not capture:
            raise _Failed("cudaErrorIllegalState")
        relaxed = capture.mode == cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed
        if capture.thread != threading.get_ident() and not relaxed:
            raise _Failed("cudaErrorStreamCaptureWrongThread")
        found.capture = None
        if capture.invalid:
            raise _Failed("cudaErrorStreamCaptureInvalidated")
        handle = next(self._handles)
        self._graphs[handle] = capture.nodes
        return (cudaGraph_t(handle),)

    @_api(outputs=1)
    def cudaStreamIsCapturing(self, stream: Any) -> tuple[cudaStreamCaptureStatus]:
        capture = self._stream(stream).capture
        return (cudaStreamCaptureStatus(0 if not capture else 2 if capture.invalid else 1),)

    @_api(outputs=1)
    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[cudaGraphExec_t]:
        del flags
        handle = next(self._handles)
        self._execs[handle] = _Exec(self._held(self._graphs, graph, "graph"))
        return (cudaGraphExec_t(handle),)

    @_api()
    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> None:
        launched: _Exec = self._held(self._execs, graphExec, "graph exec")
        found = self._stream(stream)
        if found.capture:
            self.violation("a graph is launched in a capture: not simulated")
        after = (launched.last,) if launched.last else ()
        for node in launched.nodes:
            launched.last = self._push(found, node, after=after)

    @_api()
    def cudaGraphExecDestroy(self, graphExec: Any) -> None:
        self._held(self._execs, graphExec, "graph exec")
        del self._execs[_integer(graphExec)]

    @_api()
    def cudaGraphDestroy(self, graph: Any) -> None:
        self._held(self._graphs, graph, "graph")
        del self._graphs[_integer(graph)]

    # Handles, faults ------------------------------------------------------------------------

    def _raise_faults(self, name: str, in_capture: bool) -> None:
        if self._lost:
            raise _Failed("cudaErrorLaunchFailure")
        after, error, sticky = self._faults.get(name, (0, "", False))
        if after:
            self._faults[name] = (after - 1, error, sticky)
        elif error:
            del self._faults[name]
            if sticky:
                self.lose_device()
            raise _Failed(error)
        forbidden = [
            c for c in self._captures() if c.mode == 0 or c.thread == threading.get_ident()
        ]
        if not in_capture and forbidden:
            for capture in forbidden:
                capture.invalid = True
            raise _Failed("cudaErrorStreamCaptureUnsupported")

    def _captures(self) -> Iterator[_Capture]:
        """Active captures whose mode forbids calls."""
        for stream in self._streams.values():
            if stream.capture and stream.capture.mode != 2:
                yield stream.capture

    def _held(self, held: dict[int, Any], handle: Any, kind: str) -> Any:
        if _integer(handle) not in held:
            self.violation(f"{kind} {_integer(handle):#x} is unknown, or was destroyed")
        return held[_integer(handle)]

    def _stream(self, handle: Any) -> _Stream:
        number = _integer(handle)
        if number > PER_THREAD:
            found: _Stream = self._held(self._streams, handle, "stream")
            return found
        thread = threading.get_ident() if number == PER_THREAD else 0
        return self._default_stream(self.current_device, thread)

    def _default_stream(self, device: int, thread: int = 0) -> _Stream:
        if (device, thread) not in self._defaults:
            made = _Stream(PER_THREAD if thread else 0, 0, device)
            self._defaults[device, thread] = made
            self._queues.append(made)
        return self._defaults[device, thread]

    def _event(self, handle: Any) -> _Event:
        found: _Event = self._held(self._events, handle, "event")
        return found

    def _record_of(self, handle: Any) -> _Op | None:
        record = self._event(handle).record
        if isinstance(record, _Capture):
            raise _Failed("cudaErrorCapturedEvent")
        return record

    # Memory ---------------------------------------------------------------------------------

    def _used(self) -> int:
        return sum(m.size for m in self._memory if m.live and m.kind == "device")

    def _new_memory(self, size: int, kind: str, owner: str) -> int:
        if size < 0:
            raise OverflowError("can't convert negative value to size_t")
        if not size:
            return 0
        if kind == "device" and self._used() + size > self.total_memory:
            raise _Failed("cudaErrorMemoryAllocation")
        memory = _Memory(size, kind, self.current_device, owner)
        self._memory.append(memory)
        self._memory.sort(key=lambda m: m.address)
        return memory.address

    def _memory_at(self, address: int) -> _Memory | None:
        at = bisect_right(self._memory, address, key=lambda m: m.address) - 1
        found = self._memory[at] if at >= 0 else None
        return found if found and address < found.address + found.size else None

    def _free(self, address: int, kind: str) -> None:
        if not address:
            return
        memory = self._memory_at(address)
        if not memory or memory.address != address or memory.kind != kind:
            self.violation(f"free of {address:#x}, which is no {kind} allocation")
            return
        if not memory.live:
            self.violation(f"double free of {address:#x}")
        if kind == "device":
            self._run_all()  # cudaFree waits for the device.
        for op in self._accesses:
            assert op.node
            if any(_overlap((address, memory.size), r) for r in op.node.reads + op.node.writes):
                self.violation(f"pinned memory was freed while {op.node.name} may still use it")
        memory.live = False
        memory.bytes.fill(0xDD)

    def _check_range(self, part: Range, name: str) -> _Memory:
        """The allocation that contains `part`; a violation if none does."""
        address, size = part
        memory = self._memory_at(address)
        if not memory:
            self.violation(
                f"{name}: {address:#x} is not from cudaMalloc or cudaMallocHost "
                "(memory that is not pinned, or a wild pointer)"
            )
        assert memory
        if not memory.live:
            self.violation(f"{name}: use of {address:#x} after it was freed")
        if size < 0 or address + size > memory.address + memory.size:
            self.violation(
                f"{name}: {size} bytes at offset {address - memory.address} "
                f"of an allocation of {memory.size}"
            )
        return memory

    # Order ----------------------------------------------------------------------------------

    def _push(
        self, stream: _Stream, node: _Node | None, *, after: Iterable[_Op] = ()
    ) -> _Op | None:
        """Enqueues a node, or a marker, after the stream's last entry and `after`.

        Returns None while the stream is capturing: the node becomes part of the graph.
        """
        if node:
            for part in node.reads + node.writes:
                self._check_range(part, node.name)
        if stream.capture:
            if stream.capture.invalid:
                raise _Failed("cudaErrorStreamCaptureInvalidated")
            if node:
                stream.capture.nodes.append(node)
            return None
        before = [op for op in (stream.tail, *after, *self._implicit(stream)) if op]
        op = _Op(node, stream, [b for b in before if not b.done])
        for clock in (self._host_clock, *(b.clock for b in before)):
            _merge(op.clock, clock)
        op.seq = op.clock[id(stream)] = op.clock.get(id(stream), 0) + 1
        if node:
            self._check_races(op, node)
            self._watch_pinned(op, node)
            self._accesses.append(op)
        stream.tail, stream.clock = op, op.clock
        stream.queue.append(op)
        return op

    def _implicit(self, stream: _Stream) -> list[_Op | None]:
        """Operations to wait for: legacy default and blocking streams wait for each other."""
        if not stream.blocking:
            return []
        blocking = [s for s in self._queues if s.blocking and s.device == stream.device]
        if stream.handle == 0:
            if any(s.capture for s in blocking):
                raise _Failed("cudaErrorStreamCaptureImplicit")
            return [s.tail for s in blocking]
        return [self._default_stream(stream.device).tail]

    def _check_races(self, op: _Op, node: _Node) -> None:
        for other in self._accesses:
            if op.clock.get(id(other.stream), 0) >= other.seq:
                continue
            theirs = other.node
            assert theirs
            pairs = [(w, r) for w in node.writes for r in theirs.reads + theirs.writes]
            pairs += [(r, w) for r in node.reads for w in theirs.writes]
            if any(_overlap(ours, their) for ours, their in pairs):
                self.violation(
                    f"race: {node.name} on stream {op.stream.handle:#x} and {theirs.name} on "
                    f"stream {other.stream.handle:#x} touch the same bytes without an order"
                )

    def _watch_pinned(self, op: _Op, node: _Node) -> None:
        """Stores checksums of pinned bytes to be read; fills those to be written with garbage."""
        pending = [o.node for o in self._accesses if not o.done and o.node]
        for part in node.reads:
            if self._check_range(part, node.name).kind == "host" and not any(
                _overlap(part, w) for p in pending for w in p.writes
            ):
                op.pinned.append((part, _checksum(part)))
        for part in node.writes:
            if self._check_range(part, node.name).kind == "host" and not any(
                _overlap(part, r) for p in [*pending, node] for r in p.reads
            ):
                ctypes.memset(part[0], 0xCD, part[1])

    # Running --------------------------------------------------------------------------------

    def _wait_on_host(self, op: _Op | None) -> None:
        if op:
            self._run(op)
            self._host_knows(op.clock)

    def _run_all(self) -> None:
        for stream in self._queues:
            self._wait_on_host(stream.tail)

    def _poll(self, op: _Op | None) -> None:
        """Reports "not ready" until `op` is done; each call runs one operation."""
        if op and not op.done:
            self._step(op)
            raise _Failed("cudaErrorNotReady")
        if op:
            self._host_knows(op.clock)

    def _host_knows(self, clock: dict[int, int]) -> None:
        _merge(self._host_clock, clock)
        self._accesses = [
            a for a in self._accesses if self._host_clock.get(id(a.stream), 0) < a.seq
        ]

    def _progress(self) -> None:
        if self.mode == "eager":
            for _ in range(self._random.randrange(4)):
                self._step(None)

    def _run(self, target: _Op) -> None:
        while not target.done:
            self._step(target)

    def _step(self, target: _Op | None) -> None:
        """Runs one operation that is ready. The mode decides which are preferred."""
        heads = [stream.queue[0] for stream in self._queues if stream.queue]
        ready = [op for op in heads if all(dep.done for dep in op.deps)]
        if target and self.mode in ("late", "others"):
            needed = _ancestors(target)
            preferred = [op for op in ready if (op in needed) == (self.mode == "late")]
            ready = preferred or ready
        if ready:
            self._execute(self._random.choice(ready))

    def _execute(self, op: _Op) -> None:
        op.stream.queue.popleft()
        op.deps, op.done = [], True
        if op.node:
            for part in op.node.reads + op.node.writes:
                self._check_range(part, op.node.name)
            if any(_checksum(part) != then for part, then in op.pinned):
                self.violation(f"{op.node.name}: its pinned source changed before it was read")
            op.node.run()
            self.log.append(op.node.name)
            self._now_ms += 1.0
        op.at_ms = self._now_ms


def install(monkeypatch: Any, cuda: FakeCuda) -> None:
    """Makes `import cuda.bindings.runtime` give `cuda`."""
    top, bindings = types.ModuleType("cuda"), types.ModuleType("cuda.bindings")
    bindings.__version__ = "12.9.10"
    for module in (top, bindings):
        module.__path__ = []  # Marks it as a package.
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None, is_package=True)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    top.bindings, bindings.runtime = bindings, cuda
    cuda.__spec__ = importlib.machinery.ModuleSpec("cuda.bindings.runtime", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)


def _integer(handle: Any) -> int:
    """The integer of a handle or an address; None is 0, as in the real bindings."""
    return 0 if handle is None else handle.__index__()


def _overlap(a: Range, b: Range) -> bool:
    return a[0] < b[0] + b[1] and b[0] < a[0] + a[1]


def _merge(into: dict[int, int], clock: dict[int, int]) -> None:
    for stream, seq in clock.items():
        into[stream] = max(seq, into.get(stream, 0))


def _checksum(part: Range) -> int:
    return zlib.crc32((ctypes.c_ubyte * part[1]).from_address(part[0]))


def _ancestors(op: _Op) -> set[_Op]:
    """An operation and all those that must run before it."""
    found, stack = {op}, [op]
    while stack:
        for dep in stack.pop().deps:
            if not dep.done and dep not in found:
                found.add(dep)
                stack.append(dep)
    return found
