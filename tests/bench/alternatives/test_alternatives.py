"""bench.alternatives: every method computes the dropped frames and is measured in the same way."""

import itertools
import json
import os
import re
import shutil
import sys

import numpy as np
import pytest

from bench.alternatives.__main__ import main
from bench.alternatives.clips import read_halved
from bench.alternatives.methods import Blending, Minterpolate
from bench.alternatives.mlrt import Mlrt
from bench.environment import MeasurementError
from bench.quality.metrics import psnr
from bench.report.evidence import read_evidence
from commands import need_torch
from export.store import write_onnx
from moving_clips import RATE, write_clip
from paths import ROOT
from runtime.errors import rounded
from runtime.telemetry import import_quietly

onnxruntime = import_quietly("onnxruntime")

SIZE = (64, 80)
RESULTS = ROOT / "bench" / "results"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip of nine frames that move by two pixels a frame."""
    return write_clip(tmp_path_factory.mktemp("clip") / "in.mkv", 9, size=SIZE)


@pytest.fixture(scope="module")
def stacked(export, tmp_path_factory):
    """The path of a model for vs-mlrt, of the size of the clip."""
    path = tmp_path_factory.mktemp("models") / "stacked.onnx"
    write_onnx(export(height=SIZE[0], width=SIZE[1], io="stacked").model, path)
    return path


@pytest.fixture
def mlrt_python(tmp_path, monkeypatch):
    """The command of a Python with fakes of VapourSynth and vs-mlrt."""
    folder = tmp_path / "site"
    folder.mkdir()
    shutil.copy(ROOT / "tests" / "support" / "fake_vapoursynth.py", folder / "vapoursynth.py")
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")
    return sys.executable


def run(*arguments, code=0):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == code


def test_every_second_frame_is_input_and_the_others_are_the_truth(clip):
    halved = read_halved(clip, None)
    assert (len(halved.given), len(halved.true), len(halved.decoded)) == (5, 4, 5)
    assert (halved.name, halved.size, halved.rate) == ("in.mkv", SIZE, RATE / 2)
    whole = [halved.given[0]]
    for true, given in zip(halved.true, halved.given[1:], strict=True):
        whole += [true, given]
    steps = [psnr(a / 255, b / 255) for a, b in itertools.pairwise(whole)]
    apart = [psnr(a / 255, b / 255) for a, b in zip(whole, whole[2:], strict=False)]
    assert min(steps) > max(apart)  # Adjacent frames are closer than those two apart.
    few = read_halved(clip, 2)
    assert (len(few.given), len(few.true)) == (3, 2)
    np.testing.assert_array_equal(few.true, halved.true[:2])


def test_a_frame_without_a_pair_is_left_out(tmp_path):
    halved = read_halved(write_clip(tmp_path / "even.mkv", 8, size=SIZE), None)
    assert (len(halved.given), len(halved.true)) == (4, 3)


def test_a_clip_that_is_too_short_is_refused(tmp_path):
    short = write_clip(tmp_path / "short.mkv", 2, size=SIZE)
    with pytest.raises(MeasurementError, match=r"short\.mkv has fewer than 3 frames"):
        read_halved(short, None)


def test_the_mean_is_rounded_to_nearest(clip):
    halved = read_halved(clip, 1)
    _, (made,) = Blending(halved).run()
    exact = (halved.given[0].astype(float) + halved.given[1]) / 2
    assert made.dtype == np.uint8
    assert (np.abs(made - exact) <= 0.5).all()


@pytest.mark.parametrize("options", ["", "mi_mode=blend", "mi_mode=mci:mc_mode=aobmc"])
def test_minterpolate_computes_the_dropped_frames(clip, options):
    halved = read_halved(clip, None)
    method = Minterpolate(halved, options)
    seconds, made = method.run()
    assert seconds > 0
    assert [image.shape for image in made] == [(*SIZE, 3)] * 4
    assert method.how["options"] == options
    again = method.run()[1]
    np.testing.assert_array_equal(made, again)
    if options == "mi_mode=blend":
        _, mean = Blending(halved).run()
        for one, other in zip(made, mean, strict=True):
            assert psnr(one / 255, other / 255) > 38  # The filter blends YUV.


def test_unknown_options_of_minterpolate_are_refused(clip):
    with pytest.raises(MeasurementError, match="minterpolate does not accept 'speed=9'"):
        Minterpolate(read_halved(clip, 1), "speed=9").run()


def test_frames_that_minterpolate_leaves_out_are_an_error(clip, monkeypatch):
    class Silent:
        """A filter that takes every frame and returns none."""

        def push(self, frame):
            pass

        def pull(self):
            raise BlockingIOError

    method = Minterpolate(read_halved(clip, 3), "")
    monkeypatch.setattr(method, "_graph", Silent)
    with pytest.raises(
        MeasurementError, match="minterpolate left out 3 of 3 frames: give other options"
    ):
        method.run()


def test_all_methods_are_measured_in_the_same_way(
    clip, models, stacked, mlrt_python, tmp_path, capsys
):
    need_torch()
    run(
        "--clip", clip, "--compare", "authors", "--precision", "fp32", "auto",
        "--backend", "openvino", "onnxruntime",
        "--minterpolate", "", "mi_mode=blend", "--mlrt-model", stacked,
        "--mlrt-python", mlrt_python, "--rounds", "2", "--threads", "1",
        "--json", tmp_path / "evidence.json",
    )  # fmt: skip
    record = json.loads((tmp_path / "evidence.json").read_text())
    assert (record["kind"], record["clip"], record["size"]) == ("alternatives", "in.mkv", [*SIZE])
    assert (record["pairs"], record["threads"]) == (4, 1)
    assert record["environment"]["instruction_sets"] is not None
    by_name = {one["name"]: one for one in record["methods"]}
    assert len(by_name) == len(record["methods"])
    reference = record["reference"]
    assert reference == record["methods"][0]["name"]
    assert reference.startswith("PyTorch")
    for one in record["methods"]:
        assert len(one["seconds"]) == 2
        assert one["frames_per_second"] == pytest.approx(4 / np.median(one["seconds"]))
        assert len(one["psnr"]["each"]) == 4
        assert (one["ratio"] is None) == (one["name"] == reference)
    fp32 = by_name["demo on openvino cpu fp32"]
    assert fp32["ratio"]["p50"] == pytest.approx(
        np.median(by_name[reference]["seconds"]) / np.median(fp32["seconds"])
    )
    for same in (
        reference,
        "demo on onnxruntime cpu",
        "stacked.onnx on vs-mlrt OpenVINO",
        "stacked.onnx on vs-mlrt ONNX Runtime",
    ):
        assert by_name[same]["psnr"]["mean"] == pytest.approx(fp32["psnr"]["mean"], abs=0.05)
    assert fp32["psnr"]["mean"] > by_name["mean of the two frames"]["psnr"]["mean"] + 2
    assert by_name["stacked.onnx on vs-mlrt OpenVINO"]["how"] == {
        "model": "stacked.onnx", "vapoursynth": "R0", "version": "v0",
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "4 new frames of in.mkv at 80x64, 1 thread, medians of 2 rounds." in said
    for one in record["methods"]:
        assert f"| {one['name']} | {rounded(one['frames_per_second'])} |" in said
    (read,) = read_evidence([tmp_path / "evidence.json"]).alternatives
    assert read.record["methods"] == record["methods"]  # The types have every key of the record.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rounds", 0), "--rounds is 0: use 1 or more"),
        (("--mlrt-model", "m.onnx"), "--mlrt-model was given without --mlrt-python"),
        (("--compare", "tensorflow"), "--compare tensorflow is unknown"),
        (("--json", "no/evidence.json"), "whose folder"),
    ],
)
def test_errors_of_the_command_are_one_sentence(clip, capsys, arguments, message):
    run("--clip", clip, *arguments, code=1)
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1


def test_the_table_without_bfloat16_equals_the_evidence():
    text = (ROOT / "docs" / "cpu.md").read_text()
    times = {}
    for name in ("latency_cpu_small", "latency_cpu_small_int8"):
        for case in json.loads((RESULTS / "avx2" / f"{name}.json").read_text())["cases"]:
            p50 = {run: of["milliseconds"]["p50"] for run, of in case["runs"].items()}
            eager = p50.pop("PyTorch eager (authors)")
            for run, ms in p50.items():
                key = re.sub(r"_\d.*", "", run).replace("PyTorch compiled (torch)", "compile")
                times.setdefault((key, case["size"]), f"{eager / ms:.2f}")
    for row, key in {
        "torch.compile, after 40 to 50 s of compiling": "compile",
        "plain ONNX in ONNX Runtime": "plain_small",
        "artefact for ONNX Runtime": "ort_small",
        "artefact for OpenVINO": "ov_small",
        "int8 in ONNX Runtime": "int8ort_small",
        "int8 in OpenVINO": "int8ov_small",
    }.items():
        cells = " | ".join(times[key, size] for size in ("256x448", "720x1280", "1080x1920"))
        assert f"| {row} | {cells} |" in text


def test_a_model_of_another_size_or_with_other_inputs_is_refused(models, stacked, tmp_path):
    other = read_halved(write_clip(tmp_path / "other.mkv", 3, size=(48, 64)), None)
    for path in (stacked, models / "float.onnx"):
        with pytest.raises(MeasurementError, match=r"other.mkv with --io stacked --size 48x64"):
            Mlrt(other, path, "ov", sys.executable, 1)


def test_a_python_without_vapoursynth_is_one_sentence(clip, stacked, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(MeasurementError, match=r"does not run \(ModuleNotFoundError: .*: install"):
        Mlrt(read_halved(clip, 1), stacked, "ort", sys.executable, 1)


def test_a_filter_that_fails_later_is_one_sentence(clip, stacked, mlrt_python):
    method = Mlrt(read_halved(clip, 1), stacked, "ort", mlrt_python, 1)
    method._process.kill()
    with pytest.raises(
        MeasurementError, match=r"does not run \(it exited without a message\): install"
    ):
        method.run()
