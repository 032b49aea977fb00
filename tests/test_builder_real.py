"""The real parser and builder of TensorRT 11, on a CPU: `make test-builder`.

tools/builder_on_cpu explains how they work without a GPU. The engines are built but not run.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper

from bench.runs.authors import random_network
from export.errors import ExportError
from export.from_checkpoint import source_from_checkpoint
from export.graph import passes
from export.graph.for_tensorrt import REWRITES, rewritten_for_tensorrt
from export.progress import Phases
from export.trt import build as trt_build
from export.trt import cache
from export.trt.build import BuildOptions, Profile, SerialisedEngine, engine_from_onnx
from export.trt.versions import generation_of
from export.wrapper import ExportOptions
from runtime.backends.trt.engine import logger_for
from runtime.model_info import INPUTS, LAYOUTS, OUTPUT

pytestmark = pytest.mark.builder

SIZE = {"height": 64, "width": 96}
FREE_SIZES = BuildOptions(profile=Profile(min=(32, 64), opt=(64, 96), max=(128, 160)))

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    # The slowest first: two are exported at a time.
    "small, dynamic": ("small", {"dynamic": True}),
    "base, dynamic, float, fp16": ("base", {"dynamic": True, "io": "float", "precision": "fp16"}),
    "small": ("small", {"height": 50, "width": 70}),
    "small, fp16, 3 steps": ("small", {"precision": "fp16", "timesteps": 3}),
    "base, float, batch": ("base", {"io": "float", "batch": 2}),
    "small, fp16, free pairs": ("small", {"precision": "fp16", "max_batch": 4}),
    "base, fp16, gather": ("base", {"precision": "fp16", "warp": "gather"}),
    "large, gather, float": ("large", {"warp": "gather", "io": "float"}),
    "large, fp16": ("large", {"precision": "fp16", "height": 50, "width": 70}),
}
DYNAMIC = [name for name, (_, options) in CASES.items() if options.get("dynamic")]
WITH_GRID_SAMPLE = [name for name, (_, options) in CASES.items() if "warp" not in options]


def free_axes(case: str) -> BuildOptions:
    """The build options for the free axes of the graph of a case."""
    if case in DYNAMIC:
        return FREE_SIZES
    return BuildOptions(max_pairs=CASES[case][1].get("max_batch"))


def exported(variant: str, options: dict[str, Any]) -> bytes:
    """The plain graph of a network with random weights."""
    torch.set_num_threads(1)  # Two processes export at a time.
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / f"{variant}.pth"
        torch.save(random_network(variant).state_dict(), weights)
        source = source_from_checkpoint(weights, ExportOptions(**{**SIZE, **options}))
    return source.model.SerializeToString()


@pytest.fixture(scope="session")
def plain() -> Iterator[Callable[[str], ModelProto]]:
    """Returns the plain graph of a case."""
    # Exports take longest; PyTorch cannot run two of them in one process.
    pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    made: dict[str, Future[bytes]] = {n: pool.submit(exported, *case) for n, case in CASES.items()}
    yield lambda name: onnx.load_model_from_string(made[name].result())
    pool.shutdown(cancel_futures=True)


class Device:
    """Replaces `Cuda`: this builder needs no device.

    Attributes:
        users: Number of threads that are using a device now.
    """

    users = 0

    def __init__(self, index: int) -> None:
        self.index = index

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        Device.users += 1
        try:
            yield
        finally:
            Device.users -= 1


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """TensorRT 11. Do not create a `Runtime`: there is no GPU."""
    monkeypatch.setattr(trt_build, "Cuda", Device)
    monkeypatch.setattr(Device, "users", 0)
    trt = importlib.import_module("tensorrt")
    # Polygraphy reads this. In TensorRT-RTX it is another function; here no tensor is one.
    monkeypatch.setattr(trt.ITensor, "is_shape_tensor", False)
    return trt


class Parsed(NamedTuple):
    """A parsed network, the parser's errors, and the objects that must outlive the network."""

    network: Any
    errors: list[str]
    owners: tuple[Any, ...]

    def layers(self, *kinds: str) -> list[Any]:
        """Layers of these types (names of `LayerType`), or all layers if none is given."""
        every = [self.network.get_layer(k) for k in range(self.network.num_layers)]
        return [layer for layer in every if not kinds or layer.type.name in kinds]

    def types(self, *kinds: str) -> set[str]:
        """Types of the first input and the first output of layers of these types."""
        layers = self.layers(*kinds)
        assert layers
        return {t.dtype.name for layer in layers for t in (layer.get_input(0), layer.get_output(0))}


def parsed(trt: Any, model: ModelProto) -> Parsed:
    log = logger_for(trt)
    builder = trt.Builder(log)
    network = generation_of(trt).create_network(builder)
    parser = trt.OnnxParser(network, log)
    assert parser.parse(model.SerializeToString()), log.take_errors()
    return Parsed(network, log.take_errors(), (log, builder, parser))


class Recorder(Phases):
    """Phases that record every report; `at_step` is called with the number of steps so far."""

    at_step: Callable[[Phases, int], None] | None = None
    told: list[tuple[str, str, Any]]
    threads: set[str]

    def phase(self, name: str, parent: str | None, steps: int) -> None:
        self._tell("phase", name, (parent, steps))
        super().phase(name, parent, steps)

    def step(self, name: str, step: int) -> None:
        self._tell("step", name, step)
        super().step(name, step)
        if Recorder.at_step:
            Recorder.at_step(self, sum(kind == "step" for kind, *_ in self.told))

    def finished(self, name: str) -> None:
        self._tell("finished", name, None)
        super().finished(name)

    def _tell(self, kind: str, name: str, value: Any) -> None:
        self.told.append((kind, name, value))
        self.threads.add(threading.current_thread().name)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setattr("export.progress.Phases", Recorder)
    monkeypatch.setattr(Recorder, "told", [], raising=False)
    monkeypatch.setattr(Recorder, "threads", set(), raising=False)
    monkeypatch.setattr(Recorder, "at_step", None)
    return Recorder


def test_tensorrt_11_is_the_strongly_typed_generation(trt):
    assert trt.__version__.startswith("11.")
    generation = generation_of(trt)
    assert type(generation).__module__ == "export.trt.strongly_typed"
    assert generation.can_be_cancelled
    log = logger_for(trt)
    # Do not read its flags: in TensorRT-RTX that is another function.
    assert generation.create_network(trt.Builder(log)).num_layers == 0
    assert log.take_errors() == []


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_graph_builds(trt, plain, case):
    built = engine_from_onnx(trt, plain(case), free_axes(case))
    assert len(built.plan) > 1_000_000  # The weights alone take more.
    assert built.notes == []


@pytest.mark.parametrize("case", DYNAMIC)
def test_a_graph_of_free_size_builds_with_a_fixed_size(trt, plain, case):
    io = CASES[case][1].get("io", "frames")
    fixed = passes.with_size(plain(case), 64, 80, axes=LAYOUTS[io].size_axes)
    assert engine_from_onnx(trt, fixed, BuildOptions()).plan


@pytest.mark.parametrize("case", ["small", "base, dynamic, float, fp16"])
@pytest.mark.parametrize("rewrites", [*([name] for name in REWRITES), list(REWRITES)], ids="+".join)
def test_rewritten_graphs_parse(trt, plain, case, rewrites):
    network = parsed(trt, rewritten_for_tensorrt(plain(case), rewrites))
    assert network.errors == []
    half = "fp16" in case
    assert network.types("CONVOLUTION") == {"HALF" if half else "FLOAT"}


@pytest.mark.parametrize("case", ["small, fp16, 3 steps", "small, dynamic"])
def test_all_rewrites_together_build(trt, plain, case):
    model = rewritten_for_tensorrt(plain(case), list(REWRITES))
    assert engine_from_onnx(trt, model, free_axes(case)).plan


@pytest.mark.parametrize("case", CASES)
def test_inputs_and_outputs_have_the_types_and_names_that_the_runtime_expects(trt, plain, case):
    network = parsed(trt, plain(case)).network
    inputs = [network.get_input(k) for k in range(network.num_inputs)]
    (output,) = (network.get_output(k) for k in range(network.num_outputs))
    sample = trt.DataType.FLOAT if "float" in case else trt.DataType.UINT8
    kinds = {tensor.name: tensor.dtype for tensor in (*inputs, output)}
    assert kinds == dict.fromkeys((*INPUTS, OUTPUT), sample) | {"timestep": trt.DataType.FLOAT}
    free = [axis for axis, n in enumerate(inputs[0].shape) if n == -1]
    sizes = list(LAYOUTS["float" if "float" in case else "frames"].size_axes)
    assert free == (sizes if case in DYNAMIC else [0] if "free pairs" in case else [])


@pytest.mark.parametrize("case", WITH_GRID_SAMPLE)
def test_warps_are_bilinear_with_borders_repeated_in_float32(trt, plain, case):
    warps = parsed(trt, plain(case))
    layers = warps.layers("GRID_SAMPLE")
    assert len(layers) == 4
    for layer in layers:
        layer.__class__ = trt.IGridSampleLayer  # How the Python API casts.
        assert layer.interpolation_mode == trt.InterpolationMode.LINEAR
        assert layer.sample_mode == trt.SampleMode.CLAMP
        assert layer.align_corners
        tensors = [*map(layer.get_input, range(layer.num_inputs)), layer.get_output(0)]
        assert [tensor.dtype for tensor in tensors] == [trt.DataType.FLOAT] * 3


@pytest.mark.parametrize("case", CASES)
def test_convolutions_have_the_precision_of_the_export(trt, plain, case):
    kind = "HALF" if "fp16" in case else "FLOAT"
    network = parsed(trt, plain(case))
    for layers in ("CONVOLUTION", "DECONVOLUTION", "PARAMETRIC_RELU"):
        assert network.types(layers) == {kind}, layers


def test_build_options_reach_the_builder_configuration(trt, plain):
    log = logger_for(trt)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    options = BuildOptions(optimization_level=1, workspace_mib=64, portable=True)
    config = trt_build._config(trt, builder, network, options, {})
    assert config.builder_optimization_level == 1
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 64 << 20
    assert not config.get_flag(trt.BuilderFlag.TF32)
    assert config.get_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    assert config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
    assert log.take_errors() == []


@pytest.mark.parametrize("level", [0, 5])
def test_optimisation_levels_and_workspace_sizes_build(trt, plain, level):
    options = BuildOptions(optimization_level=level, workspace_mib=256)
    assert engine_from_onnx(trt, plain("small"), options).plan


@pytest.mark.parametrize("case", ["small", "small, dynamic"])
def test_progress_increases_and_every_phase_ends(trt, plain, recorder, case):
    engine_from_onnx(trt, plain(case), free_axes(case))
    steps: dict[str, int] = {}
    now: dict[str, int] = {}  # Last step of each open phase.
    for kind, name, value in recorder.told:
        if kind == "phase":
            parent, steps[name] = value
            assert name not in now  # `Phases` identifies phases by name.
            assert parent is None or parent in now
            now[name] = -1
        elif kind == "step":
            assert now[name] < value < steps[name]
            now[name] = value
        else:
            del now[name]
    assert now == {}
    assert len(steps) > 3
    assert recorder.threads == {"TensorRT build"}


def test_a_cancelled_build_gives_no_engine(trt, plain, recorder):
    def cancel(phases: Phases, steps: int) -> None:
        phases.cancelled = steps >= 5

    recorder.at_step = staticmethod(cancel)
    with pytest.raises(ExportError, match=r"could not build the engine .*cancel"):
        engine_from_onnx(trt, plain("small"), BuildOptions())
    assert sum(kind == "step" for kind, *_ in recorder.told) == 5


def test_ctrl_c_stops_the_build_and_waits_for_its_end(trt, plain, recorder):
    def press_ctrl_c(phases: Phases, steps: int) -> None:
        if steps == 5:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            deadline = time.monotonic() + 60
            while not phases.cancelled and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1)  # The step is still running, and nothing may be freed.

    recorder.at_step = staticmethod(press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        engine_from_onnx(trt, plain("small"), BuildOptions())
    assert Device.users == 0
    assert "TensorRT build" not in [thread.name for thread in threading.enumerate()]
    assert sum(kind == "step" for kind, *_ in recorder.told) == 5


def test_an_engine_builds_after_a_cancelled_one(trt, plain, recorder):
    recorder.at_step = staticmethod(lambda phases, _: setattr(phases, "cancelled", True))
    with pytest.raises(ExportError):
        engine_from_onnx(trt, plain("small"), BuildOptions())
    recorder.at_step = None
    assert engine_from_onnx(trt, plain("small"), BuildOptions()).plan


def test_the_timing_cache_is_stored_in_a_file_and_replaced_if_damaged(trt, plain, tmp_path):
    options = BuildOptions(timing_cache=tmp_path / "caches" / "timing.cache")
    build: Callable[[], SerialisedEngine] = partial(engine_from_onnx, trt, plain("small"), options)
    file = options.timing_cache
    contents = []
    for _ in range(2):
        assert build().notes == []
        payload, problem = cache.read_timing_cache(file)
        assert problem is None
        contents.append(payload)
    assert contents[0]
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    (note,) = build().notes
    assert "damaged: starting a new one" in note
    assert cache.read_timing_cache(file) == (contents[0], None)


def test_an_unsupported_operator_is_named(trt, plain):
    model = plain("small")
    layer = next(node for node in model.graph.node if node.op_type == "PRelu")
    assert layer.name
    sampled = helper.make_node("Bernoulli", [layer.input[0]], ["noise"], name="network/Bernoulli")
    model.graph.node.append(sampled)
    model.graph.output.append(helper.make_tensor_value_info("noise", TensorProto.FLOAT, None))
    with pytest.raises(ExportError, match=r"cannot parse the graph \(node network/Bernoulli:"):
        engine_from_onnx(trt, model, BuildOptions())


def test_an_error_of_the_builder_is_in_the_message(trt, plain):
    # TensorRT-RTX has no lean runtime to put into a portable plan.
    with pytest.raises(ExportError, match=r"could not build the engine .*libnvinfer_lean"):
        engine_from_onnx(trt, plain("small"), BuildOptions(portable=True))
