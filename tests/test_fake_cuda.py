"""The simulator of CUDA finds races and misuse of memory, and lets correct code pass."""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fake_cuda import MODES, FakeCuda, install

KIND = FakeCuda.cudaMemcpyKind
H2D, D2H = KIND.cudaMemcpyHostToDevice, KIND.cudaMemcpyDeviceToHost
SIZE = 1024
SEEDS = range(50)


def ok(result: tuple[Any, ...]) -> Any:
    assert result[0].name == "cudaSuccess", result
    return result[1] if len(result) == 2 else result[1:]


def host(address: int, size: int = SIZE) -> NDArray[np.uint8]:
    """An array over pinned memory."""
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)


class Pipeline:
    """Upload, increment and download on three streams, ordered by events.

    `skip` leaves out the waits for one event, or the wait of the host ("host").
    """

    def __init__(self, cuda: FakeCuda, *, skip: str = "") -> None:
        self.cuda, self.skip = cuda, skip
        self.streams = [ok(cuda.cudaStreamCreateWithFlags(1)) for _ in range(3)]
        self.events = {
            name: ok(cuda.cudaEventCreateWithFlags(cuda.cudaEventDisableTiming))
            for name in ("uploaded", "computed", "downloaded")
        }
        self.source, self.result = (ok(cuda.cudaMallocHost(SIZE)) for _ in range(2))
        self.input, self.output = (ok(cuda.cudaMalloc(SIZE)) for _ in range(2))

    def record(self, name: str, stream: Any) -> None:
        ok(self.cuda.cudaEventRecord(self.events[name], stream))

    def wait(self, name: str, stream: Any) -> None:
        if name != self.skip:
            ok(self.cuda.cudaStreamWaitEvent(stream, self.events[name], 0))

    def enqueue(self, value: int) -> None:
        upload, compute, download = self.streams
        host(self.source)[:] = value
        self.wait("computed", upload)
        ok(self.cuda.cudaMemcpyAsync(self.input, self.source, SIZE, H2D, upload))
        self.record("uploaded", upload)
        self.wait("uploaded", compute)
        self.wait("downloaded", compute)
        self.increment(compute)
        self.record("computed", compute)
        self.wait("computed", download)
        ok(self.cuda.cudaMemcpyAsync(self.result, self.output, SIZE, D2H, download))
        self.record("downloaded", download)

    def increment(self, stream: Any) -> None:
        def run() -> None:
            host(self.output)[:] = host(self.input) + 1

        reads, writes = [(self.input, SIZE)], [(self.output, SIZE)]
        assert self.cuda.enqueue(int(stream), run, reads=reads, writes=writes, name="increment")

    def finish(self) -> int:
        if self.skip != "host":
            ok(self.cuda.cudaEventSynchronize(self.events["downloaded"]))
        (value,) = set(host(self.result).tolist())
        return value

    def close(self) -> None:
        for stream in self.streams:
            ok(self.cuda.cudaStreamSynchronize(stream))
            ok(self.cuda.cudaStreamDestroy(stream))
        for event in self.events.values():
            ok(self.cuda.cudaEventDestroy(event))
        for address in (self.source, self.result):
            ok(self.cuda.cudaFreeHost(address))
        for address in (self.input, self.output):
            ok(self.cuda.cudaFree(address))


@pytest.mark.parametrize("seed", SEEDS)
def test_correct_code_passes(seed: int) -> None:
    cuda = FakeCuda(seed)
    pipeline = Pipeline(cuda)
    for value in (1, 2, 3):
        pipeline.enqueue(value)
        assert pipeline.finish() == value + 1
    pipeline.close()
    cuda.assert_nothing_left()
    assert cuda.log == ["copy HostToDevice", "increment", "copy DeviceToHost"] * 3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("skip", ["uploaded", "computed"])
def test_a_missing_event_wait_is_a_race(skip: str, seed: int) -> None:
    cuda = FakeCuda(seed)
    with pytest.raises(AssertionError, match=r"race: .* without an order"):
        Pipeline(cuda, skip=skip).enqueue(1)
    assert cuda.violations


def test_a_missing_event_wait_gives_wrong_bytes_if_races_are_not_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FakeCuda, "_check_races", lambda *_: None)
    made = set()
    for seed in range(20):
        pipeline = Pipeline(FakeCuda(seed), skip="uploaded")
        pipeline.enqueue(1)
        made.add(pipeline.finish())
    assert made == {2, 0xCE}


@pytest.mark.parametrize("seed", range(8))
def test_a_result_that_is_read_too_early_is_garbage(seed: int) -> None:
    cuda = FakeCuda(seed, mode=MODES[seed % 3])
    pipeline = Pipeline(cuda, skip="host")
    pipeline.enqueue(1)
    assert pipeline.finish() == 0xCD


@pytest.mark.parametrize("mode", ["late", "others", "random"])
def test_a_pinned_buffer_that_is_reused_too_early_is_found(mode: str) -> None:
    pipeline = Pipeline(FakeCuda(mode=mode))
    pipeline.enqueue(1)
    host(pipeline.source)[:] = 2
    with pytest.raises(AssertionError, match="pinned source changed before it was read"):
        pipeline.finish()


def test_two_executions_of_one_context_need_an_order() -> None:
    cuda = FakeCuda()
    scratch = cuda.allocate(256, "context")
    assert scratch
    for expectation in (None, "race"):
        stream = ok(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))
        parts = {"reads": [(scratch, 256)], "writes": [(scratch, 256)]}
        if expectation:
            with pytest.raises(AssertionError, match="race: kernel"):
                cuda.enqueue(int(stream), lambda: None, **parts)
        else:
            cuda.enqueue(int(stream), lambda: None, **parts)


def test_the_default_stream_waits_for_blocking_streams_only() -> None:
    cuda = FakeCuda()
    device = ok(cuda.cudaMalloc(SIZE))
    blocking = ok(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamDefault))
    free = ok(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))
    ok(cuda.cudaMemsetAsync(device, 1, SIZE, blocking))
    ok(cuda.cudaMemsetAsync(device, 2, SIZE, 0))
    ok(cuda.cudaMemsetAsync(device, 3, SIZE, blocking))
    with pytest.raises(AssertionError, match="race: memset"):
        cuda.cudaMemsetAsync(device, 4, SIZE, free)


def test_a_wait_is_for_the_record_at_the_time_of_the_wait() -> None:
    cuda = FakeCuda()
    first, second = (ok(cuda.cudaStreamCreateWithFlags(1)) for _ in range(2))
    event, device = ok(cuda.cudaEventCreateWithFlags(0)), ok(cuda.cudaMalloc(2 * SIZE))
    ok(cuda.cudaStreamWaitEvent(second, event, 0))  # Not recorded yet: no wait.
    ok(cuda.cudaMemsetAsync(device, 1, SIZE, first))
    ok(cuda.cudaEventRecord(event, first))
    ok(cuda.cudaStreamWaitEvent(second, event, 0))
    ok(cuda.cudaMemsetAsync(device + SIZE, 2, SIZE, first))
    ok(cuda.cudaEventRecord(event, first))
    ok(cuda.cudaMemsetAsync(device, 3, SIZE, second))
    with pytest.raises(AssertionError, match="race"):
        cuda.cudaMemsetAsync(device + SIZE, 4, SIZE, second)


def test_use_after_free_double_free_and_bad_addresses_are_found() -> None:
    cuda = FakeCuda()
    device, pinned = ok(cuda.cudaMalloc(SIZE)), ok(cuda.cudaMallocHost(SIZE))
    pageable = np.zeros(SIZE, np.uint8)
    for message, arguments in {
        "SIZE bytes at offset 1 of an allocation": (device + 1, pinned, SIZE, H2D, 0),
        "the addresses are HostToDevice": (device, pinned, SIZE, D2H, 0),
        "not pinned": (device, pageable.ctypes.data, SIZE, H2D, 0),
        "overlap": (device + 1, device, 8, KIND.cudaMemcpyDeviceToDevice, 0),
    }.items():
        with pytest.raises(AssertionError, match=message.replace("SIZE", str(SIZE))):
            cuda.cudaMemcpyAsync(*arguments)
    ok(cuda.cudaFree(device))
    with pytest.raises(AssertionError, match="after it was freed"):
        cuda.cudaMemcpyAsync(device, pinned, SIZE, H2D, 0)
    with pytest.raises(AssertionError, match="double free"):
        cuda.cudaFree(device)
    with pytest.raises(AssertionError, match="no device allocation"):
        cuda.cudaFree(pinned)
    assert set(host(device)) == {0xDD}
    assert len(cuda.violations) == 7


def test_freeing_pinned_memory_during_a_copy_is_found() -> None:
    pipeline = Pipeline(FakeCuda(mode="late"))
    pipeline.enqueue(1)
    with pytest.raises(AssertionError, match="freed while copy HostToDevice may still use it"):
        pipeline.cuda.cudaFreeHost(pipeline.source)


def test_leaks_are_named() -> None:
    cuda = FakeCuda()
    Pipeline(cuda)
    with pytest.raises(AssertionError, match=r"not freed: .*cudaMalloc 1024 bytes.*stream.*event"):
        cuda.assert_nothing_left()


@pytest.mark.parametrize("seed", range(8))
def test_a_graph_repeats_what_was_captured(seed: int) -> None:
    cuda = FakeCuda(seed)
    pipeline = Pipeline(cuda)
    stream, _, other = pipeline.streams
    ok(cuda.cudaStreamBeginCapture(stream, cuda.cudaStreamCaptureMode(1)))
    ok(cuda.cudaMemcpyAsync(pipeline.input, pipeline.source, SIZE, H2D, stream))
    pipeline.increment(stream)
    ok(cuda.cudaMemcpyAsync(pipeline.result, pipeline.output, SIZE, D2H, stream))
    assert ok(cuda.cudaStreamIsCapturing(stream)).name == "cudaStreamCaptureStatusActive"
    graph = ok(cuda.cudaStreamEndCapture(stream))
    exec_graph = ok(cuda.cudaGraphInstantiate(graph, 0))
    ok(cuda.cudaGraphDestroy(graph))
    assert not cuda.log
    for value, on in ((1, stream), (2, other)):  # Launches of one graph keep their order.
        host(pipeline.source)[:] = value
        ok(cuda.cudaGraphLaunch(exec_graph, on))
        ok(cuda.cudaStreamSynchronize(on))
        assert set(host(pipeline.result)) == {value + 1}
    ok(cuda.cudaGraphExecDestroy(exec_graph))
    pipeline.close()
    cuda.assert_nothing_left()


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaStreamSynchronize", "cudaDeviceSynchronize"])
def test_a_forbidden_call_invalidates_the_capture(call: str) -> None:
    cuda = FakeCuda()
    stream = ok(cuda.cudaStreamCreateWithFlags(1))
    ok(cuda.cudaStreamBeginCapture(stream, cuda.cudaStreamCaptureMode(0)))
    arguments = {"cudaMalloc": (8,), "cudaStreamSynchronize": (stream,)}.get(call, ())
    assert getattr(cuda, call)(*arguments)[0].name == "cudaErrorStreamCaptureUnsupported"
    error, graph = cuda.cudaStreamEndCapture(stream)
    assert (error.name, graph) == ("cudaErrorStreamCaptureInvalidated", None)


def test_a_capture_cannot_wait_for_an_event_from_outside() -> None:
    cuda = FakeCuda()
    stream, event = ok(cuda.cudaStreamCreateWithFlags(1)), ok(cuda.cudaEventCreateWithFlags(0))
    ok(cuda.cudaEventRecord(event, stream))
    ok(cuda.cudaStreamBeginCapture(stream, cuda.cudaStreamCaptureMode(1)))
    error = cuda.cudaStreamWaitEvent(stream, event, 0)[0]
    assert error.name == "cudaErrorStreamCaptureIsolation"


def test_failures_are_injected_and_a_lost_device_stays_lost() -> None:
    cuda = FakeCuda(memory=1 << 20)
    assert cuda.cudaMalloc(2 << 20) == (2, None)
    cuda.fail_next("cudaMalloc", "cudaErrorMemoryAllocation", after=1)
    address = ok(cuda.cudaMalloc(SIZE))
    assert ok(cuda.cudaMemGetInfo()) == ((1 << 20) - SIZE, 1 << 20)
    assert cuda.cudaMalloc(8) == (2, None)
    assert cuda.cudaGetErrorName(cuda.cudaGetLastError()[0])[1] == b"cudaErrorMemoryAllocation"
    assert cuda.calls["cudaMalloc"] == 3
    cuda.fail_next("cudaMalloc", "cudaErrorIllegalAddress", sticky=True)
    assert cuda.cudaMalloc(8)[0].name == "cudaErrorIllegalAddress"
    assert cuda.cudaFree(address)[0].name == "cudaErrorLaunchFailure"
    cuda.assert_nothing_left()


def test_polling_ends_and_events_are_timed() -> None:
    cuda = FakeCuda()
    stream, device = ok(cuda.cudaStreamCreateWithFlags(1)), ok(cuda.cudaMalloc(SIZE))
    events = [ok(cuda.cudaEventCreateWithFlags(0)) for _ in range(2)]
    ok(cuda.cudaEventRecord(events[0], stream))
    ok(cuda.cudaMemsetAsync(device, 1, SIZE, stream))
    ok(cuda.cudaEventRecord(events[1], stream))
    assert cuda.cudaStreamQuery(stream)[0].name == "cudaErrorNotReady"
    while cuda.cudaEventQuery(events[1])[0].name == "cudaErrorNotReady":
        pass
    assert ok(cuda.cudaEventElapsedTime(*events)) == 1.0


def test_the_fake_is_imported_as_cuda_bindings_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    install(monkeypatch, cuda)
    assert importlib.import_module("cuda.bindings.runtime") is cuda
    from cuda.bindings import runtime

    assert runtime is cuda
