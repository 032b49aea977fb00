"""Memory, streams, events and graphs of one device, over the simulator of CUDA."""

import sys
import threading
from contextlib import suppress

import numpy as np
import pytest

from fake_cuda import MODES, FakeCuda, install
from runtime.backends.cuda.runtime import BufferPool, Cuda, CudaError, Stream, host_view
from runtime.errors import BackendError

SIZE = 256


@pytest.fixture
def api(monkeypatch):
    """A machine with two devices."""
    fake = FakeCuda(devices=2)
    install(monkeypatch, fake)
    return fake


def in_thread(function):
    """Runs a function in another thread, and returns its result or the error that it raised."""
    found = []

    def run():
        try:
            found.append(function())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def recorded(api, name, monkeypatch):
    """The current device and the arguments of each later call of a function."""
    seen, function = [], getattr(api, name)

    def call(*arguments):
        seen.append((api.current_device, arguments))
        return function(*arguments)

    monkeypatch.setattr(api, name, call)
    return seen


def test_without_cuda_python_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(
        BackendError, match=r"^cuda-python is not installed: pip install .*tensorrt"
    ):
        Cuda(0)


def test_a_device_that_does_not_exist_is_an_error(api):
    with pytest.raises(
        CudaError, match="cudaSetDevice failed with cudaErrorInvalidDevice on GPU 2"
    ):
        Cuda(2)
    assert api.current_device == 0


@pytest.mark.parametrize(("device", "before"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_the_device_is_current_in_the_block_and_the_previous_one_after_it(api, device, before):
    cuda = Cuda(device)
    api.cudaSetDevice(before)
    for error in (None, KeyError):
        calls = api.calls["cudaSetDevice"]
        with suppress(KeyError), cuda.current():
            assert api.current_device == device
            if error:
                raise error
        assert api.current_device == before
        assert api.calls["cudaSetDevice"] - calls == (0 if device == before else 2)


def test_the_current_device_of_other_threads_stays(api):
    cuda = Cuda(1)

    def seen():
        with cuda.current():
            return api.current_device, in_thread(lambda: api.current_device)

    assert in_thread(seen) == (1, 0)


def test_memory_and_streams_belong_to_their_device(api):
    cuda = Cuda(1)
    with cuda.current():
        stream, pool = Stream(cuda), BufferPool(cuda, pinned=False)
        buffer = pool.take(SIZE)
    _, attributes = api.cudaPointerGetAttributes(buffer.pointer)
    assert attributes.device == 1
    with cuda.current():
        pool.give_back(buffer)
        stream.close()
    pool.close()
    assert api.current_device == 0
    api.assert_nothing_left()


def test_a_stream_does_not_wait_for_the_default_stream(api, monkeypatch):
    seen = recorded(api, "cudaStreamCreateWithFlags", monkeypatch)
    stream = Stream(Cuda(0))
    assert seen == [(0, (api.cudaStreamNonBlocking,))]
    stream.close()
    api.assert_nothing_left()


@pytest.mark.parametrize("mode", MODES)
def test_work_and_its_events_keep_their_order_under_each_scheduler(monkeypatch, mode):
    fake = FakeCuda(3, mode=mode)
    install(monkeypatch, fake)
    cuda = Cuda(0)
    up, down = Stream(cuda), Stream(cuda)
    pinned, memory = BufferPool(cuda, pinned=True), BufferPool(cuda, pinned=False)
    source, result, on_device = pinned.take(SIZE), pinned.take(SIZE), memory.take(SIZE)
    for value in (1, 2, 3):
        host_view(source, (SIZE,), np.dtype(np.uint8))[:] = value
        cuda.copy(up, on_device.pointer, source.pointer, SIZE, "HostToDevice")
        down.wait_for(up.record())
        cuda.copy(down, result.pointer, on_device.pointer, SIZE, "DeviceToHost")
        done = down.record()
        up.wait_for(done)
        done.wait()
        assert set(host_view(result, (SIZE,), np.dtype(np.uint8)).tolist()) == {value}
    assert fake.log == ["copy HostToDevice", "copy DeviceToHost"] * 3
    for pool, buffer in ((pinned, source), (pinned, result), (memory, on_device)):
        pool.give_back(buffer)
        pool.close()
    up.synchronize()
    for stream in (up, down):
        stream.close()
    del done
    fake.assert_nothing_left()


def test_the_time_between_two_events_is_measured(api):
    cuda = Cuda(0)
    stream, memory = Stream(cuda), BufferPool(cuda, pinned=False)
    buffer = memory.take(SIZE)
    before = stream.record(timed=True)
    cuda.call("cudaMemsetAsync", buffer.pointer, 1, SIZE, stream.handle)
    after = stream.record(timed=True)
    after.wait()
    assert after.milliseconds_since(before) == 1.0
    with pytest.raises(CudaError, match="cudaEventElapsedTime failed"):
        after.milliseconds_since(stream.record())


def test_a_pool_gives_the_buffer_that_was_returned_first(api):
    pool = BufferPool(Cuda(0), pinned=False)
    first, second, other = pool.take(SIZE), pool.take(SIZE), pool.take(2 * SIZE)
    assert len({first.pointer, second.pointer, other.pointer}) == 3
    for buffer in (second, other, first):
        pool.give_back(buffer)
    assert pool.take(SIZE) is second
    assert pool.take(2 * SIZE) is other
    assert pool.take(SIZE) is first
    assert api.calls["cudaMalloc"] == 3


@pytest.mark.parametrize(
    ("pinned", "allocate", "free"),
    [(True, "cudaMallocHost", "cudaFreeHost"), (False, "cudaMalloc", "cudaFree")],
)
def test_a_pool_frees_what_is_idle_and_later_what_is_returned(api, pinned, allocate, free):
    pool = BufferPool(Cuda(0), pinned=pinned)
    idle, used = pool.take(SIZE), pool.take(SIZE)
    assert not pool.free_idle()
    pool.give_back(idle)
    assert pool.free_idle()
    assert not pool.free_idle()
    assert (api.calls[allocate], api.calls[free]) == (2, 1)
    pool.give_back(used)
    pool.give_back(later := pool.take(2 * SIZE))
    pool.close()
    assert api.calls[free] == 3
    assert later.uses == {}
    pool.give_back(pool.take(SIZE))
    assert api.calls[free] == 4
    api.assert_nothing_left()


@pytest.mark.parametrize("device", [0, 1])
def test_a_buffer_is_freed_on_its_device_after_its_queued_work(api, monkeypatch, device):
    cuda = Cuda(device)
    with cuda.current():
        stream, pool = Stream(cuda), BufferPool(cuda, pinned=False)
        buffer = pool.take(SIZE)
        cuda.call("cudaMemsetAsync", buffer.pointer, 1, SIZE, stream.handle)
        buffer.uses[stream.handle] = stream.record()
    pool.give_back(buffer)
    seen = recorded(api, "cudaFree", monkeypatch)
    pool.close()
    assert seen == [(device, (buffer.pointer,))]
    assert (api.calls["cudaEventSynchronize"], buffer.uses) == (1, {})
    with cuda.current():
        stream.close()
    api.assert_nothing_left()


def test_a_pool_of_a_lost_device_is_closed_without_an_error(api):
    cuda = Cuda(1)
    pool = BufferPool(cuda, pinned=False)
    with cuda.current():
        buffer = pool.take(SIZE)
    pool.give_back(buffer)
    api.lose_device()
    pool.close()
    api.assert_nothing_left()


@pytest.fixture
def stream_at(api):
    cuda = Cuda(0)
    return cuda, Stream(cuda)


def test_a_captured_graph_runs_when_it_is_launched(api, stream_at):
    cuda, stream = stream_at
    pool = BufferPool(cuda, pinned=False)
    buffer = pool.take(SIZE)
    with cuda.capture(stream) as captured:
        cuda.call("cudaMemsetAsync", buffer.pointer, 7, SIZE, stream.handle)
    assert api.log == []
    (graph,) = captured
    for count in (1, 2):
        graph.launch(stream)
        stream.synchronize()
        assert len(api.log) == count
    graph.close()
    pool.give_back(buffer)
    pool.close()
    stream.close()
    api.assert_nothing_left()


def test_another_thread_may_allocate_during_a_capture(api, stream_at):
    cuda, stream = stream_at
    pool = BufferPool(cuda, pinned=False)
    with cuda.capture(stream) as captured:
        buffer = in_thread(lambda: pool.take(SIZE))
        assert buffer.size == SIZE
    assert len(captured) == 1


def test_this_thread_may_not_allocate_during_a_capture(api, stream_at):
    cuda, stream = stream_at
    pool = BufferPool(cuda, pinned=False)
    message = "cudaMalloc failed with cudaErrorStreamCaptureUnsupported on GPU 0"
    with pytest.raises(CudaError, match=message), cuda.capture(stream) as captured:
        pool.take(SIZE)
    assert captured == []
    stream.close()
    api.assert_nothing_left()


def test_the_graph_of_a_block_that_fails_is_freed(api, stream_at):
    cuda, stream = stream_at
    with pytest.raises(KeyError), cuda.capture(stream) as captured:
        raise KeyError
    assert captured == []
    assert api.calls["cudaGraphDestroy"] == 1
    with cuda.capture(stream) as captured:
        pass
    captured[0].close()
    stream.close()
    api.assert_nothing_left()


def test_a_graph_that_cannot_be_instantiated_is_freed(api, stream_at):
    cuda, stream = stream_at
    api.fail_next("cudaGraphInstantiate", "cudaErrorMemoryAllocation")
    with (
        pytest.raises(CudaError, match="GPU 0 is out of memory") as raised,
        cuda.capture(stream) as captured,
    ):
        pass
    assert (captured, raised.value.name) == ([], "cudaErrorMemoryAllocation")
    stream.close()
    api.assert_nothing_left()


@pytest.mark.parametrize(
    ("pinned", "start"),
    [
        (False, "GPU 1 is out of memory (3 MiB were asked for, 2 of 4 MiB of the GPU are free): "),
        (True, "the host is out of memory (2 of 4 MiB of the GPU are free): "),
    ],
)
def test_the_error_of_memory_says_what_is_free(monkeypatch, pinned, start):
    fake = FakeCuda(devices=2, memory=4 << 20)
    install(monkeypatch, fake)
    cuda = Cuda(1)
    with cuda.current():
        taken = BufferPool(cuda, pinned=False).take(2 << 20)
        if pinned:
            fake.fail_next("cudaMallocHost", "cudaErrorMemoryAllocation")
        with pytest.raises(CudaError) as raised:
            BufferPool(cuda, pinned=pinned).take(3 << 20)
    assert taken.size == 2 << 20
    assert str(raised.value) == (
        f"{start}close other programs, use fewer streams, or build an engine for smaller frames"
    )
    assert fake.cudaGetLastError()[0].name == "cudaSuccess"


def test_a_host_view_shares_the_memory_of_its_buffer(api):
    buffer = BufferPool(Cuda(0), pinned=True).take(24)
    halves = host_view(buffer, (3, 2), np.dtype(np.float32))
    halves[:] = [[1, 2], [3, 4], [5, 6]]
    flat = host_view(buffer, (6,), np.dtype(np.float32))
    assert flat.tolist() == [1, 2, 3, 4, 5, 6]
