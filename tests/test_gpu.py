"""Tests of engines, frames on the GPU and leaks that need a GPU with TensorRT; marked `gpu`.

They need TensorRT, but neither PyTorch nor hypothesis. The graphs come from the folder that
IFRNET_GPU_MODELS names (tools/gpu_check.py creates it); without it they are exported, which needs
PyTorch. IFRNET_GPU_ENGINES names a folder that keeps engines and timing cache for the next run.
Without a GPU the tests skip and give the reason; with FAIL_WITHOUT_GPU=1 they fail instead.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import itertools
import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import pytest

from export.errors import ExportError, GateError
from export.gate.cases import moving_frames
from export.gate.compare import compare
from export.gate.diagnosis import nearest_sampling
from export.gate.gate import REQUIRED_DB_OF_ENGINES
from export.gate.runners import images_for
from export.request import DEFAULT_SIZE
from export.source import source_from_onnx
from export.store import write_onnx
from export.trt import cache as trt_cache
from export.trt.build import BuildOptions, Profile, engine_from_onnx, tensor_types
from export.trt.engine import EngineRequest, Target, target_at, write_engine
from export.trt.inspector import missed_types, parse_layers
from gpu_graphs import GRAPHS, SIZE, load_libcudart
from runtime import Interpolator, ModelError
from runtime.backends.base import Backend, OpenOptions
from runtime.backends.cuda.runtime import BufferPool, Cuda, Stream, host_view, import_cuda
from runtime.backends.registry import open_backend
from runtime.errors import BackendError
from runtime.manifest import EngineManifest, manifest_path

pytestmark = pytest.mark.gpu


PROFILE = Profile((64, 64), SIZE, DEFAULT_SIZE)
THREE = (0.25, 0.5, 0.75)

OPENINGS = int(os.environ.get("IFRNET_GPU_OPENINGS", "1000"))
INFERENCES = int(os.environ.get("IFRNET_GPU_INFERENCES", "10000"))
GPU_GROWTH = 16 << 20
"""Allowed growth in bytes. The driver allocates pieces of 2 MiB; a leak of one context of the tiny
engine at each opening would be hundreds of these."""
RSS_GROWTH = 64 << 20
"""Allowed growth in bytes: fragments of the allocator, 64 KiB for each of 1000 openings. A leak of
one plan at each opening would be gigabytes."""


def unavailable(reason: str) -> NoReturn:
    """Skips the test; fails it with FAIL_WITHOUT_GPU=1."""
    if os.environ.get("FAIL_WITHOUT_GPU") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def target() -> Target:
    """The GPU and TensorRT; without them the tests skip."""
    try:
        found = target_at(0)
        import_cuda()
    except (BackendError, ExportError) as error:
        unavailable(str(error))
    return found


@pytest.fixture(scope="session")
def graph(
    target: Target, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Callable[[str], Path]:
    """Returns the ONNX file of a graph of GRAPHS."""
    given = os.environ.get("IFRNET_GPU_MODELS")
    made = tmp_path_factory.mktemp("graphs")

    def found(name: str) -> Path:
        path = Path(given or made) / f"test_{name}.onnx"
        if path.exists():
            return path
        if given:
            unavailable(f"{path} is missing: make it with tools/gpu_check.py --pack")
        try:
            importlib.import_module("export.from_checkpoint")
        except ImportError as error:
            unavailable(f"{error}: name a folder of graphs with IFRNET_GPU_MODELS")
        options = {"height": SIZE[0], "width": SIZE[1], **GRAPHS[name]}
        write_onnx(request.getfixturevalue("export")(**options).model, path)
        return path

    return found


@pytest.fixture(scope="session")
def timing_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The timing cache of this session: the first build creates it, the others extend it."""
    return _folder(tmp_path_factory) / "timing.cache"


def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for engines and timing cache."""
    if kept := os.environ.get("IFRNET_GPU_ENGINES"):
        Path(kept).mkdir(parents=True, exist_ok=True)
        return Path(kept)
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="session")
def built(
    target: Target,
    graph: Callable[[str], Path],
    timing_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Path]:
    """Returns the engine of a graph; each is built, and passes its gate, once."""
    folder, ready = _folder(tmp_path_factory), set()

    def build(name: str, **options: Any) -> Path:
        path = folder / f"{'_'.join([name, *options])}.engine"
        if path not in ready:  # An engine of an earlier run is reused if it is up to date.
            profile = PROFILE if name == "dynamic" else None
            wanted = BuildOptions(profile=profile, timing_cache=timing_cache, **options)
            request = EngineRequest(wanted, command="build it again")
            write_engine(target, source_from_onnx(graph(name)), path, request)
            ready.add(path)
        return path

    return build


@pytest.fixture
def clip() -> list[np.ndarray[Any, Any]]:
    """Twelve different frames."""
    return [moving_frames(*SIZE, 6.0, seed=k)[k % 2] for k in range(12)]


def assert_same(made: Any, expected: Any) -> None:
    made, expected = list(made), list(expected)
    assert len(made) == len(expected)
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def call_inputs(info: Any, size: tuple[int, int] = SIZE) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays for all inputs of one call of a model."""
    if info.io == "float":
        assert info.size is not None
        size = info.size
    img0, img1 = images_for(info, *moving_frames(*size, 8.0), rows=info.frames_per_call)
    count = info.frames_per_call
    steps = np.arange(1, count + 1, dtype=np.float32) / np.float32(count + 1)
    return {"img0": img0, "img1": img1, "timestep": steps.reshape(-1, 1, 1, 1)}


def call(backend: Backend, inputs: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """The result of one call through the runtime of this project."""
    pairs = [
        (backend.put(img0[None]), backend.put(img1[None]))
        for img0, img1 in zip(inputs["img0"], inputs["img1"], strict=True)
    ]
    waits = [backend.download(image) for image in backend.submit(pairs, inputs["timestep"])]
    return np.concatenate([wait() for wait in waits])


# Build and gate


@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "tiny"])
def test_every_kind_of_engine_builds_and_passes_its_gate(target, built, name, record_property):
    manifest = EngineManifest.read(built(name))
    gate, build = manifest.gate, manifest.engine
    record_property("psnr_db", gate.psnr_db)
    assert gate.required_db == REQUIRED_DB_OF_ENGINES[manifest.model.precision]
    assert gate.psnr_db is None or gate.psnr_db >= gate.required_db
    assert len(gate.cases) == (6 if name == "dynamic" else 2)
    assert build.tensorrt == target.trt.__version__
    assert build.gpu == target.gpu.name
    assert build.fallback is None
    assert build.device_memory_bytes > 0


def test_the_inspector_proves_the_float32_islands(target, built, graph, record_property):
    """Builds of 8.6 set the type of every layer; later builders cannot change any type."""
    types = tensor_types(onnx.load(graph("fp16")))
    with open_backend(built("fp16"), OpenOptions()) as backend:
        seen, missed = missed_types(parse_layers(backend.engine.layers()), types)
    record_property("float32_tensors_seen", seen)
    assert missed == []
    if target.trt.__version__.startswith("8."):
        assert seen > 0
        assert EngineManifest.read(built("fp16")).engine.float32_tensors_seen == seen


def test_a_portable_engine_builds_and_runs(built, graph, record_property):
    path = built("fp16", portable=True)
    build = EngineManifest.read(path).engine
    record_property("portable_slowdown", build.portable_slowdown)
    assert build.portable
    assert build.portable_slowdown > 0
    frames = moving_frames(*SIZE, 6.0)
    with Interpolator.open(path) as vfi, Interpolator.open(graph("fp32")) as plain:
        assert psnr(plain.interpolate(*frames), vfi.interpolate(*frames)) >= 50


def test_the_timing_cache_survives_and_serves(target, graph, tmp_path, record_property):
    cache, model = tmp_path / "timing.cache", onnx.load(graph("tiny"))
    seconds = []
    for _ in range(2):
        made = engine_from_onnx(target.trt, model, BuildOptions(timing_cache=cache))
        seconds.append(made.seconds)
        assert made.notes == []
        payload, problem = trt_cache.read_timing_cache(cache)
        assert payload
        assert problem is None
    record_property("seconds", seconds)
    cache.write_bytes(cache.read_bytes()[:-1])
    damaged = engine_from_onnx(target.trt, model, BuildOptions(timing_cache=cache))
    assert ["is damaged" in note for note in damaged.notes] == [True]
    assert trt_cache.read_timing_cache(cache)[1] is None


def test_an_engine_that_samples_nearest_is_refused_and_recognised(
    target, graph, tmp_path, timing_cache, monkeypatch
):
    def faulty(model, names):
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        nearest_sampling(changed)
        return changed

    monkeypatch.setattr("export.trt.attempts.rewritten_for_tensorrt", faulty)
    path = tmp_path / "faulty.engine"
    request = EngineRequest(BuildOptions(timing_cache=timing_cache))
    with pytest.raises(GateError, match="it looks like nearest sampling"):
        write_engine(target, source_from_onnx(graph("fp16")), path, request)
    assert not path.exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tensorrt": "8.5.3"}, r"was built with TensorRT 8\.5\.3, here is"),
        ({"gpu": "NVIDIA Other"}, r"was built for NVIDIA Other \(.*, here is"),
        ({"compute_capability": "5.3"}, r"\(5\.3\), here is"),
    ],
)
def test_an_engine_of_another_machine_is_refused(built, tmp_path, values, message):
    path, original = tmp_path / "moved.engine", built("tiny")
    path.write_bytes(original.read_bytes())
    manifest = json.loads(manifest_path(original).read_text())
    manifest["engine"].update({"command": "build it again", **values})
    manifest_path(path).write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=message) as error:
        Interpolator.open(path)
    assert "build it here with build it again" in str(error.value)


# Results


def psnr(expected: np.ndarray[Any, Any], made: np.ndarray[Any, Any]) -> float:
    one, other = (frame.astype(np.float32) / np.float32(255) for frame in (expected, made))
    return compare(one, other)[0]


@pytest.fixture(scope="session")
def polygraphy(target: Target) -> Callable[..., np.ndarray[Any, Any]]:
    """Runs one inference of an engine with Polygraphy's own runtime."""
    try:
        trt = importlib.import_module("polygraphy.backend.trt")
        cuda = importlib.import_module("polygraphy.cuda")
    except ImportError as error:
        unavailable(f"Polygraphy cannot be used: {error}")
    try:
        load_libcudart(cuda.wrapper)
    except OSError as error:
        # Only Polygraphy needs libcudart; a machine with a GPU may lack it.
        pytest.skip(
            f"Polygraphy finds no libcudart ({error}): install nvidia-cuda-runtime-cu12 or name "
            "the folder that holds it in LD_LIBRARY_PATH"
        )

    def infer(path: Path, inputs: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        with trt.TrtRunner(trt.EngineFromBytes(path.read_bytes())) as runner:
            made: np.ndarray[Any, Any] = runner.infer(inputs)["imgt"].copy()
        return made

    return infer


@pytest.mark.parametrize(
    "name", ["fp16", "fp32", "float", "three", "batch", "free_pairs", "dynamic"]
)
def test_our_runtime_equals_polygraphys_bit_for_bit(built, polygraphy, name):
    path = built(name)
    inputs = call_inputs(EngineManifest.read(path).model)
    expected = polygraphy(path, inputs)
    for options in ({}, {"cuda_graph": False}, {"streams": 2}):
        with open_backend(path, OpenOptions(**options)) as backend:
            # The first call runs directly, the second records a CUDA graph, the third replays it.
            # With two streams each of the first two calls uses another context.
            for _ in range(6):
                np.testing.assert_array_equal(call(backend, inputs), expected)


@pytest.mark.parametrize("options", [{}, {"cuda_graph": False}, {"streams": 3}])
@pytest.mark.parametrize(("name", "factor"), [("fp16", 2), ("fp16", 4), ("three", 4), ("batch", 4)])
def test_a_stream_equals_its_pairs(built, clip, name, factor, options):
    with Interpolator.open(built(name), cuda_graph=False) as vfi:
        steps = vfi.steps_for_factor(factor)
        expected = [clip[0]]
        for pair in itertools.pairwise(clip):
            expected += [*vfi.interpolate(*pair, timesteps=steps), pair[1]]
    with Interpolator.open(built(name), **options) as vfi:
        assert_same(vfi.stream(clip, factor=factor), expected)
        assert_same(vfi.stream(clip, factor=factor), expected)


@pytest.mark.parametrize(("name", "required"), [("fp16", 50), ("fp32", 70), ("three", 50)])
@pytest.mark.parametrize("motion", [2.0, 19.0])
def test_frames_are_those_of_onnx_runtime_in_float32(
    built, graph, name, required, motion, record_property
):
    frames = moving_frames(*SIZE, motion, seed=1)
    with Interpolator.open(graph("fp32")) as plain:
        expected = plain.interpolate(*frames, timesteps=THREE)
    with Interpolator.open(built(name)) as vfi:
        made = vfi.interpolate(*frames, timesteps=THREE)
    found = [psnr(*pair) for pair in zip(expected, made, strict=True)]
    record_property("psnr_db", found)
    assert min(found) >= required


def test_a_dynamic_engine_takes_every_size_of_its_profile(built, graph):
    with Interpolator.open(built("dynamic")) as vfi, Interpolator.open(graph("dynamic")) as plain:
        for size in (PROFILE.min, (99, 131), PROFILE.max, SIZE):
            frames = moving_frames(*size, 6.0)
            assert psnr(plain.interpolate(*frames), vfi.interpolate(*frames)) >= 50


# Frames on the GPU


class OnDevice:
    """A frame in its own GPU memory, like an array of another library."""

    def __init__(self, cuda: Cuda, frame: np.ndarray[Any, Any], stream: Stream) -> None:
        self._memory, self._pinned = BufferPool(cuda, pinned=False), BufferPool(cuda, pinned=True)
        self._source, there = (p.take(frame.nbytes) for p in (self._pinned, self._memory))
        self._there, self.pointer = there, there.pointer
        np.copyto(host_view(self._source, frame.shape, frame.dtype), frame)
        cuda.copy(stream, self.pointer, self._source.pointer, frame.nbytes, "HostToDevice")
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": frame.shape,
            "typestr": frame.dtype.str,
            "data": (self.pointer, False),
            "stream": int(stream.handle),
        }

    def free(self) -> None:
        """Frees the memory; call it when all work with the frame is done."""
        for pool, buffer in ((self._memory, self._there), (self._pinned, self._source)):
            pool.give_back(buffer)
            pool.close()


def downloaded(cuda: Cuda, frame: Any, stream: Stream) -> np.ndarray[Any, Any]:
    """The content of a device frame after all work of `stream`."""
    pool = BufferPool(cuda, pinned=True)
    buffer = pool.take(frame.nbytes)
    cuda.copy(stream, buffer.pointer, frame.pointer, frame.nbytes, "DeviceToHost")
    stream.synchronize()
    made = host_view(buffer, frame.shape, frame.dtype).copy()
    pool.give_back(buffer)
    pool.close()
    return made


@pytest.mark.parametrize("name", ["fp16", "three", "dynamic"])
def test_frames_on_the_gpu_give_what_frames_on_the_host_give(target, built, clip, name):
    cuda = Cuda(0)
    own, other = Stream(cuda), Stream(cuda)
    with Interpolator.open(built(name), streams=2) as vfi:
        expected = vfi.interpolate(*clip[:2], timesteps=THREE)
        given = [OnDevice(cuda, frame, own) for frame in clip[:2]]
        for _ in range(3):
            made = vfi.interpolate_on_device(*given, timesteps=THREE, stream=int(own.handle))
            assert_same((downloaded(cuda, frame, own) for frame in made), expected)
        # Uploaded on one stream, used on another: the array interface names the first.
        made = vfi.interpolate_on_device(*given, timesteps=THREE, stream=int(other.handle))
        assert_same((downloaded(cuda, frame, other) for frame in made), expected)
    # The frames outlive the model.
    assert_same((downloaded(cuda, frame, other) for frame in made), expected)
    del made
    for frame in given:
        frame.free()
    for stream in (own, other):
        stream.close()


def test_arrays_of_torch_go_in_and_come_out(target, built, clip):
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        pytest.skip("this Python has no PyTorch: the protocols are tested with our own arrays")
    if not torch.cuda.is_available():
        pytest.skip("this Python's PyTorch has no CUDA")
    with Interpolator.open(built("fp16")) as vfi:
        expected = vfi.interpolate(*clip[:2], timesteps=THREE)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            given = [torch.from_numpy(frame).cuda(non_blocking=True) for frame in clip[:2]]
            frames = vfi.interpolate_on_device(*given, timesteps=THREE, stream=stream.cuda_stream)
            by_dlpack = [torch.from_dlpack(frame).clone() for frame in frames]
            by_interface = [torch.as_tensor(frame, device="cuda").clone() for frame in frames]
        stream.synchronize()
        for made in (by_dlpack, by_interface):
            assert_same((tensor.cpu().numpy() for tensor in made), expected)
        again = vfi.interpolate_on_device(*(_DLPackOnly(t) for t in given), timesteps=THREE)
        torch.cuda.synchronize()
        assert_same((torch.from_dlpack(frame).cpu().numpy() for frame in again), expected)


class _DLPackOnly:
    """A tensor without its `__cuda_array_interface__`."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def __dlpack__(self, **asked: Any) -> Any:
        return self._tensor.__dlpack__(**asked)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


# Leaks


def memory_used(cuda: Cuda) -> tuple[int, int]:
    """Bytes in use: of the GPU by all processes, of the host by this process."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    free, total = cuda.call("cudaMemGetInfo")
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return total - free, pages * resource.getpagesize()


@contextlib.contextmanager
def no_growth(record: Callable[[str, object], None]) -> Iterator[None]:
    cuda = Cuda(0)
    before = memory_used(cuda)
    yield
    gpu, host = (now - then for now, then in zip(memory_used(cuda), before, strict=True))
    record("growth_mib", {"gpu": gpu / 2**20, "host": host / 2**20})
    assert gpu <= GPU_GROWTH
    assert host <= RSS_GROWTH


def test_opening_and_closing_leaks_nothing(target, built, record_property):
    path, frames = built("tiny"), moving_frames(32, 32, 2.0)

    def open_and_close() -> None:
        with Interpolator.open(path) as vfi:
            for _ in range(3):  # The third replays a CUDA graph.
                vfi.interpolate(*frames)

    for _ in range(min(50, OPENINGS)):
        open_and_close()
    record_property("openings", OPENINGS)
    with no_growth(record_property):
        for _ in range(OPENINGS):
            open_and_close()


def test_inferences_leak_nothing(target, built, record_property):
    frames = moving_frames(32, 32, 2.0)
    cuda = Cuda(0)
    record_property("inferences", INFERENCES)
    with Interpolator.open(built("tiny"), streams=2) as vfi:
        stream = Stream(cuda)
        given = [OnDevice(cuda, frame, stream) for frame in frames]

        def work(count: int) -> None:
            for number in range(count):
                if number % 3:
                    vfi.interpolate(*frames, timesteps=(0.5, (number % 50 + 1) / 52))
                else:
                    vfi.interpolate_on_device(*given, stream=int(stream.handle))
            for _ in vfi.stream(itertools.islice(itertools.cycle(frames), count // 10), factor=2):
                pass
            stream.synchronize()

        work(min(300, INFERENCES))
        with no_growth(record_property):
            work(INFERENCES)
        for frame in given:
            frame.free()
        stream.close()
