"""OpenVINO: comparison with ONNX Runtime, streams, cache, precision, errors."""

import importlib.metadata
import os
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper

from export.gate.cases import moving_frames
from openvino_types import claim_types
from runtime import BackendError, Interpolator, ModelError
from runtime.backends.base import OpenOptions
from runtime.backends.ov import backend as ov
from runtime.backends.ov import cache
from runtime.backends.ov import precision as ov_precision
from runtime.backends.ov.precision import (
    float32_chain,
    is_marked,
    rounded_layers,
    with_float32_marks,
)
from runtime.backends.registry import default_backend
from runtime.manifest import manifest_path
from runtime.telemetry import import_quietly

LEVELS = 1
"""Tolerance in levels of 255: values between two levels may be rounded to either."""

BF16_DB = 55
"""Lowest PSNR of bfloat16; measured: 62 to 80 dB, on frames with 4 pixels of motion."""

OPENVINO = tuple(map(int, importlib.metadata.version("openvino").split(".")[:2]))

FLOATS = 1e-4
"""Tolerance for sums of float32 in another order, through several warps; measured: 1.2e-5."""


def opened(path, **options):
    return Interpolator.open(path, backend="openvino", **{"cache": "none", **options})


def apart(first, second):
    return np.abs(first.astype(np.float64) - second).max()


@pytest.mark.parametrize("steps", [None, (0.25, 0.5, 0.75), (0.1,)])
@pytest.mark.parametrize("name", ["frames", "three", "dynamic"])
def test_frames_equal_those_of_onnx_runtime(models, frames, name, steps):
    path = models / f"{name}.onnx"
    with Interpolator.open(path, backend="onnxruntime") as vfi:
        expected = vfi.interpolate(*frames, timesteps=steps or (0.5,))
    with opened(path) as vfi:
        assert vfi.backend == "openvino cpu fp32"
        made = vfi.interpolate(*frames, timesteps=steps or (0.5,))
    assert len(made) == len(expected)
    for one, other in zip(made, expected, strict=True):
        assert one.dtype == np.uint8
        assert one.shape == other.shape
        assert apart(one, other) <= LEVELS


def test_floats_equal_those_of_onnx_runtime(models, frames):
    floats = [f.astype(np.float32) / np.float32(255) for f in frames]
    with Interpolator.open(models / "float.onnx", backend="onnxruntime") as vfi:
        expected = vfi.interpolate(*floats)
    with opened(models / "float.onnx") as vfi:
        made = vfi.interpolate(*floats)
    assert made.dtype == np.float32
    assert apart(made, expected) < FLOATS


def test_float16_graphs_run(export, tmp_path, frames):
    checked = export(height=50, width=70, precision="fp16")
    path = tmp_path / "half.onnx"
    onnx.save(checked.model, path)
    with Interpolator.open(path, backend="onnxruntime") as vfi:
        expected = vfi.interpolate(*frames)
    with opened(path) as vfi:
        assert apart(vfi.interpolate(*frames), expected) <= LEVELS


def test_a_free_size_can_change_between_calls(models):
    rng = np.random.default_rng(0)
    with (
        opened(models / "dynamic.onnx") as vfi,
        Interpolator.open(models / "dynamic.onnx", backend="onnxruntime") as other,
    ):
        for size in ((50, 70), (33, 91), (50, 70)):
            pair = rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)
            made = vfi.interpolate(*pair)
            assert made.shape == (*size, 3)
            # Noise has steeper flows than real frames, so that rounding has larger effects.
            assert np.mean(made != other.interpolate(*pair)) < 0.01


def test_recursion_and_streams_give_the_same_frames(midpoint_model, frames):
    first, second = frames
    clip = [first, second, first, second, second]
    made = []
    for streams in (1, 2):
        with opened(midpoint_model, threads=2, streams=streams) as vfi:
            made.append([frame.copy() for frame in vfi.stream(clip, factor=4)])
    assert len(made[0]) == len(made[1]) == 17
    for one, two in zip(*made, strict=True):
        assert np.array_equal(one, two)


def test_several_threads_share_one_model(models, frames):
    first, second = frames
    pairs = [(first, second), (second, first), (first, first)]
    with opened(models / "frames.onnx") as vfi:
        expected = [vfi.interpolate(*pair) for pair in pairs]
        wrong = []

        def work(k):
            for _ in range(4):
                if not np.array_equal(vfi.interpolate(*pairs[k]), expected[k]):
                    wrong.append(k)

        threads = [threading.Thread(target=work, args=(k % 3,)) for k in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert wrong == []


def test_results_that_are_not_fetched_do_not_block_other_calls(models, frames):
    backend = ov.open_model(models / "frames.onnx", OpenOptions(threads=2, streams=2, cache="none"))
    images = [backend.put(frame[None]) for frame in frames]
    half = np.full((1, 1, 1, 1), 0.5, np.float32)
    made = [backend.submit([tuple(images)], half)[0] for _ in range(9)]
    first, last = (backend.download(image)() for image in (made[0], made[-1]))
    assert np.array_equal(first, last)
    backend.close()
    with pytest.raises(BackendError, match="is closed: open it again"):
        backend.submit([tuple(images)], half)


def test_returned_frames_are_owned_by_the_caller(models, frames):
    with opened(models / "frames.onnx") as vfi:
        kept = vfi.interpolate(*frames)
        before = kept.copy()
        vfi.interpolate(*frames[::-1])
        kept.flags.writeable = True
        assert np.array_equal(kept, before)


def test_a_failed_call_is_one_sentence_and_the_next_succeeds(models, frames):
    backend = ov.open_model(models / "frames.onnx", OpenOptions(cache="none"))
    half = np.full((1, 1, 1, 1), 0.5, np.float32)
    wrong = np.zeros((1, 8, 8, 3), np.uint8)
    for _ in range(4):  # More calls than inference requests.
        with pytest.raises(BackendError, match=r"openvino cpu fp32 failed: [^\n]+$"):
            backend.run(wrong, wrong, half)
    assert backend.run(frames[0][None], frames[1][None], half).shape == (1, 50, 70, 3)
    backend.close()


class Compiled:
    """Counts how often a model is compiled."""

    def __init__(self, monkeypatch):
        openvino = import_quietly("openvino")
        self.count, real = 0, openvino.Core.compile_model

        def counting(core, *args, **kwargs):
            self.count += 1
            return real(core, *args, **kwargs)

        monkeypatch.setattr(openvino.Core, "compile_model", counting)


@pytest.fixture
def compiled(monkeypatch):
    return Compiled(monkeypatch)


def test_the_cache_avoids_a_second_compilation(models, frames, tmp_path, compiled):
    made = []
    for _ in range(2):
        with opened(models / "frames.onnx", cache=tmp_path) as vfi:
            made.append(vfi.interpolate(*frames))
    assert compiled.count == 1
    assert np.array_equal(*made)
    assert len(list(tmp_path.iterdir())) == 1


def test_other_options_and_models_have_their_own_cache_entries(models, frames, tmp_path, compiled):
    opened(models / "frames.onnx", cache=tmp_path, threads=1).close()
    opened(models / "frames.onnx", cache=tmp_path, threads=2).close()
    opened(models / "frames.onnx", cache=tmp_path, threads=2, streams=2).close()
    with opened(models / "dynamic.onnx", cache=tmp_path, threads=1) as vfi:
        vfi.interpolate(*frames)
    assert compiled.count == len(list(tmp_path.iterdir())) == 4


def test_a_change_of_the_preparation_invalidates_the_cache(models, tmp_path, compiled, monkeypatch):
    opened(models / "frames.onnx", cache=tmp_path).close()
    monkeypatch.setattr(cache, "PREPARATION", cache.PREPARATION + 1)
    opened(models / "frames.onnx", cache=tmp_path).close()
    assert compiled.count == len(list(tmp_path.iterdir())) == 2


def test_a_model_of_free_size_is_compiled_once_for_each_size(models, frames, tmp_path, compiled):
    small = [frame[:40, :60] for frame in frames]
    with opened(models / "dynamic.onnx", cache=tmp_path) as vfi:
        assert compiled.count == 0
        made = [vfi.interpolate(*pair) for pair in (frames, frames, small, frames)]
        assert compiled.count == 2
    with opened(models / "dynamic.onnx", cache=tmp_path) as vfi:
        again = [vfi.interpolate(*pair) for pair in (small, frames)]
    assert compiled.count == 2  # Both are in the cache.
    for one, other in zip(again, (made[2], made[0]), strict=True):
        assert np.array_equal(one, other)


def test_a_closed_model_of_free_size_compiles_nothing(models, frames, compiled):
    vfi = opened(models / "dynamic.onnx")
    vfi.close()
    with pytest.raises(BackendError, match="the model is closed: open it again"):
        vfi.interpolate(*frames)
    assert compiled.count == 0


@pytest.mark.parametrize("damage", ["empty", "half", "weights", "end", "noise"])
def test_a_damaged_blob_is_compiled_again(models, frames, tmp_path, compiled, damage):
    with opened(models / "frames.onnx", cache=tmp_path) as vfi:
        expected = vfi.interpolate(*frames)
    (blob,) = tmp_path.iterdir()
    whole = blob.read_bytes()
    middle = len(whole) // 2
    blob.write_bytes(
        {
            "empty": b"",
            "half": whole[:middle],
            # Damage that OpenVINO itself accepts.
            "weights": whole[:middle] + b"\xff" * 64 + whole[middle + 64 :],
            "end": whole[:-1],
            "noise": np.random.default_rng(0).bytes(5000),
        }[damage]
    )
    with opened(models / "frames.onnx", cache=tmp_path) as vfi:
        assert np.array_equal(vfi.interpolate(*frames), expected)
    assert compiled.count == 2
    assert [path.read_bytes()[:18] for path in tmp_path.iterdir()] == [whole[:18]]


def test_concurrent_writers_leave_one_complete_blob(models, tmp_path, compiled):
    threads = [
        threading.Thread(target=lambda: opened(models / "frames.onnx", cache=tmp_path).close())
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(list(tmp_path.iterdir())) == 1
    before = compiled.count
    opened(models / "frames.onnx", cache=tmp_path).close()
    assert compiled.count == before


def test_a_cache_folder_that_cannot_be_written_is_no_error(models, frames, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with opened(models / "frames.onnx", cache=tmp_path / "file" / "cache") as vfi:
        assert vfi.interpolate(*frames).shape == (50, 70, 3)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs users of POSIX")
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_cache_that_others_can_write_to_is_not_used(models, tmp_path, compiled, mode):
    opened(models / "frames.onnx", cache=tmp_path).close()
    (blob,) = tmp_path.iterdir()
    before = blob.stat().st_mtime_ns
    tmp_path.chmod(mode)
    with opened(models / "frames.onnx", cache=tmp_path) as vfi:
        assert vfi.notes[-1] == (
            f"compiled models are not cached, other users can write to {tmp_path}: make it yours "
            "alone (chmod 700)"
        )
    assert compiled.count == 2
    assert [(p, p.stat().st_mtime_ns) for p in tmp_path.iterdir()] == [(blob, before)]


def test_the_size_of_the_cache_folder_is_limited(models, tmp_path, monkeypatch):
    opened(models / "frames.onnx", cache=tmp_path, threads=1).close()
    (first,) = tmp_path.iterdir()
    opened(models / "frames.onnx", cache=tmp_path, threads=2).close()
    (second,) = set(tmp_path.iterdir()) - {first}
    both = first.stat().st_size + second.stat().st_size
    for limit, left in ((both, {first, second}), (both - 1, {second})):
        monkeypatch.setattr(cache, "_MAX_BYTES", limit)
        second.unlink()
        opened(models / "frames.onnx", cache=tmp_path, threads=2).close()
        assert set(tmp_path.iterdir()) == left


def test_the_default_folder_is_the_users_cache(models, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Interpolator.open(models / "frames.onnx", backend="openvino").close()
    assert len(list((tmp_path / "ifrnet-deploy" / "openvino").glob("*.blob"))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda"}, "is used on the CPU only: use device='cpu'"),
        ({"cuda_graph": True}, "is for TensorRT engines"),
        ({"io_binding": True}, "is for ONNX Runtime"),
        ({"streams": 3, "threads": 2}, "each stream needs one: use fewer streams"),
        ({"precision": "int4"}, "use one of auto, fp32, bf16, fp16"),
    ],
)
def test_options_that_openvino_lacks_are_refused(models, options, message):
    with pytest.raises(BackendError, match=message):
        opened(models / "frames.onnx", **options)


@pytest.mark.parametrize("option", [{"streams": 2}, {"precision": "bf16"}, {"cache": "none"}])
def test_onnx_runtime_refuses_options_of_openvino(models, option):
    with pytest.raises(BackendError, match="use backend='openvino'"):
        Interpolator.open(models / "frames.onnx", backend="onnxruntime", **option)


def test_a_precision_that_the_cpu_lacks_is_refused(models, monkeypatch):
    claim_types(monkeypatch, "FP32")
    with pytest.raises(BackendError, match="this CPU has fp32 only: leave it out"):
        opened(models / "frames.onnx", precision="bf16")


def test_a_lower_precision_is_refused_for_tuned_models(models, tmp_path):
    tuned = onnx.load(models / "frames.onnx")
    properties = {entry.key: entry.value for entry in tuned.metadata_props}
    helper.set_model_props(tuned, {**properties, "ifrnet.tuned_for": "cpu"})
    onnx.save(tuned, tmp_path / "tuned.onnx")
    with pytest.raises(
        BackendError, match=r"tuned for ONNX Runtime: build a plain one with .* --backend openvino"
    ):
        opened(tmp_path / "tuned.onnx", precision="bf16")


def test_float32_is_requested_explicitly(models, tmp_path, monkeypatch):
    openvino = import_quietly("openvino")
    asked = []
    real = openvino.Core.compile_model

    def spy(core, model, device, settings):
        asked.append(settings)
        return real(core, model, device, settings)

    monkeypatch.setattr(openvino.Core, "compile_model", spy)
    opened(models / "frames.onnx", threads=1).close()
    assert asked[0]["INFERENCE_PRECISION_HINT"] == "f32"
    assert asked[0]["INFERENCE_NUM_THREADS"] == "1"


def test_a_broken_or_foreign_file_is_one_sentence(models, tmp_path):
    model = onnx.load(models / "frames.onnx")
    model.graph.node[5].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(ModelError, match=r"bad\.onnx cannot be loaded by OpenVINO \([^\n]+\): "):
        opened(tmp_path / "bad.onnx")
    lying = onnx.load(models / "frames.onnx")
    properties = {entry.key: entry.value for entry in lying.metadata_props}
    helper.set_model_props(lying, {**properties, "ifrnet.height": "64"})
    onnx.save(lying, tmp_path / "lie.onnx")
    with pytest.raises(ModelError, match="its metadata declares"):
        opened(tmp_path / "lie.onnx")


@pytest.fixture
def marked(export):
    openvino = import_quietly("openvino")
    core = openvino.Core()
    model = core.read_model(export(height=64, width=96).model.SerializeToString())
    return openvino, core, with_float32_marks(openvino, core, model)


def test_coordinates_are_marked_and_convolutions_are_not(marked):
    _, _, model = marked
    kinds = {node.get_type_name() for node in model.get_ops() if is_marked(node)}
    assert kinds >= {"GridSample", "Interpolate", "ReduceMean", "Sigmoid", "Transpose"}
    assert not kinds & {"Convolution", "ConvolutionBackpropData", "PRelu"}
    chain = {node.get_friendly_name() for node in float32_chain(model)}
    assert chain == {node.get_friendly_name() for node in model.get_ops() if is_marked(node)}


@pytest.mark.parametrize("name", ["frames", "three", "dynamic"])
def test_the_marked_graph_makes_the_same_frame_in_float32(models, frames, name):
    """The nodes that the marks need in place of others compute the same, on any CPU."""
    openvino = import_quietly("openvino")
    core = openvino.Core()
    made = []
    for prepare in (False, True):
        model = core.read_model(str(models / f"{name}.onnx"))
        if prepare:
            model = with_float32_marks(openvino, core, model)
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        steps = np.linspace(0.25, 0.75, 3 if name == "three" else 1, dtype=np.float32)
        inputs = {
            "img0": frames[0][None], "img1": frames[1][None], "timestep": steps[:, None, None, None]
        }  # fmt: skip
        made.append(compiled(inputs)["imgt"].astype(np.int16))
    assert np.abs(made[0] - frames[0]).max() > 50
    assert np.abs(made[0] - made[1]).max() <= 1


def test_an_openvino_that_drops_the_marks_is_refused(export, monkeypatch):
    openvino = import_quietly("openvino")
    core = openvino.Core()
    model = core.read_model(export(height=64, width=96).model.SerializeToString())
    monkeypatch.setattr(ov_precision, "_mark", lambda _: None)
    with pytest.raises(
        BackendError, match=r"^OpenVINO .* kept 0 of [1-9]\d* float32 marks: leave precision out$"
    ):
        with_float32_marks(openvino, core, model)


def test_an_openvino_that_cannot_compile_the_marked_model_is_refused(monkeypatch):
    def fail(*_):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(ov_precision, "with_float32_marks", lambda *arguments: arguments[-1])
    openvino = SimpleNamespace(get_version=lambda: "2026.1")
    with pytest.raises(BackendError) as error:
        ov_precision.compiled_with_float32(
            openvino, SimpleNamespace(compile_model=fail), None, {"INFERENCE_PRECISION_HINT": "f16"}
        )
    assert str(error.value) == (
        "OpenVINO 2026.1 cannot prepare this model for f16 (no such kernel): leave precision out"
    )


def test_the_marked_graph_computes_the_same_frame(marked, export, frames):
    _, core, model = marked
    plain = core.read_model(export(height=64, width=96).model.SerializeToString())
    pair = [np.pad(frame, ((0, 14), (0, 26), (0, 0)), mode="edge")[None] for frame in frames]
    feed = {"img0": pair[0], "img1": pair[1], "timestep": np.full((1, 1, 1, 1), 0.5, np.float32)}
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    made = [core.compile_model(one, "CPU", settings)(feed)[0] for one in (plain, model)]
    assert apart(*made) <= LEVELS


# Operations that OpenVINO replaces despite their marks, without harm: the first convolution rounds
# the difference to the mean anyway; casts of bytes are exact; after the last convolution OpenVINO
# keeps float32; the plane of the time step goes into a convolution.
_REPLACED = {"Sub", "Sub_2", "Clip", "imgt", "Transpose", "Transpose_2", "Expand"}


@pytest.mark.skipif(OPENVINO < (2026, 4), reason="OpenVINO before 2026.4 loses marks")
def test_marks_survive_the_passes_of_the_cpu_plugin(marked):
    _, core, model = marked
    seen = []
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "SNIPPETS_MODE": "DISABLE",  # Keeps nodes single: fused ones would share one mark.
        # A blob has the graph after all passes, in OpenVINO's own format.
        "CACHE_ENCRYPTION_CALLBACKS": [lambda text: (seen.append(text), text)[1], lambda x: x],
    }
    core.compile_model(model, "CPU", settings).export_model()
    wanted = {node.get_friendly_name() for node in model.get_ops() if is_marked(node)}
    lost, grids = set(), 0
    for layer in re.findall(r"<layer .*?</layer>", seen[0].decode(), re.DOTALL):
        name, kind = (re.search(rf'{key}="([^"]*)"', layer).group(1) for key in ("name", "type"))
        kept = "DisablePrecisionConversion" in layer or 'name="precise"' in layer
        grids += kept and kind == "GridSample"
        if name in wanted and kind != "Const" and not kept:
            lost.add(name.partition(":")[2])
    assert grids == 4
    assert lost <= _REPLACED


def compiled_layer(precision, *nodes):
    """A layer of a compiled model, as its runtime model describes it."""
    info = {"runtimePrecision": precision, "originalLayersNames": ",".join(nodes)}
    values = {key: SimpleNamespace(value=value) for key, value in info.items()}
    return SimpleNamespace(get_rt_info=lambda: values)


def as_compiled(layers):
    graph = SimpleNamespace(get_ordered_ops=lambda: layers)
    return SimpleNamespace(get_runtime_model=lambda: graph)


def test_a_layer_of_the_coordinates_that_is_rounded_is_found(marked):
    _, _, model = marked
    grid, *_ = (n.get_friendly_name() for n in model.get_ops() if n.get_type_name() == "GridSample")
    conv, *_ = (
        n.get_friendly_name() for n in model.get_ops() if n.get_type_name() == "Convolution"
    )
    # The bias of a decoder's last layer lies between convolution and coordinates and is rounded
    # with the convolution.
    bias, *_ = (
        n.get_friendly_name() for n in model.get_ops() if "ConvTranspose" in n.get_friendly_name()
    )
    for precision in ("bf16", "f16"):
        layers = [compiled_layer(precision, conv, bias), compiled_layer("f32", grid)]
        assert rounded_layers(model, as_compiled(layers)) == []
        layers.append(compiled_layer(precision, "another", grid))
        assert rounded_layers(model, as_compiled(layers)) == [grid]


@pytest.mark.usefixtures("claims_bf16")
def test_an_openvino_that_rounds_coordinates_is_refused(models, monkeypatch, tmp_path):
    monkeypatch.setattr(ov_precision, "rounded_layers", lambda *_: ["Mul_3"])
    with pytest.raises(
        BackendError, match=r"computes 1 of the layers .* in bf16, .* float32: leave precision out$"
    ):
        opened(models / "frames.onnx", precision="bf16", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("claims_bf16")
@pytest.mark.parametrize("lost", [True, False])
def test_coordinates_become_outputs_where_marks_are_lost(models, frames, monkeypatch, lost):
    """OpenVINO up to 2026.3 loses the marks of the coordinates' products and sums."""
    openvino = import_quietly("openvino")
    compiled, real = [], openvino.Core.compile_model

    def compile_model(*arguments):
        compiled.append(real(*arguments))
        return compiled[-1]

    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    monkeypatch.setattr(
        ov_precision,
        "rounded_layers",
        lambda _, model: ["Mul_3"] if lost and len(model.outputs) == 1 else [],
    )
    with opened(models / "frames.onnx", precision="bf16") as vfi:
        assert vfi.interpolate(*frames).shape == frames[0].shape
    assert [len(model.outputs) for model in compiled] == ([1, 5] if lost else [1])


@pytest.mark.parametrize("name", ["frames", "float", "three", "dynamic"])
def test_bfloat16_keeps_the_coordinates_float32(bf16_cpu, models, name, request):
    size = (50, 70) if name != "float" else (64, 80)
    frames = moving_frames(*size, 4.0)
    if name == "float":
        frames = [f.astype(np.float32) / np.float32(255) for f in frames]
    made = []
    for precision in ("fp32", "bf16"):
        with opened(models / f"{name}.onnx", precision=precision) as vfi:  # Refused, if it cannot.
            made.append(vfi.interpolate(*frames, timesteps=(0.25, 0.5, 0.75)))
    largest = 255 if name != "float" else 1
    for one, other in zip(*made, strict=True):
        error = np.mean((one.astype(np.float64) - other) ** 2) / largest**2
        assert 10 * np.log10(1 / max(error, 1e-12)) > BF16_DB


def test_without_marks_bfloat16_rounds_the_coordinates(bf16_cpu, marked, export):
    """Shows the error that the check of marks prevents."""
    _, core, model = marked
    for node in model.get_ops():
        info = node.get_rt_info()
        for key in [k for k in info if k.startswith(("precise", "DisablePrecisionConversion"))]:
            del info[key]
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    assert len(rounded_layers(model, compiled)) > 5


def test_the_default_backend_of_an_onnx_file(models, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes((models / "frames.onnx").read_bytes())
    assert default_backend(path, OpenOptions()) == "openvino"
    assert default_backend(path, OpenOptions(device="cuda")) == "onnxruntime"
    for named in ("onnxruntime", "openvino"):
        manifest_path(path).write_text(f'{{"backend": "{named}"}}')
        assert default_backend(path, OpenOptions()) == named
    manifest_path(path).write_text('{"backend": "abacus"}')
    with pytest.raises(BackendError, match="names the unknown backend abacus"):
        default_backend(path, OpenOptions())
    manifest_path(path).unlink()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert default_backend(path, OpenOptions()) == "onnxruntime"


@pytest.mark.parametrize("installed", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("named", ["openvino", "onnxruntime"])
def test_the_only_installed_backend_opens_every_onnx_file(
    models, tmp_path, monkeypatch, named, installed
):
    path = tmp_path / "model.onnx"
    path.write_bytes((models / "frames.onnx").read_bytes())
    manifest_path(path).write_text(f'{{"backend": "{named}"}}')
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == installed or None)
    assert default_backend(path, OpenOptions()) == installed


def test_the_error_without_openvino_says_what_to_install(models):
    code = (
        "import sys; sys.modules['openvino'] = None\n"
        "from runtime import BackendError, Interpolator\n"
        "try: Interpolator.open(sys.argv[1], backend='openvino')\n"
        "except BackendError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(models / "frames.onnx")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "pip install 'ifrnet-deploy[openvino]', or use backend='onnxruntime'" in done.stdout
    assert len(done.stdout.splitlines()) == 1
