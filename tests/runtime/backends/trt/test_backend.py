"""The TensorRT backend over fakes of TensorRT and CUDA, which compute with ONNX Runtime.

The fake device runs its streams in adversarial order and finds races, leaks and use of memory after
it was freed; gpu_fakes.machine checks this at the end of every test.
"""

import gc
import itertools
import threading

import numpy as np
import onnx
import pytest

import gpu_fakes
from artefacts import assert_same, change_build
from export.gate.cases import moving_frames
from export.trt.build import Profile
from runtime import BackendError, FrameError, Interpolator, ModelError
from runtime.backends.base import OpenOptions
from runtime.backends.cuda.arrays import DeviceView
from runtime.backends.registry import open_backend
from runtime.backends.trt.profiling import time_parts
from runtime.batching import PairRequest
from runtime.machine import Gpu, GpuDriver
from runtime.manifest import manifest_path

THREE = (0.25, 0.5, 0.75)


@pytest.fixture
def reference(tmp_path, sources):
    """Opens a graph in ONNX Runtime, for comparison."""

    def opened(graph="frames"):
        path = tmp_path / f"{graph}.onnx"
        onnx.save(sources[graph].model, path)
        return Interpolator.open(path, backend="onnxruntime")

    return opened


@pytest.fixture
def clip():
    return [moving_frames(50, 70, 4.0, seed=k)[k % 2] for k in range(5)]


def test_a_pair_equals_that_of_onnx_runtime_with_every_generation(trt, engine, reference, frames):
    with reference() as plain:
        expected = plain.interpolate(*frames, timesteps=THREE)
    with Interpolator.open(engine()) as vfi:
        assert vfi.backend == f"tensorrt {trt.__version__} cuda:0"
        assert_same(vfi.interpolate(*frames, timesteps=THREE), expected)


@pytest.mark.parametrize(
    "graph", ["fp16", "float", "three", "batch", "dynamic", "midpoint", "free pairs"]
)
def test_every_kind_of_graph_equals_onnx_runtime(trt10, engine, reference, graph):
    size = (48, 64) if graph == "float" else (50, 70)
    profile = Profile((32, 32), (64, 80), (96, 96)) if graph == "dynamic" else None
    frames = moving_frames(*size, 4.0)
    with reference(graph) as plain:
        expected = plain.interpolate(*frames, timesteps=THREE)
    with Interpolator.open(engine(graph, profile=profile)) as vfi:
        assert_same(vfi.interpolate(*frames, timesteps=THREE), expected)


def test_an_engine_with_a_free_number_of_pairs_accepts_one_and_several(trt, engine, reference):
    frames = [moving_frames(50, 70, 4.0, seed=k) for k in range(3)]
    steps = np.array([0.25, 0.5, 0.75], np.float32).reshape(-1, 1, 1, 1)
    with reference("free pairs") as plain:
        expected = [
            plain.interpolate(*two, timesteps=[t])[0]
            for two, t in zip(frames, steps.ravel(), strict=True)
        ]
    with Interpolator.open(engine("free pairs")) as vfi:
        backend = vfi._backend
        pairs = [tuple(backend.put(frame[None]) for frame in two) for two in frames]
        for count in (3, 1, 2):
            waits = [backend.download(one) for one in backend.submit(pairs[:count], steps[:count])]
            assert_same([wait()[0] for wait in waits], expected[:count])


STREAMS = list(
    itertools.product(("frames", "batch", "midpoint"), ({}, {"streams": 3}, {"cuda_graph": False}))
)


# Two seeds for each kind of stream; all four orders of the device occur.
@pytest.mark.parametrize(
    ("graph", "options", "seed"),
    [(*kind, (number + k) % 4) for number, kind in enumerate(STREAMS) for k in (0, 2)],
)
def test_a_stream_is_the_same_in_any_order_of_the_device(
    monkeypatch, sources, engine, reference, clip, graph, options, seed
):
    with reference(graph) as plain:
        expected = list(plain.stream(clip, factor=4))
    with (
        gpu_fakes.machine("10.3.0", monkeypatch, seed=seed),
        Interpolator.open(engine(graph), **options) as vfi,
    ):
        made = list(vfi.stream(clip, factor=4))
    assert_same(made, expected)
    assert all(any(frame is real for frame in made) for real in clip)


@pytest.mark.parametrize("graph", ["frames", "batch", "midpoint"])
def test_pairs_can_have_different_time_steps_and_gaps_between_them(
    trt10, engine, reference, clip, graph
):
    steps = [(0.5,), (), (0.25, 0.75), (0.5,)]
    pairs = [
        PairRequest(*two, own) for two, own in zip(itertools.pairwise(clip), steps, strict=True)
    ]
    asked = [None, pairs[0], None, None, *pairs[1:], *[None] * 40, pairs[0]]
    with reference(graph) as plain:
        expected = [
            [] if pair is None or not pair.timesteps
            else plain.interpolate(pair.frame0, pair.frame1, timesteps=pair.timesteps)
            for pair in asked
        ]  # fmt: skip
    with Interpolator.open(engine(graph), streams=2) as vfi:
        made = list(vfi.interpolate_each(iter(asked)))
    assert len(made) == len(expected)
    for one, other in zip(made, expected, strict=True):
        assert_same(one, other)


def test_frames_that_arrive_one_by_one_give_the_results_of_a_stream(trt10, engine, clip):
    with Interpolator.open(engine(), cuda_graph=False) as vfi:
        list(vfi.stream(clip[:2], factor=4))  # Another upload is that of the time steps.
        copies = [trt10.cuda.calls["cudaMemcpyAsync"]]
        expected = list(vfi.stream(clip, factor=4))
        copies.append(trt10.cuda.calls["cudaMemcpyAsync"])
        live = vfi.live(factor=4)
        shown = [one for time, frame in enumerate(clip) for one in live.push(time, frame)]
        shown += live.reset()
        copies.append(trt10.cuda.calls["cudaMemcpyAsync"])
    assert_same([one.frame for one in shown], expected)
    assert [one.time * 4 for one in shown] == list(range(len(expected)))
    assert copies[2] - copies[1] == copies[1] - copies[0]  # Here, too, each frame is uploaded once.


def test_a_frame_of_a_stream_is_uploaded_once(trt10, engine, clip):
    with Interpolator.open(engine(), cuda_graph=False) as vfi:
        list(vfi.stream(clip[:2]))  # Another upload is that of the time step.
        before = trt10.cuda.calls["cudaMemcpyAsync"]
        list(vfi.stream(clip))
    up, down = len(clip), len(clip) - 1
    assert trt10.cuda.calls["cudaMemcpyAsync"] - before == up + down


def test_recursion_stays_on_the_device(trt10, engine, clip):
    with Interpolator.open(engine("midpoint"), cuda_graph=False) as vfi:
        list(vfi.stream(clip[:2], factor=4))
        before = trt10.cuda.calls["cudaMemcpyAsync"]
        vfi.interpolate(*clip[:2], timesteps=THREE)
    assert trt10.cuda.calls["cudaMemcpyAsync"] - before == 2 + len(THREE)


def test_repeated_calls_allocate_nothing_and_use_one_cuda_graph(trt10, engine, clip):
    calls = trt10.cuda.calls
    with Interpolator.open(engine()) as vfi:
        list(vfi.stream(clip * 3))
        before = calls.copy()
        list(vfi.stream(clip * 3))
        new = calls - before
    assert new["cudaMalloc"] == new["cudaMallocHost"] == new["cudaStreamCreateWithFlags"] == 0
    assert calls["cudaGraphInstantiate"] == 1
    assert new["cudaGraphLaunch"] == 3 * len(clip) - 1


def test_without_cuda_graph_no_graph_is_created(trt10, engine, clip):
    with Interpolator.open(engine(), cuda_graph=False) as vfi:
        list(vfi.stream(clip))
    assert trt10.cuda.calls["cudaStreamBeginCapture"] == 0


def test_the_next_frame_is_uploaded_before_the_first_result_is_awaited(trt10, engine, clip):
    read = []

    def reading():
        for number, frame in enumerate(clip):
            read.append(number)
            yield frame

    with Interpolator.open(engine()) as vfi:
        stream = vfi.stream(reading())
        assert next(stream) is clip[0]
        next(stream)
        assert read == [0, 1, 2, 3]  # Two pairs ahead with one stream.
        stream.close()


def test_returned_frames_are_owned_by_the_caller(trt10, engine, frames):
    with Interpolator.open(engine()) as vfi:
        first = vfi.interpolate(*frames)
        kept = first.copy()
        others = [vfi.interpolate(frames[1], frames[0]) for _ in range(4)]
        np.testing.assert_array_equal(first, kept)  # Later calls do not write to it.
        first[:] = 0
        np.testing.assert_array_equal(vfi.interpolate(*frames), kept)
    assert not np.array_equal(others[0], kept)


def test_one_model_serves_several_threads(trt10, engine, reference, clip):
    pairs = list(itertools.pairwise(clip))
    with reference() as plain:
        expected = [plain.interpolate(*pair) for pair in pairs]
    made = [None] * len(pairs)
    with Interpolator.open(engine(), streams=2) as vfi:

        def work(number):
            for _ in range(3):
                made[number] = vfi.interpolate(*pairs[number])

        threads = [threading.Thread(target=work, args=(k,)) for k in range(len(pairs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert_same(made, expected)


def test_opening_and_closing_leaks_nothing(trt10, engine, frames):
    path = engine()
    for _ in range(6):
        with Interpolator.open(path, streams=2) as vfi:
            vfi.interpolate(*frames)
        assert trt10.cuda.left() == []
    with pytest.raises(BackendError, match="closed: open it again"):
        vfi.interpolate(*frames)
    vfi.close()


@pytest.mark.parametrize("seed", range(4))
def test_results_that_are_not_fetched_do_not_disturb_others(
    monkeypatch, sources, engine, reference, clip, seed
):
    with reference() as plain:
        expected = [plain.interpolate(*pair) for pair in itertools.pairwise(clip)]
    middle = np.full((1, 1, 1, 1), 0.5, np.float32)
    with gpu_fakes.machine("10.3.0", monkeypatch, seed=seed):
        backend = open_backend(engine(), OpenOptions(streams=2))
        for pair, wanted in zip(itertools.pairwise(clip), expected, strict=True):
            images = tuple(backend.put(frame[None]) for frame in pair)
            backend.put(clip[0][None])  # Not used; a result reuses its memory.
            (dropped,) = backend.submit([images[::-1]], middle)
            backend.download(dropped)  # Not fetched.
            del dropped
            (made,) = backend.submit([images], middle)
            np.testing.assert_array_equal(backend.download(made)()[0], wanted)
        del images, made
        backend.close()


def test_an_abandoned_stream_leaks_nothing(trt10, engine, clip):
    with Interpolator.open(engine()) as vfi:
        stream = vfi.stream(clip, factor=4)
        for _ in range(3):
            next(stream)
        del stream


# Sizes


def test_a_dynamic_engine_takes_every_size_of_its_profile(trt10, engine, reference):
    path = engine("dynamic", profile=Profile((32, 32), (64, 80), (96, 96)))
    with reference("dynamic") as plain, Interpolator.open(path) as vfi:
        for height, width in ((64, 80), (33, 47), (96, 96), (64, 80)):
            pair = moving_frames(height, width, 3.0)
            np.testing.assert_array_equal(vfi.interpolate(*pair), plain.interpolate(*pair))
        with pytest.raises(FrameError, match=r"are 97x40, this engine takes 32x32 to 96x96"):
            vfi.interpolate(*moving_frames(97, 40, 3.0))
        vfi.interpolate(*moving_frames(40, 40, 3.0))  # Nothing was lost.


def test_a_static_engine_refuses_another_size_and_stays_open(trt10, engine, frames):
    with Interpolator.open(engine()) as vfi:
        with pytest.raises(FrameError, match=r"this model takes 50x70 only"):
            vfi.interpolate(*moving_frames(64, 64, 3.0))
        vfi.interpolate(*frames)


# Checks before an engine is loaded


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tensorrt": "10.2.0"}, r"built with TensorRT 10\.2\.0, here is 10\.3\.0"),
        ({"gpu": "NVIDIA H200"}, r"built for NVIDIA H200 \(8\.9\), here is NVIDIA GeForce RTX"),
        ({"compute_capability": "9.0"}, r"\(9\.0\), here is NVIDIA GeForce RTX 4090 \(8\.9\)"),
        (
            {"portable": True, "tensorrt": "10.4.0"},
            r"portable to later 10\.x and 11\.x, here is 10\.3\.0",
        ),
        ({"portable": True, "tensorrt": "11.0.0"}, r"portable to later 11\.x, here is 10\.3\.0"),
    ],
)
def test_an_engine_for_another_machine_is_refused_with_a_remedy(trt10, engine, values, message):
    path = engine()
    change_build(path, **values)
    opened = len(trt10.cuda.left())
    with pytest.raises(ModelError, match=message) as error:
        Interpolator.open(path)
    assert "build it here with rebuild it" in str(error.value)
    assert len(trt10.cuda.left()) == opened  # No engine was deserialised.


def test_a_portable_engine_is_refused_before_ampere(trt10, engine, monkeypatch):
    path = engine(portable=True)
    Interpolator.open(path).close()
    old = GpuDriver([Gpu("Tesla V100", "7.0")], "12.4")
    monkeypatch.setattr("runtime.backends.trt.engine.gpu_driver", lambda: old)
    with pytest.raises(ModelError, match=r"from compute capability 8\.0 on, here is Tesla V100"):
        Interpolator.open(path)


def test_a_changed_engine_or_a_missing_manifest_is_refused(trt10, engine):
    path = engine()
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ModelError, match="its manifest was written for"):
        Interpolator.open(path)
    manifest_path(path).unlink()
    with pytest.raises(ModelError, match="is missing: put it beside"):
        Interpolator.open(path)


def test_an_engine_that_contradicts_its_manifest_is_refused(trt10, engine):
    path = engine("three")
    text = manifest_path(path)
    text.write_text(text.read_text().replace('"steps_per_call": 3', '"steps_per_call": 2'))
    with pytest.raises(ModelError, match="its manifest declares"):
        Interpolator.open(path)
    gc.collect()


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_without_a_driver_tensorrt_is_not_called(trt10, engine, monkeypatch, backend):
    path = engine()
    monkeypatch.setattr("runtime.backends.trt.engine.installed_backend", lambda: backend)
    monkeypatch.setattr(
        "runtime.backends.trt.engine.gpu_driver", lambda: GpuDriver(problem="there is no driver")
    )
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(
        BackendError, match=f"needs an NVIDIA GPU, and there is no driver: .* --backend {backend}$"
    ):
        Interpolator.open(path)


def test_without_tensorrt_or_cuda_python_the_error_says_what_to_install(trt10, engine, monkeypatch):
    path, modules = engine(), __import__("sys").modules
    with monkeypatch.context() as without:
        without.setitem(modules, "cuda.bindings.runtime", None)
        with pytest.raises(BackendError, match=r"cuda-python is not installed: pip install"):
            Interpolator.open(path)
    with monkeypatch.context() as without:
        without.setitem(modules, "tensorrt", None)
        with pytest.raises(BackendError, match=r"TensorRT cannot be imported .*Jetson"):
            Interpolator.open(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cpu"}, "frames.engine is a TensorRT engine: use device='cuda'"),
        ({"device": "cuda:1"}, "cuda:1 was asked for, the driver sees cuda:0 NVIDIA GeForce"),
        ({"threads": 2}, "threads=2 is for CPU backends"),
        ({"io_binding": True}, "io_binding=True is for ONNX Runtime"),
        ({"streams": 0}, "streams is 0: use 1 or more"),
    ],
)
def test_invalid_options_are_refused(trt10, engine, options, message):
    with pytest.raises(BackendError, match=message):
        Interpolator.open(engine(), **options)


# Errors of the device


def test_out_of_memory_is_one_error_and_frees_everything(trt10, engine, frames):
    vfi = Interpolator.open(engine())
    trt10.cuda.fail_next("cudaMalloc", "cudaErrorMemoryAllocation")
    with pytest.raises(BackendError, match=r"GPU 0 is out of memory .* fewer streams.*closed"):
        vfi.interpolate(*frames)
    assert trt10.cuda.left() == []
    with pytest.raises(BackendError, match="closed: open it again"):
        vfi.interpolate(*frames)


def test_memory_of_other_sizes_is_freed_before_the_device_is_full(trt10, engine):
    path = engine("dynamic", profile=Profile((32, 32), (64, 80), (96, 96)))
    with Interpolator.open(path) as vfi:
        vfi.interpolate(*moving_frames(96, 96, 3.0))
        trt10.cuda.fail_next("cudaMalloc", "cudaErrorMemoryAllocation")
        vfi.interpolate(*moving_frames(64, 80, 3.0))


@pytest.mark.parametrize("call", ["cudaMemcpyAsync", "cudaEventSynchronize", "cudaGraphLaunch"])
def test_a_lost_device_is_one_error(trt10, engine, clip, call):
    vfi = Interpolator.open(engine())
    trt10.cuda.fail_next(call, "cudaErrorLaunchFailure", after=1, sticky=True)
    with pytest.raises(BackendError, match=r"cuda:0 failed: .*cudaErrorLaunchFailure"):
        list(vfi.stream(clip))
    with pytest.raises(BackendError, match="closed: open it again"):
        vfi.interpolate(*clip[:2])
    vfi.close()


def test_too_little_memory_for_the_streams_frees_everything(trt10, engine):
    path = engine()
    trt10.cuda.fail_next("cudaStreamCreateWithFlags", "cudaErrorMemoryAllocation", after=3)
    with pytest.raises(BackendError, match="out of memory"):
        Interpolator.open(path, streams=4)
    assert trt10.cuda.left() == []


# Frames on the GPU


class OnDevice:
    """A frame in device memory, like an array of another library."""

    def __init__(self, cuda, frame, *, offset=0):
        self._cuda = cuda
        self._pointer = cuda.allocate(frame.nbytes + offset, "another library")
        self.pointer = self._pointer + offset
        np.ctypeslib.as_array(
            (np.ctypeslib.ctypes.c_uint8 * frame.nbytes).from_address(self.pointer)
        )[:] = frame.ravel().view(np.uint8)
        self.__cuda_array_interface__ = {
            "shape": frame.shape,
            "typestr": frame.dtype.str,
            "data": (self.pointer, False),
            "version": 2,
        }

    def __del__(self):
        self._cuda.free(self._pointer)


def on_host(cuda, frame, stream):
    """The content of a frame after all work of `stream`."""
    (error,) = cuda.cudaStreamSynchronize(stream)
    assert error == cuda.cudaError_t.cudaSuccess
    count = int(np.prod(frame.shape))
    memory = (np.ctypeslib.ctypes.c_uint8 * count).from_address(frame.pointer)
    return np.ctypeslib.as_array(memory).reshape(frame.shape).copy()


@pytest.mark.parametrize("seed", range(4))
def test_frames_on_the_device_are_read_and_returned_without_a_copy(
    monkeypatch, sources, engine, frames, reference, seed
):
    with reference() as plain:
        expected = plain.interpolate(*frames, timesteps=THREE)
    with gpu_fakes.machine("10.3.0", monkeypatch, seed=seed) as trt:
        cuda = trt.cuda
        with Interpolator.open(engine()) as vfi:
            _, own = cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)
            given = [OnDevice(cuda, frame) for frame in frames]
            vfi.interpolate_on_device(*given, timesteps=THREE, stream=int(own))
            before = cuda.calls.copy()
            made = vfi.interpolate_on_device(*given, timesteps=THREE, stream=int(own))
            new = cuda.calls - before
            assert new["cudaMemcpyAsync"] == new["cudaMalloc"] == 0
            assert new["cudaStreamSynchronize"] == new["cudaEventSynchronize"] == 0
            assert_same([on_host(cuda, frame, own) for frame in made], expected)
            del made, given
            gc.collect()
            cuda.cudaStreamDestroy(own)


def test_a_frame_on_the_device_outlives_the_interpolator(trt10, engine, frames, reference):
    cuda = trt10.cuda
    with reference() as plain:
        expected = plain.interpolate(*frames)
    with Interpolator.open(engine()) as vfi:
        given = [OnDevice(cuda, frame) for frame in frames]
        (made,) = vfi.interpolate_on_device(*given)
        (other,) = vfi.interpolate_on_device(*given[::-1])
    np.testing.assert_array_equal(on_host(cuda, made, 0), expected)
    assert made.__cuda_array_interface__["data"][0] != other.__cuda_array_interface__["data"][0]
    held = len(cuda.left())
    del made
    assert len(cuda.left()) < held


def test_memory_of_a_dropped_frame_is_reused_only_after_the_callers_work(trt10, engine, frames):
    cuda = trt10.cuda
    with Interpolator.open(engine()) as vfi:
        _, own = cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)
        given = [OnDevice(cuda, frame) for frame in frames]
        for _ in range(6):
            (made,) = vfi.interpolate_on_device(*given, stream=int(own))
            # The caller's stream will read the frame later, but its Python object is dropped now.
            part = [(made.pointer, made.nbytes)]
            cuda.enqueue(int(own), lambda: None, reads=part, writes=[], name="caller's kernel")
            del made
        cuda.cudaStreamSynchronize(own)
        cuda.cudaStreamDestroy(own)


def test_frames_at_odd_addresses_are_copied_on_the_device(trt10, engine, frames, reference):
    cuda = trt10.cuda
    with reference() as plain:
        expected = plain.interpolate(*frames)
    with Interpolator.open(engine()) as vfi:
        given = [OnDevice(cuda, frame, offset=10) for frame in frames]
        (made,) = vfi.interpolate_on_device(*given)
        np.testing.assert_array_equal(on_host(cuda, made, 0), expected)
        del made, given


@pytest.mark.parametrize(
    ("graph", "shape", "message"),
    [
        ("frames", (50, 70), r"frame0 has shape \(50, 70\): expected RGB"),
        ("frames", (64, 64, 3), "this model takes 50x70 only"),
        ("float", (48, 64, 3), "build one with --io frames"),
    ],
)
def test_unfit_frames_on_the_device_are_refused(trt10, engine, graph, shape, message):
    with Interpolator.open(engine(graph)) as vfi:
        given = [OnDevice(trt10.cuda, np.zeros(shape, np.uint8)) for _ in range(2)]
        with pytest.raises(FrameError, match=message):
            vfi.interpolate_on_device(*given)
        del given


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": np.uint16}, r"^frame0 is uint8 \(50, 70, 3\), frame1 is uint16 \(50, 70, 3\): "),
        ({"width": 72}, r"^frame0 is uint8 \(50, 70, 3\), frame1 is uint8 \(50, 72, 3\): "),
    ],
)
def test_unequal_frames_on_the_device_are_refused(trt10, engine, frames, change, message):
    other = np.zeros((50, change.get("width", 70), 3), change.get("dtype", np.uint8))
    with Interpolator.open(engine()) as vfi:
        given = [OnDevice(trt10.cuda, frame) for frame in (frames[0], other)]
        with pytest.raises(FrameError, match=message):
            vfi.interpolate_on_device(*given)
        assert len(vfi.interpolate_on_device(given[0], given[0])) == 1
        del given


@pytest.mark.parametrize(("gpu", "accepted"), [(None, True), (0, True), (1, False)])
def test_a_frame_on_another_gpu_is_refused(trt10, engine, frames, gpu, accepted):
    backend = open_backend(engine(), OpenOptions())
    frame = OnDevice(trt10.cuda, frames[0])
    view = DeviceView(frame.pointer, frames[0].shape, frames[0].dtype, gpu, None, frame)
    if accepted:
        assert backend.put_device(view, 0).pointer == frame.pointer
    else:
        message = "^a frame is on GPU 1, this model is on GPU 0: copy it there, or open the model"
        with pytest.raises(FrameError, match=message):
            backend.put_device(view, 0)
    backend.close()
    del view, frame


def test_a_backend_on_the_host_refuses_frames_on_the_device(trt10, reference, frames):
    given = [OnDevice(trt10.cuda, frame) for frame in frames]
    with reference() as plain, pytest.raises(BackendError, match="build a TensorRT engine"):
        plain.interpolate_on_device(*given)


def test_times_of_each_part_are_measured(trt10, engine, frames):
    backend = open_backend(engine(), OpenOptions())
    images = [frame[None] for frame in frames]
    parts = time_parts(backend, *images, np.full((1, 1, 1, 1), 0.5, np.float32))
    # The simulator takes a millisecond for each operation: two uploads, three copies to the buffers
    # of the graph, the network and a copy from them, one download.
    assert parts == {"h2d": 2.0, "compute": 5.0, "d2h": 1.0}
    backend.close()
