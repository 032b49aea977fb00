"""Engines from ONNX files and checkpoints, over fakes of three generations of TensorRT."""

import dataclasses
import json
import os
import signal
import threading
import time
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from export import build_engine
from export.errors import ExportError, GateError
from export.gate import diagnosis
from export.gate.gate import REQUIRED_DB_OF_ENGINES
from export.graph import passes
from export.progress import Stages
from export.source import source_from_model
from export.trt import cache as trt_cache
from export.trt.build import BuildOptions, Profile, engine_from_onnx, tensor_types
from export.trt.engine import (
    EngineRequest,
    fallback_to_float32,
    fixed_size,
    target_at,
    write_engine,
)
from export.trt.inspector import missed_types, parse_layers
from export.trt.versions import generation_of
from export.trt.weakly_typed import Layer, layer_types
from runtime import Interpolator
from runtime.manifest import EngineManifest, manifest_path

HALF, FLOAT, INT = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.INT64


def write(source, path, *, force=False, fallbacks=(), notes=None, **options):
    stages = Stages.silent()
    if notes is not None:
        stages.note = notes.append
    request = EngineRequest(BuildOptions(**options), command="build it again")
    return write_engine(
        target_at(0), source, path, request, force=force, fallbacks=fallbacks, stages=stages
    )


def command(*arguments):
    with pytest.raises(SystemExit) as ended:
        build_engine.main([str(argument) for argument in arguments])
    return ended.value.code


@pytest.fixture
def onnx_file(tmp_path, sources):
    def saved(name="frames"):
        path = tmp_path / f"{name}.onnx"
        onnx.save(sources[name].model, path)
        return path

    return saved


# Builds


def test_the_manifest_has_everything_that_the_engine_depends_on(trt, sources, tmp_path):
    path = tmp_path / "m.engine"
    write(sources["fp16"], path, optimization_level=5, workspace_mib=64)
    manifest = EngineManifest.read(path)
    build = manifest.engine
    assert manifest.backend == "tensorrt"
    assert manifest.onnx_sha256 == sources["fp16"].onnx_sha256
    assert (build.tensorrt, build.gpu) == (trt.__version__, "NVIDIA GeForce RTX 4090")
    assert build.flags["optimization_level"] == 5
    assert build.flags["workspace_mib"] == 64
    assert build.key == trt_cache.dependency_hash(build.depends_on)
    assert build.command == "build it again"
    assert build.fallback is None
    assert build.device_memory_bytes > 0
    assert manifest.gate.required_db == REQUIRED_DB_OF_ENGINES["fp16"] == 50
    assert [case["motion_px"] for case in manifest.gate.cases] == [2.0, 7.0]
    # Bytes differ by a few levels of 255 at most.
    assert max(case["max_difference"] for case in manifest.gate.cases) < 0.02
    _, config = trt.builds[-1]
    assert config.builder_optimization_level == 5
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 64 << 20
    assert not config.get_flag(trt.BuilderFlag.TF32)


def test_a_free_number_of_pairs_becomes_the_profile_and_passes_the_gate(trt, sources, tmp_path):
    path = tmp_path / "m.engine"
    write(sources["free pairs"], path)
    manifest = EngineManifest.read(path)
    assert manifest.model.max_pairs == 3
    assert {case["motion_px"] for case in manifest.gate.cases} == {2.0, 7.0}
    (profile,) = trt.builds[-1][1]._profiles
    assert [tuple(shape) for shape in profile.get_shape("img0")] == [
        (pairs, 50, 70, 3) for pairs in (1, 3, 3)
    ]
    assert [shape[0] for shape in profile.get_shape("timestep")] == [1, 3, 3]


def test_islands_stay_float32_in_weakly_typed_engines(sources, tmp_path, monkeypatch):
    import gpu_fakes

    with gpu_fakes.machine("8.6.0", monkeypatch) as trt:
        manifest = write(sources["fp16"], tmp_path / "m.engine")
        network, config = trt.builds[-1]
        assert config.get_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        layers = [network.get_layer(k) for k in range(network.num_layers)]
        sampling = [layer for layer in layers if layer.type == trt.LayerType.GRID_SAMPLE]
        convolutions = [layer for layer in layers if layer.type == trt.LayerType.CONVOLUTION]
        assert len(sampling) == 4
        assert all(layer.precision == trt.float32 for layer in sampling)
        assert len(convolutions) > 30
        assert all(layer.precision == trt.float16 for layer in convolutions)
        assert manifest.engine.float32_tensors_seen > 20


def test_an_engine_without_its_float32_islands_is_refused(sources, tmp_path, monkeypatch):
    import gpu_fakes

    with gpu_fakes.machine("8.6.0", monkeypatch):
        # No layer has a type, so the builder may choose.
        monkeypatch.setattr(
            "export.trt.weakly_typed.layer_types",
            lambda layers, _: dict.fromkeys((layer.name for layer in layers), (None, [])),
        )
        with pytest.raises(ExportError, match=r"float32 tensors in float16|has a PSNR of"):
            write(sources["fp16"], tmp_path / "m.engine")
    assert list(tmp_path.iterdir()) == []


def test_networks_are_strongly_typed_from_tensorrt_10_on(trt, sources):
    options = BuildOptions()
    engine_from_onnx(trt, sources["fp16"].model, options)
    network, config = trt.builds[-1]
    if trt.__version__.startswith("8"):
        assert config.get_flag(trt.BuilderFlag.FP16)
    else:
        assert network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        assert not hasattr(trt.BuilderFlag, "FP16") or not config.get_flag(trt.BuilderFlag.FP16)


@pytest.mark.parametrize("version", ["7.2.3", "8.5.3", "9.3.0", "12.0.1"])
def test_unknown_versions_are_refused_with_their_number(version):
    class Module:
        __version__ = version

    with pytest.raises(ExportError, match=rf"TensorRT {version} is installed, this version"):
        generation_of(Module)


def test_a_profile_reaches_the_builder_and_the_manifest(trt, sources, tmp_path):
    path = tmp_path / "m.engine"
    profile = Profile((32, 32), (64, 80), (96, 112))
    manifest = write(sources["dynamic"], path, profile=profile)
    assert manifest.engine.profile == {"min": [32, 32], "opt": [64, 80], "max": [96, 112]}
    assert {case["size"] for case in manifest.gate.cases} == {"32x32", "64x80", "96x112"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dynamic", {}, "leaves sizes free: give --min, --opt and --max, or --size"),
        ("frames", {"profile": Profile((32, 32), (32, 32), (32, 32))}, "has a fixed size"),
    ],
)
def test_a_profile_must_fit_the_graph(trt10, sources, tmp_path, name, options, message):
    with pytest.raises(ExportError, match=message):
        write(sources[name], tmp_path / "m.engine", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Profile((64, 64), (32, 64), (96, 96)), r"--min 64x64, --opt 32x64.*min <= opt"),
        (lambda: BuildOptions(optimization_level=6), "optimization-level is 6: use 0 to 5"),
        (lambda: BuildOptions(workspace_mib=0), "workspace is 0 MiB: use 1 or more"),
    ],
)
def test_invalid_options_are_refused(make, message):
    with pytest.raises(ExportError, match=message):
        make()


def test_a_file_of_free_size_can_get_a_fixed_size(trt10, sources, tmp_path):
    fixed = fixed_size(sources["dynamic"], (48, 100))
    assert fixed.info.size == (48, 100)
    manifest = write(fixed, tmp_path / "m.engine")
    assert manifest.model.size == (48, 100)
    assert manifest.engine.profile is None
    with pytest.raises(ExportError, match="the fixed size 50x70: leave out --size"):
        fixed_size(sources["frames"], (48, 100))


def test_a_portable_engine_is_compared_with_one_for_this_gpu(trt10, sources, tmp_path):
    notes = []
    manifest = write(sources["frames"], tmp_path / "m.engine", portable=True, notes=notes)
    assert manifest.engine.portable
    assert manifest.engine.portable_slowdown > 0
    assert any("times as long as an engine for this GPU only" in note for note in notes)
    (portable, own) = (config for _, config in trt10.builds[-2:])
    assert portable.get_flag(trt10.BuilderFlag.VERSION_COMPATIBLE)
    assert not own.get_flag(trt10.BuilderFlag.VERSION_COMPATIBLE)


def test_an_engine_can_be_built_and_run_on_the_second_gpu(sources, tmp_path, monkeypatch, frames):
    import gpu_fakes

    with gpu_fakes.machine("10.3.0", monkeypatch, devices=2):
        twice = gpu_fakes.GpuDriver([gpu_fakes.GPU, gpu_fakes.GPU], "13.0")
        for module in ("runtime.backends.trt.engine", "export.trt.engine"):
            monkeypatch.setattr(f"{module}.gpu_driver", lambda: twice)
        path = tmp_path / "m.engine"
        request = EngineRequest(BuildOptions(device=1))
        write_engine(target_at(1), sources["frames"], path, request)
        with Interpolator.open(path, device="cuda:1") as vfi:
            assert vfi.backend.endswith("cuda:1")
            vfi.interpolate(*frames)


# Errors


def test_an_unknown_operator_is_named_with_its_node(trt, sources, tmp_path):
    trt.unsupported_operators = {"GridSample"}
    with pytest.raises(ExportError, match=r"cannot parse the graph \(node .*--warp gather") as e:
        write(sources["frames"], tmp_path / "m.engine")
    node = next(n for n in sources["frames"].model.graph.node if n.op_type == "GridSample")
    index = list(sources["frames"].model.graph.node).index(node)
    shown = f"number {index}" if trt.__version__.startswith("8") else node.name
    assert f"node {shown}:" in str(e.value)


def test_the_message_of_the_builder_is_in_the_error(trt, sources, tmp_path):
    trt.fail_build = "Could not find any implementation for node {ForeignNode[x]}"
    with pytest.raises(ExportError, match=r"Could not find any implementation for node \{Foreign"):
        write(sources["frames"], tmp_path / "m.engine")
    assert list(tmp_path.iterdir()) == []


FAULTS = {
    "nearest sampling": diagnosis.nearest_sampling,
    "coordinates in float16": diagnosis.float16_coordinates,
    "a grid shifted by half a pixel": diagnosis.shifted_grid,
}


def sabotaged(inject):
    def change(model):
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        inject(changed)
        return changed

    return change


def swap_colours(model):
    """Reverses the channels of the output."""
    (output,) = model.graph.output
    last = model.graph.node[-1]
    last.output[0] = "unswapped"
    axis = len(output.type.tensor_type.shape.dim) - 1
    order = onnx.numpy_helper.from_array(np.array([2, 1, 0]), "swap_order")
    model.graph.initializer.append(order)
    swap = onnx.helper.make_node("Gather", ["unswapped", "swap_order"], ["imgt"], axis=axis)
    model.graph.node.append(swap)


@pytest.mark.parametrize("name", [*FAULTS, "red and blue swapped"])
def test_a_fault_of_the_engine_is_named(trt10, sources, tmp_path, monkeypatch, name):
    # A limit that every fault misses: float16 coordinates lose little at 70 columns.
    monkeypatch.setitem(REQUIRED_DB_OF_ENGINES, "fp32", 200.0)
    trt10.sabotage = sabotaged(FAULTS.get(name, swap_colours))
    with pytest.raises(GateError, match=rf"it looks like {name}, .* to a simulation of that fault"):
        write(sources["frames"], tmp_path / "m.engine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["nearest sampling", "a grid shifted by half a pixel"])
def test_a_faulty_engine_misses_the_real_limits(trt10, sources, tmp_path, name):
    trt10.sabotage = sabotaged(FAULTS[name])
    with pytest.raises(GateError, match=r"dB to .* 70 dB are required for fp32"):
        write(sources["frames"], tmp_path / "m.engine")


def test_an_unknown_fault_is_reported_as_unknown(trt10, sources, tmp_path):
    def darken(model):
        for node in model.graph.node:
            if node.op_type == "Sigmoid":
                node.op_type = "Tanh"

    trt10.sabotage = sabotaged(darken)
    with pytest.raises(GateError, match="it looks like none of red and blue swapped, nearest"):
        write(sources["frames"], tmp_path / "m.engine")


def test_a_failed_rebuild_keeps_the_old_engine(trt10, sources, tmp_path):
    path = tmp_path / "m.engine"
    write(sources["frames"], path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    trt10.sabotage = sabotaged(diagnosis.nearest_sampling)
    with pytest.raises(GateError):
        write(sources["frames"], path, force=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_fallback_is_tried_if_one_is_allowed(trt10, sources, tmp_path):
    half, notes = sources["fp16"], []

    def only_in_half(model):
        if any(t.data_type == HALF for t in model.graph.initializer):
            diagnosis.nearest_sampling(model)

    trt10.sabotage = sabotaged(only_in_half)
    with pytest.raises(GateError):
        write(half, tmp_path / "m.engine")
    fallbacks = [fallback_to_float32(half)]
    manifest = write(half, tmp_path / "m.engine", fallbacks=fallbacks, notes=notes)
    assert manifest.model.precision == "fp32"
    assert manifest.engine.fallback.startswith("fp32, because the requested engine failed: ")
    assert "nearest sampling" in manifest.engine.fallback
    assert any(note.startswith("trying fp32: ") for note in notes)
    # The request has not changed, so the engine is up to date.
    notes.clear()
    write(half, tmp_path / "m.engine", fallbacks=fallbacks, notes=notes)
    assert notes == [f"{tmp_path / 'm.engine'} is up to date; --rebuild builds it again"]
    # Without permission for a fallback the engine is built again.
    notes.clear()
    with pytest.raises(GateError):
        write(half, tmp_path / "m.engine", notes=notes)
    assert notes[0].endswith("it is a fallback, and --allow-fallback was not given")


# Engines that are up to date


def test_an_engine_is_built_again_only_if_something_changed(trt10, sources, tmp_path):
    path, notes = tmp_path / "m.engine", []

    def built(name="frames", **options):
        before = len(trt10.builds)
        notes.clear()
        write(sources[name], path, notes=notes, **options)
        return len(trt10.builds) - before

    assert built() == 1
    assert built() == 0
    assert built(force=True) == 1
    assert built(optimization_level=4) == 1
    assert notes[0] == f"{path} is built again: optimization_level was 3 and is 4"
    assert built("fp16", optimization_level=4) == 1
    assert "onnx was" in notes[0]
    path.write_bytes(path.read_bytes() + b"x")
    assert built("fp16", optimization_level=4) == 1
    assert "its manifest was written for" in notes[0]
    manifest_path(path).unlink()
    assert built("fp16", optimization_level=4) == 1
    assert "is missing" in notes[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("tensorrt", "10.2.0"), ("gpu", "NVIDIA H200"), ("compute_capability", "9.0")],
)
def test_an_engine_of_another_machine_is_built_again(trt10, engine, sources, tmp_path, name, value):
    path, notes = engine(), []
    text = json.loads(manifest_path(path).read_text())
    text["engine"]["depends_on"][name] = value
    manifest_path(path).write_text(json.dumps(text))
    write(sources["frames"], path, notes=notes)
    assert notes[0].startswith(f"{path} is built again: {name} was {value} and is")


def test_every_option_that_changes_the_engine_is_in_the_key(trt10, sources, tmp_path):
    from export.trt.engine import _dependencies

    plain = BuildOptions()
    changed = {
        "profile": Profile((32, 32), (32, 32), (32, 32)),
        "optimization_level": 4,
        "workspace_mib": 7,
        "portable": True,
    }
    target, source = target_at(0), sources["dynamic"]
    keys = {trt_cache.dependency_hash(_dependencies(target, source, EngineRequest(plain)))}
    for name, value in changed.items():
        options = dataclasses.replace(plain, **{name: value})
        keys.add(trt_cache.dependency_hash(_dependencies(target, source, EngineRequest(options))))
    keys.add(
        trt_cache.dependency_hash(_dependencies(target, source, EngineRequest(plain, ("grid",))))
    )
    fixed = fixed_size(source, (48, 64))
    keys.add(trt_cache.dependency_hash(_dependencies(target, fixed, EngineRequest(plain))))
    keys.add(
        trt_cache.dependency_hash(_dependencies(target, sources["frames"], EngineRequest(plain)))
    )
    assert len(keys) == 8


# Timing cache


def test_the_timing_cache_is_used_and_grows(trt, sources, tmp_path):
    cache = tmp_path / "cache" / "timing.cache"
    options = BuildOptions(timing_cache=cache)
    engine_from_onnx(trt, sources["frames"].model, options)
    first = cache.read_bytes()
    built = engine_from_onnx(trt, sources["frames"].model, options)
    assert built.notes == []
    assert cache.read_bytes() != first
    assert [p.name for p in cache.parent.iterdir()] == ["timing.cache"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs users of POSIX")
def test_a_timing_cache_that_others_can_write_to_is_not_used(trt10, sources, tmp_path):
    cache = tmp_path / "timing.cache"
    options = BuildOptions(timing_cache=cache)
    engine_from_onnx(trt10, sources["frames"].model, options)
    good = cache.read_bytes()
    tmp_path.chmod(0o777)
    built = engine_from_onnx(trt10, sources["frames"].model, options)
    assert built.notes == [
        f"the timing cache {cache} is not used, other users can write to {tmp_path}: make it yours "
        "alone (chmod 700)"
    ]
    assert cache.read_bytes() == good


@pytest.mark.parametrize("damage", [b"", b"noise", None])
def test_a_damaged_timing_cache_is_replaced(trt10, sources, tmp_path, damage):
    cache = tmp_path / "timing.cache"
    options = BuildOptions(timing_cache=cache)
    engine_from_onnx(trt10, sources["frames"].model, options)
    good = cache.read_bytes()
    cache.write_bytes(good[:-1] if damage is None else damage)
    built = engine_from_onnx(trt10, sources["frames"].model, options)
    assert built.notes == [f"the timing cache {cache} is damaged: starting a new one"]
    assert trt_cache.read_timing_cache(cache)[1] is None


def test_the_timing_cache_of_another_version_is_not_used(trt10, sources, tmp_path, monkeypatch):
    import gpu_fakes

    cache = tmp_path / "timing.cache"
    options = BuildOptions(timing_cache=cache)
    engine_from_onnx(trt10, sources["frames"].model, options)
    with monkeypatch.context() as other, gpu_fakes.machine("10.13.3.9", other) as newer:
        built = engine_from_onnx(newer, sources["frames"].model, options)
    assert "is of another GPU or TensorRT: starting a new one" in built.notes[0]


def test_the_default_timing_cache_has_a_name_for_each_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = trt_cache.default_timing_cache("10.3.0", "NVIDIA GeForce RTX 4090")
    assert path == tmp_path / "ifrnet-deploy" / "timing-10.3.0-NVIDIA-GeForce-RTX-4090.cache"


# Progress and Ctrl-C


def test_phases_are_shown_and_end(trt, sources):
    seen = []

    class Watching(Stages):
        def phases(self):
            inner = super().phases()

            class Kept:
                def __enter__(self):
                    seen.append(inner.__enter__())
                    return seen[0]

                def __exit__(self, *error):
                    return inner.__exit__(*error)

            return Kept()

    engine_from_onnx(trt, sources["frames"].model, BuildOptions(), stages=Watching(0, disable=True))
    (progress,) = seen
    assert progress.seen
    assert not progress._open


def test_ctrl_c_stops_the_build(trt10, sources, monkeypatch):
    from export.progress import Phases

    interrupted = []

    def interrupt(self, name, step):
        interrupted.append(name)
        if len(interrupted) == 1:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            deadline = time.monotonic() + 60
            while not self.cancelled and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1)  # The step is still running, and nothing may be freed.

    monkeypatch.setattr(Phases, "step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        engine_from_onnx(trt10, sources["frames"].model, BuildOptions())
    assert "TensorRT build" not in [thread.name for thread in threading.enumerate()]
    assert len(interrupted) == 1
    assert trt10.builds == []


def test_a_float_profile_must_fit_the_network(trt10, sources, tmp_path):
    source = sources["dynamic"]
    planes = source._replace(info=dataclasses.replace(source.info, io="float"))
    with pytest.raises(ExportError, match="--max 64x90 is not a multiple of 16"):
        write(planes, tmp_path / "m.engine", profile=Profile((32, 32), (64, 80), (64, 90)))


def test_a_fixed_float_size_must_fit_the_network(sources):
    source = sources["dynamic"]
    planes = source._replace(info=dataclasses.replace(source.info, io="float"))
    with pytest.raises(ExportError, match="size 64x90 is not a multiple of 16: use one"):
        fixed_size(planes, (64, 90))


# Types computed from an ONNX file


def test_types_of_layers_are_derived_from_tensors():
    types = {"x": HALF, "w": HALF, "y": HALF, "z": FLOAT, "out": FLOAT, "n": INT}
    layers = [
        Layer("slope", [], ["slope_out"], [True]),
        Layer("slope/shuffle", ["slope_out"], ["slope_wide"], [True]),
        Layer("act", ["x", "slope_wide"], ["y"], [True]),
        Layer("cast", ["y"], ["z"], [True]),
        Layer("two", [], ["two_out"], [True]),
        Layer("mul", ["z", "two_out"], ["out"], [True]),
        Layer("shape", ["out"], ["n"], [False]),
        Layer("unread", [], ["nothing"], [True]),
    ]
    derived = layer_types(layers, types)
    assert derived["slope"].outputs == [HALF]
    assert derived["slope/shuffle"] == (HALF, [HALF])
    assert derived["act"] == (HALF, [HALF])
    assert derived["cast"].outputs == [FLOAT]
    assert derived["two"].outputs == [FLOAT]
    assert derived["mul"] == (FLOAT, [FLOAT])
    assert derived["shape"] == (None, [None])
    assert derived["unread"] == (None, [None])


def test_types_of_an_exported_graph(sources):
    types = tensor_types(sources["fp16"].model)
    nodes = sources["fp16"].model.graph.node
    found = Counter(
        (node.op_type, types[name])
        for node in nodes
        if node.op_type in ("GridSample", "Conv", "ConvTranspose")
        for name in (*node.input, *node.output)
    )
    # Four warps of three tensors; 36 convolutions with weights and bias.
    assert found == {("GridSample", FLOAT): 12, ("Conv", HALF): 128, ("ConvTranspose", HALF): 16}
    assert set(types) >= {name for node in nodes for name in node.output}


def test_missed_types_are_named():
    def tensor(name, kind):
        return {"Name": name, "Format/Datatype": f"Row major linear {kind}"}

    layers = [
        {"Inputs": [tensor("x", "FP16 format")], "Outputs": [tensor("grid", "FP32")]},
        {"Inputs": [tensor("x", "FP16 format"), tensor("flow", "FP16 format")], "Outputs": []},
        "a name alone",
    ]
    types = {"x": HALF, "grid": FLOAT, "flow": FLOAT}
    assert missed_types(parse_layers(json.dumps({"Layers": layers})), types) == (2, ["flow"])


# Configuration with Polygraphy


def test_an_option_that_tensorrt_lacks_is_one_sentence_and_nothing_is_printed(
    trt, sources, capsys, monkeypatch
):
    model = sources["fp16"].model
    assert engine_from_onnx(trt, model, BuildOptions(portable=True, workspace_mib=64)).plan
    monkeypatch.delattr(trt.BuilderFlag, "VERSION_COMPATIBLE")
    with pytest.raises(ExportError, match=r"cannot be configured \(version_compatible .* is not"):
        engine_from_onnx(trt, model, BuildOptions(portable=True))
    assert capsys.readouterr() == ("", "")


# The command


def test_the_command_builds_from_an_onnx_file(
    trt, onnx_file, tmp_path, capsys, monkeypatch, frames
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source, output = onnx_file("fp16"), tmp_path / "m.engine"
    assert command("--onnx", source, "--output", output) == 0
    text = capsys.readouterr().out
    assert f"TensorRT {trt.__version__} for NVIDIA GeForce RTX 4090 (8.9)" in text
    manifest = EngineManifest.read(output)
    assert manifest.engine.command.endswith(f"--onnx {source} --output {output}")
    assert manifest.gate.reference == "the unoptimised ONNX file in float32 as bytes"
    with Interpolator.open(output) as vfi:
        assert vfi.interpolate(*frames).shape == (50, 70, 3)
    assert command("--onnx", source, "--output", output) == 0
    assert "is up to date" in capsys.readouterr().out
    assert len(list((tmp_path / "cache" / "ifrnet-deploy").iterdir())) == 1


def test_several_sizes_give_one_engine_each(trt10, onnx_file, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = onnx_file("dynamic")
    sizes = ("48x64", "50x70")
    assert command("--onnx", source, "--size", *sizes, "--output", tmp_path / "m.engine") == 0
    for size in sizes:
        manifest = EngineManifest.read(tmp_path / f"m_{size}.engine")
        assert "x".join(map(str, manifest.model.size)) == size
        assert f"--size {size}" in manifest.engine.command


def test_the_command_builds_from_a_checkpoint_with_a_fallback(trt10, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def fails_with_grid_sample(model):
        diagnosis.nearest_sampling(model)

    trt10.sabotage = sabotaged(fails_with_grid_sample)
    arguments = ["--weights", "demo", "--size", "48x64", "--output", tmp_path / "m.engine"]
    assert command(*arguments) == 1
    assert "it looks like nearest sampling" in capsys.readouterr().err
    assert command(*arguments, "--allow-fallback") == 0
    manifest = EngineManifest.read(tmp_path / "m.engine")
    assert manifest.model.precision == "fp16"
    assert manifest.model.warp == "gather"
    assert manifest.engine.fallback.startswith("warp by gather, because the requested")
    assert manifest.gate.reference.startswith("PyTorch")
    assert "fallback: warp by gather" in capsys.readouterr().out


def test_the_command_builds_for_a_range_of_sizes(trt10, onnx_file, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    output = tmp_path / "m.engine"
    sizes = ["--min", "32x32", "--opt", "48x64", "--max", "64x80"]
    assert command("--onnx", onnx_file("dynamic"), *sizes, "--output", output) == 0
    manifest = EngineManifest.read(output)
    assert manifest.model.size is None
    assert manifest.engine.profile["opt"] == [48, 64]
    assert "--min 32x32 --opt 48x64 --max 64x80" in manifest.engine.command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--onnx", "f", "--steps-per-call", "3"],
            "--onnx was given with steps-per-call: the file fixes these",
        ),
        (
            ["--weights", "demo", "--min", "32x32"],
            "lacks --opt and --max: give --min, --opt and --max",
        ),
        (
            ["--weights", "demo", "--dynamic"],
            "--dynamic was given with --backend tensorrt: give --min",
        ),
        (
            ["--weights", "demo", "--tuned-for", "cpu"],
            "--tuned-for was given with --backend tensorrt: use --rewrite",
        ),
        (["--weights", "demo", "--device", "3"], "cuda:3 was asked for, the driver sees cuda:0"),
        (
            ["--weights", "demo", "--backend", "onnxruntime", "--portable", "--workspace", "5"],
            "--backend onnxruntime was given with --workspace, --portable",
        ),
        (
            ["--weights", "demo", "--backend", "onnxruntime", "--size", "32x32", "48x48"],
            "2 sizes were given with --backend onnxruntime",
        ),
        (["--weights", "demo", "--rewrite", "magic", "--size", "32x32"], "rewrite 'magic' is unk"),
        (
            ["--weights", "demo", "--batch", "2", "--steps-per-call", "3"],
            "--batch 2 was given with --steps-per-call",
        ),
        (
            ["--weights", "demo", "--max-batch", "4", "--batch", "2"],
            "--max-batch was given with --batch",
        ),
        (["--weights", "demo", "--max-batch", "1"], "--max-batch is 1: use 2 to 64"),
    ],
)
def test_errors_of_the_command_are_one_sentence(trt10, tmp_path, capsys, arguments, message):
    assert command(*arguments, "--output", tmp_path / "m.engine") == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_reference_of_a_float16_file_is_float32(sources, frames):
    half = sources["fp16"]
    source = source_from_model(half.model, half.info, half.onnx_sha256)
    time = np.full((1, 1, 1, 1), 0.5, np.float32)
    exact = sources["frames"].reference.run(*frames, time)
    assert source.reference.name == "the unoptimised ONNX file in float32"
    assert HALF not in tensor_types(passes.in_float32(half.model)).values()
    # The demo weights are float16 values: rounding does not change them.
    np.testing.assert_allclose(source.reference.run(*frames, time), exact, atol=1e-5)
