"""bench.parity: compares the frames of PyTorch and artefacts; its record can be resumed."""

import itertools
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from artefacts import initializer
from bench.data.protocols import PROTOCOLS
from bench.data.samples import Frames
from bench.environment import MeasurementError
from bench.quality import evaluate
from bench.quality.evaluate import Artefact, Comparison, interpolate_sample
from bench.quality.metrics import psnr
from bench.quality.record import ParityRecord, read_lines
from bench.quality.summary import failures, summarise, summary_of, table, worst_frames
from bench.quality.worst_frames import ERROR_GAIN, heat_map
from bench.runs.authors import load_reference
from bench.runs.torch_backend import TorchBackend, our_forward, reference_info
from commands import run_module
from export.store import write_onnx
from parity_runs import SIZE, save_image, triplet, ucf101_arguments
from paths import DATA
from runtime import Interpolator
from runtime.files import HAS_FLOCK


def db(value):
    """A PSNR as in a record, which has none for identical images."""
    return math.inf if value is None else value


def middle_of(network, frame0, frame1, top=7, left=5):
    """The middle frame of the network itself, with padding by hand: 50x70 -> 64x80, centred."""
    planes = [
        torch.from_numpy(np.pad(f, ((top, 7), (left, 5), (0, 0)), mode="edge"))
        .permute(2, 0, 1)[None]
        .float()
        / 255
        for f in (frame0, frame1)
    ]
    with torch.inference_mode():
        made = network(*planes, torch.full((1, 1, 1, 1), 0.5))[0]
    return made[:, top : top + 50, left : left + 70].permute(1, 2, 0).numpy()


def test_floats_and_bytes_are_compared_with_the_same_kind_of_reference(
    models, ucf101, demo_network, run, tmp_path
):
    lines, printed = run(*ucf101_arguments(models, ucf101, "float", "frames"))
    header, *samples, last = lines
    assert header["configuration"]["dataset"] == "ucf101"
    assert header["configuration"]["samples"] == 3
    assert header["configuration"]["official_samples"] == 379
    assert header["environment"]["command"]
    kinds = {a["name"]: a["compared"] for a in header["configuration"]["artefacts"]}
    assert kinds == {"float.onnx": "floats", "frames.onnx": "bytes"}
    assert [line["sample"] for line in samples] == ["1", "2", "3"]

    frame0, truth, frame1 = triplet(4)
    by_hand = middle_of(demo_network, frame0, frame1)
    (floats,) = samples[1]["reference"]["floats"]["psnr"]
    (rounded,) = samples[1]["reference"]["bytes"]["psnr"]
    assert floats == pytest.approx(psnr(by_hand, truth / 255.0), abs=1e-6)
    assert rounded == pytest.approx(psnr(np.rint(by_hand * 255) / 255, truth / 255.0), abs=1e-6)
    assert floats != rounded
    with Interpolator.open(models / "frames.onnx") as vfi:
        made = vfi.interpolate(frame0, frame1)
    (artefact,) = samples[1]["artefacts"]["frames.onnx"]["psnr"]
    assert artefact == psnr(made / 255.0, truth / 255.0)

    found = last["summary"]["artefacts"]
    assert found["float.onnx"]["against_reference"]["worst"]["psnr"] > 100
    assert db(found["frames.onnx"]["against_reference"]["worst"]["psnr"]) > 70
    assert abs(found["frames.onnx"]["drop"]) < 0.01
    assert "  3 of the official 379 samples\n" in printed


def _comparison(models, name, kinds, protocol=PROTOCOLS["ucf101"], weights="demo"):
    checkpoint = load_reference(weights)
    vfi = Interpolator.open(models / f"{name}.onnx")
    forward = our_forward(checkpoint.network)

    def reference(io):
        info = reference_info(checkpoint, vfi.info.time_steps, io=io)
        return Interpolator(TorchBackend(forward, info, name="PyTorch"))

    io = {"floats": "float", "bytes": "frames"}
    references = {kind: reference(io[kind]) for kind in kinds}
    compared = "floats" if vfi.info.io == "float" else "bytes"
    artefact = Artefact(f"{name}.onnx", models / f"{name}.onnx", vfi, compared)
    return Comparison(protocol, ("psnr",), references, [artefact])


@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_the_reference_does_not_depend_on_the_other_kinds_compared(models, kind):
    frame0, truth, frame1 = triplet(4)
    frames = Frames(frame0, frame1, [truth])
    model = {"bytes": "frames", "floats": "float"}[kind]
    alone = interpolate_sample(_comparison(models, model, [kind]), "1", frames)
    both = interpolate_sample(_comparison(models, model, ["bytes", "floats"]), "1", frames)
    np.testing.assert_array_equal(alone.references[kind], both.references[kind])


def test_recursion_of_the_reference_rounds_like_the_artefact(midpoint_model, midpoint_checkpoint):
    protocol = PROTOCOLS["gopro"]
    frame0, truth, frame1 = triplet(8)
    frames = Frames(frame0, frame1, [truth] * 7)
    kinds = ["bytes", "floats"]
    comparison = _comparison(
        midpoint_model.parent, "midpoint", kinds, protocol, str(midpoint_checkpoint)
    )
    made = interpolate_sample(comparison, "1", frames)
    rounded_last = [np.rint(p * np.float32(255)) for p in made.references["floats"]]
    rounded = [np.rint(p * 255) for p in made.references["bytes"]]
    against = list(zip(made.artefacts["midpoint.onnx"], made.references["bytes"], strict=True))
    assert min(psnr(*pair) for pair in against) > 70
    # The frame at 1/8 is computed from frames that were rounded; the middle frame is not.
    assert not np.array_equal(rounded_last[0], rounded[0])
    np.testing.assert_array_equal(rounded_last[3], rounded[3])


def test_a_resumed_run_measures_only_what_is_missing(models, ucf101, run, tmp_path, monkeypatch):
    whole, _ = run(*ucf101_arguments(models, ucf101))
    path = tmp_path / "parity.jsonl"
    texts = path.read_text().splitlines(keepends=True)
    path.write_text("".join(texts[:3]) + texts[3][:40])  # Killed during the last write.
    assert whole[-1]["summary"]["wall_seconds"] > 0
    measured = []
    real = evaluate.interpolate_sample
    monkeypatch.setattr(
        evaluate,
        "interpolate_sample",
        lambda comparison, name, frames: measured.append(name) or real(comparison, name, frames),
    )
    resumed, _ = run(*ucf101_arguments(models, ucf101), "--resume")
    assert measured == ["3"]
    assert resumed[-1]["summary"]["wall_seconds"] is None  # The time of the whole run is unknown.
    for before, after in zip(whole[1:], resumed[1:], strict=True):
        for one in (before, after):
            found = one.get("summary", one)
            found.pop("wall_seconds" if "summary" in one else "seconds")
        assert before == after
    again, _ = run(*ucf101_arguments(models, ucf101), "--resume")
    assert measured == ["3"]
    assert len(again) == len(resumed)


def test_another_configuration_is_not_resumed(models, ucf101, run):
    before, _ = run(*ucf101_arguments(models, ucf101))
    after, printed = run(*ucf101_arguments(models, ucf101), "--limit", "2", "--resume", code=1)
    assert "measured with other limit, samples" in printed
    assert after == before


def test_an_existing_record_is_replaced_only_with_overwrite_and_other_files_are_refused(
    models, ucf101, run, tmp_path
):
    before, _ = run(*ucf101_arguments(models, ucf101))
    after, printed = run(*ucf101_arguments(models, ucf101), code=1)
    assert "give --resume to continue it, or --overwrite to replace it" in printed
    assert after == before
    shorter, _ = run(*ucf101_arguments(models, ucf101), "--limit", "1", "--overwrite")
    assert len(shorter) == 3
    for text in (
        "not JSON\n",
        '{"kind": "latency"}\n',
        '{"kind": "parity", "format_version": 9}\n',
        "",
    ):
        other = tmp_path / "other.jsonl"
        other.write_text(text)
        with pytest.raises(MeasurementError, match=r"not JSON|not a file of|format version 9"):
            read_lines(other)


def test_a_damaged_image_is_named_counted_and_fails_the_gate(models, ucf101, run, tmp_path):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(ucf101, root)
    (root / "ucf101_interp_ours" / "2" / "frame_02.png").write_bytes(b"\x89PNG\r\n\x1a\nhalf")
    lines, printed = run(*ucf101_arguments(models, root), "--max-drop", "1", code=1)
    assert [line["sample"] for line in lines[1:4]] == ["1", "2", "3"]
    assert "frame_02.png cannot be read" in lines[2]["damaged"]
    assert lines[-1]["summary"]["damaged"] == ["2"]
    assert lines[-1]["summary"]["samples"] == 2
    assert "1 samples could not be read: 2" in printed
    assert "FAILED: 1 samples could not be read, --max-drop needs all" in printed


def test_the_gate_names_artefact_and_sample_of_a_loss(ucf101, export, run, tmp_path):
    model = export(height=50, width=70).model
    bias = initializer(model, "network.decoder1.convblock.2.bias")
    # Mask and colours of all pixels are wrong by little; only a comparison shows it.
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 0.02, bias.name))
    write_onnx(model, tmp_path / "worse.onnx")
    arguments = ucf101_arguments(tmp_path, ucf101, "worse")
    lines, printed = run(*arguments, "--max-drop", "0.01", code=1)
    assert "FAILED: worse.onnx loses" in printed
    worst = lines[-1]["summary"]["artefacts"]["worse.onnx"]["worst_drop"]
    assert f"worst: {worst['sample']} at 0.5" in printed
    run(*arguments, "--max-drop", "60", "--overwrite")


def test_a_flow_scale_other_than_the_protocols_is_refused(
    models, export, run, tmp_path, monkeypatch
):
    root = tmp_path / "snu"
    for name, frame in zip(("000001", "000002", "000003"), triplet(4, (70, 90)), strict=True):
        save_image(frame, root / "test" / "GOPRO_test" / "seq" / f"{name}.png")
    paths = " ".join(f"data/SNU-FILM/test/GOPRO_test/seq/00000{k}.png" for k in (1, 2, 3))
    (root / "test-hard.txt").write_text(f"{paths}\n")
    monkeypatch.setitem(
        PROTOCOLS, "snufilm-hard", replace(PROTOCOLS["snufilm-hard"], frame_size=(70, 90))
    )
    arguments = ("--weights", "demo", "--dataset", "snufilm-hard", "--root", root)
    _, printed = run("--model", models / "frames.onnx", *arguments, code=1)
    assert "measured at flow scale 0.8, but the models have 1" in printed
    scaled = export(height=80, width=100, io="float", flow_scale=0.8)  # Frames pad to 20.
    write_onnx(scaled.model, tmp_path / "scaled.onnx")
    lines, _ = run("--model", tmp_path / "scaled.onnx", *arguments)
    found = lines[-1]["summary"]["artefacts"]["scaled.onnx"]
    assert db(found["against_reference"]["worst"]["psnr"]) > 60
    assert lines[1]["sample"] == "seq/000002"


def test_middlebury_is_measured_on_its_black_canvas(models, run, tmp_path):
    frame0, truth, frame1 = triplet(4, (380, 420))
    for name, frame in (("frame10", frame0), ("frame11", frame1)):
        save_image(frame, tmp_path / "other-data" / "Venus" / f"{name}.png")
    save_image(truth, tmp_path / "other-gt-interp" / "Venus" / "frame10i11.png")
    lines, _ = run(
        "--model", models / "dynamic.onnx", "--weights", "demo", "--dataset", "middlebury",
        "--root", tmp_path, "--authors-weights",
    )  # fmt: skip
    (made,) = lines[1]["artefacts"]["dynamic.onnx"]["psnr"]
    canvas0, canvas1 = np.zeros((2, 480, 640, 3), np.uint8)
    canvas0[:380, :420], canvas1[:380, :420] = frame0, frame1
    with Interpolator.open(models / "dynamic.onnx") as vfi:
        by_hand = vfi.interpolate(canvas0, canvas1)[:380, :420]
    assert made == psnr(by_hand / 255.0, truth / 255.0)
    assert lines[1]["artefacts"]["dynamic.onnx"]["ie"][0] > 0
    assert lines[-1]["summary"]["published"]["ie"] == 1.995


def test_the_frames_of_a_clip_are_the_truth(models, run, tmp_path):
    from moving_clips import write_clip

    write_clip(tmp_path / "clip.mp4", 9, size=SIZE)
    arguments = ("--weights", "demo", "--dataset", "folder", "--root", tmp_path / "clip.mp4")
    lines, printed = run("--model", models / "frames.onnx", *arguments, "--limit", "3")
    assert [line["sample"] for line in lines[1:-1]] == ["frame 0", "frame 2", "frame 4"]
    assert "clip.mp4, 3 samples" in printed
    lines, _ = run("--model", models / "three.onnx", *arguments, "--factor", "4", "--overwrite")
    by_timestep = lines[-1]["summary"]["artefacts"]["three.onnx"]["by_timestep"]
    assert [row[0] for row in by_timestep] == [0.25, 0.5, 0.75]
    assert len(lines[1]["artefacts"]["three.onnx"]["psnr"]) == 3


def test_the_worst_frames_are_written_with_their_errors(models, ucf101, run, tmp_path):
    lines, _ = run(
        *ucf101_arguments(models, ucf101, "float", "frames"),
        "--pictures",
        tmp_path / "worst",
        "--worst",
        "2",
    )
    summary = lines[-1]["summary"]
    assert len(summary["pictures"]) == 4
    for shown in summary["pictures"]:
        reference, made, error = (
            np.array(Image.open(tmp_path / shown[kind])) for kind in ("reference", "made", "error")
        )
        assert reference.shape == made.shape == error.shape == (*SIZE, 3)
        assert np.abs(reference.astype(int) - made).max() <= 1
    shown = [p for p in summary["pictures"] if p["artefact"] == "float.onnx"]
    named = summary["artefacts"]["float.onnx"]["against_reference"]["worst"]
    assert (shown[0]["sample"], shown[0]["psnr"]) == (named["sample"], named["psnr"])
    assert shown[0]["psnr"] <= shown[1]["psnr"]


def test_the_heat_map_is_black_without_error_and_bright_at_a_sixteenth():
    reference = np.zeros((2, 2, 3))
    made = reference.copy()
    made[0, 0, 1] = 1 / ERROR_GAIN
    made[0, 1, 1] = 1 / ERROR_GAIN / 2
    shown = heat_map(reference, made).astype(int)
    assert shown[1, 1].max() < 5
    assert shown[0, 0].sum() > shown[0, 1].sum() > shown[1, 1].sum()
    assert shown[0, 0].min() > 100


class _Broken:
    """A model that returns invalid images."""

    def __init__(self, vfi, value):
        self.info, self._vfi, self._value = vfi.info, vfi, value

    def interpolate(self, frame0, frame1, *, timesteps):
        made = self._vfi.interpolate(frame0, frame1, timesteps=timesteps)
        made[0][3, 4, 1] = self._value
        return made


@pytest.mark.parametrize("value", [math.nan, 1.5, -0.1, math.inf])
def test_an_invalid_prediction_is_an_error(models, value):
    comparison = _comparison(models, "float", ["floats"])
    artefact = comparison.artefacts[0]
    broken = artefact._replace(vfi=_Broken(artefact.vfi, value))
    frame0, truth, frame1 = triplet(4)
    with pytest.raises(MeasurementError, match=r"the new frame of float\.onnx for sample 7 has"):
        interpolate_sample(
            comparison._replace(artefacts=[broken]), "7", Frames(frame0, frame1, [truth])
        )


def test_frames_that_the_artefact_cannot_take_are_an_error(models, run, tmp_path):
    for name, frame in zip(("1", "2", "3"), triplet(4, (40, 40)), strict=True):
        save_image(frame, tmp_path / "frames" / "seq" / f"{name}.png")
    _, printed = run(
        "--model", models / "frames.onnx", "--weights", "demo", "--dataset", "folder",
        "--root", tmp_path / "frames", code=1,
    )  # fmt: skip
    assert "frames.onnx cannot interpolate sample seq/1: frames are 40x40" in printed


GIVEN = ("--model", "m.onnx", "--weights", "demo")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model or --weights is missing"),
        (GIVEN, "--dataset or --root is missing"),
        (
            ["--model", "m.onnx", "--weights", "demo", "--dataset", "ucf101", "--root", "nowhere"],
            "nowhere does not exist: give --root a folder that has ucf101",
        ),
        (
            ["--model", "m.onnx", "--weights", "demo", "--dataset", "ucf101", "--root", ".",
             "--factor", "8"],
            "--factor was given with --dataset ucf101",
        ),
        ([*GIVEN, "--worst", "0"], "--worst is 0: use 1 or more"),
        ([*GIVEN, "--threads", "0"], "--threads is 0: use 1 or more"),
        ([*GIVEN, "--max-drop", "nan"], "--max-drop is nan: give a number in dB"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(run, arguments, message):
    _, printed = run(*arguments, code=1)
    assert message in printed


def test_an_output_that_cannot_be_written_is_an_error_before_the_measurement(
    models, ucf101, run, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluate, "interpolate_sample", lambda *_: pytest.fail("measured"))
    nowhere = tmp_path / "nowhere"
    _, printed = run(*ucf101_arguments(models, ucf101), output=nowhere / "p.jsonl", code=1)
    assert f"folder {nowhere} does not exist: create the folder" in printed
    (tmp_path / "file").touch()
    _, printed = run(*ucf101_arguments(models, ucf101), "--pictures", tmp_path / "file", code=1)
    assert "file" in printed


def test_a_device_that_pytorch_lacks_is_named(models, ucf101, run):
    _, printed = run(*ucf101_arguments(models, ucf101), "--reference-device", "cuda:99", code=1)
    assert "PyTorch cannot compute on 'cuda:99' (" in printed
    assert "give another --reference-device" in printed


def test_models_of_equal_names_or_different_kinds_are_refused(
    models, midpoint_model, ucf101, run, tmp_path
):
    (tmp_path / "frames.onnx").write_bytes((models / "frames.onnx").read_bytes())
    arguments = ("--weights", "demo", "--dataset", "ucf101", "--root", ucf101)
    both = ("--model", models / "frames.onnx", tmp_path / "frames.onnx")
    assert "same file name" in run(*both, *arguments, code=1)[1]
    mixed = ("--model", models / "frames.onnx", midpoint_model)
    _, printed = run(*mixed, *arguments, "--allow-mismatch", code=1)
    assert "midpoint.onnx has midpoint time steps and frames.onnx has arbitrary time" in printed
    assert "measure them in separate runs" in printed


def test_pytorch_returns_the_mean_with_flipped_frames_too(models, export, ucf101, run, tmp_path):
    write_onnx(export(height=50, width=70, tta=True).model, tmp_path / "tta.onnx")
    arguments = ("--weights", "demo", "--dataset", "ucf101", "--root", ucf101)
    lines, _ = run("--model", tmp_path / "tta.onnx", *arguments)
    reference = lines[0]["configuration"]["reference"]
    assert reference == "float32 PyTorch on cpu, mean with flipped frames"
    found = lines[-1]["summary"]["artefacts"]["tta.onnx"]
    assert found["against_reference"]["mean"] is None or found["against_reference"]["mean"] > 70
    assert found["psnr"] == pytest.approx(found["reference_psnr"], abs=1e-3)
    mixed = ("--model", models / "frames.onnx", tmp_path / "tta.onnx")
    _, printed = run(*mixed, *arguments, code=1)
    assert "tta.onnx has a mean with flipped frames and frames.onnx has no mean" in printed


def test_the_command_as_a_user_runs_it(models, ucf101, tmp_path):
    done = run_module("bench.parity", *ucf101_arguments(models, ucf101), "--limit", "1")
    assert done.returncode == 1
    assert (
        "the frames on disk are 50x70 (sample 1), and UCF101 is measured with frames of 256x256: "
        "give what matches, or --allow-mismatch"
    ) in done.stderr
    done = run_module(
        "bench.parity", *ucf101_arguments(models, ucf101), "--limit", "1", "--allow-mismatch"
    )
    assert done.returncode == 0, done.stderr
    assert "forced: the frames on disk are 50x70" in done.stdout
    assert "frames.onnx" in done.stdout
    listed = run_module("bench.parity", "--list")
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in PROTOCOLS)


def test_other_weights_are_refused_unless_forced_with_a_note(
    models, midpoint_checkpoint, ucf101, run
):
    arguments = (*ucf101_arguments(models, ucf101, weights=midpoint_checkpoint), "--limit", "1")
    lines, printed = run(*arguments, code=1)
    assert lines == []
    assert "give what matches, or --allow-mismatch" in printed
    lines, _ = run(*arguments, "--allow-mismatch")
    assert any("forced: frames.onnx" in note for note in lines[0]["configuration"]["notes"])


def line(sample, reference, made, against, kind="bytes", **metrics):
    return {
        "sample": sample,
        "seconds": 0.5,
        "reference": {kind: {"psnr": reference, "ssim_3d": [0.5] * len(made)}},
        "artefacts": {
            "m": {"psnr": made, "ssim_3d": [0.25] * len(made), "against_reference": against}
        },
    }


def test_the_summary_equals_figures_computed_by_hand():
    lines = [
        line("a", [30.0], [29.0], [50.0]),
        line("b", [40.0], [40.5], [None]),
        {"sample": "c", "damaged": "c.png cannot be read"},
    ]
    summary = summarise(lines, {"m": "bytes"}, ["psnr", "ssim_3d"], 2)
    assert summary["samples"] == 2
    assert summary["damaged"] == ["c"]
    found = summary["artefacts"]["m"]
    assert (found["reference_psnr"], found["psnr"], found["drop"]) == (35.0, 34.75, 0.25)
    assert (found["ssim_3d"], found["reference_ssim_3d"]) == (0.25, 0.5)
    assert found["against_reference"] == {
        "mean": 50.0,
        "identical": 1,
        "worst": {"sample": "a", "timestep": 0.5, "psnr": 50.0},
    }
    assert found["worst_drop"] == {"sample": "a", "timestep": 0.5, "drop": 1.0}
    assert found["by_timestep"] == []


def test_a_frame_identical_to_the_truth_is_in_neither_mean():
    lines = [line("a", [None], [60.0], [60.0]), line("b", [30.0], [30.0], [None])]
    found = summary_of(lines, "m", "bytes", ["psnr"], 2)
    assert (found["reference_psnr"], found["psnr"], found["drop"]) == (30.0, 30.0, 0.0)
    assert found["identical_to_truth"] == 1
    everything = [line("a", [None], [None], [None])]
    found = summary_of(everything, "m", "bytes", ["psnr"], 2)
    assert found["drop"] == 0.0
    assert math.isinf(found["psnr"])
    assert found["worst_drop"] is None


def test_means_for_factor_8_are_over_all_new_frames():
    lines = [line("a", [30.0, 40.0, 50.0], [30.0, 40.0, 44.0], [60.0, 50.0, 55.0])]
    found = summary_of(lines, "m", "bytes", ["psnr"], 4)
    assert found["drop"] == pytest.approx(2.0)
    assert found["by_timestep"] == [[0.25, 30.0, 30.0], [0.5, 40.0, 40.0], [0.75, 50.0, 44.0]]
    assert found["against_reference"]["worst"]["timestep"] == 0.5
    assert [f.timestep for _, f in worst_frames(lines, {"m": "bytes"}, 2)] == [0.5, 0.75]


def test_the_gate_equals_a_decision_by_hand():
    lines = [line("a", [30.0], [29.5], [50.0]), line("b", [30.0], [30.0], [50.0])]
    summary = summarise(lines, {"m": "bytes"}, ["psnr"], 2)
    assert failures(lines, summary, 0.25) == []
    (sentence,) = failures(lines, summary, 0.24)
    assert sentence == (
        "m loses 0.2500 dB against PyTorch, --max-drop is 0.24; worst: a at 0.5: 0.5000 dB"
    )


def test_the_table_shows_published_figures_and_missing_samples():
    lines = [line("a", [30.0], [29.5], [None])]
    published = {
        "source": "somebody",
        "psnr": 35.0,
        "ssim": 0.9,
        "ssim_kind": "ssim_2d",
        "ie": None,
    }
    summary = {
        **summarise(lines, {"m": "bytes"}, ["psnr", "ssim_3d"], 2),
        "damaged": ["x"],
        "published": published,
        "wall_seconds": 12.34,
    }
    configuration = {
        "title": "UCF101",
        "metrics": ["psnr", "ssim_3d"],
        "weights": {"name": "w.pth", "variant": "small"},
        "samples": 2,
        "official_samples": 379,
        "every": 1,
        "limit": None,
        "notes": ["forced: another flow scale"],
    }
    printed = "\n".join(table(configuration, summary))
    assert "UCF101, 1 samples in 12.3 s, weights w.pth (small)" in printed
    assert "  published:      35.00 dB, SSIM (2D) 0.9000 (somebody)\n  2 of" in printed
    assert "\n  2 of the official 379 samples\n  forced: another flow scale\n" in printed
    assert "identical (a)" in printed
    assert "-0.5000" in printed
    assert "1 samples could not be read: x" in printed


def test_the_table_counts_new_frames_that_are_identical_to_pytorch():
    lines = [line("a", [30.0], [30.0], [None]), line("b", [31.0], [31.0], [90.0])]
    summary = {
        **summarise(lines, {"m": "bytes"}, ["psnr"], 2), "published": None, "wall_seconds": None,
    }  # fmt: skip
    configuration = {
        "title": "UCF101", "metrics": ["psnr"], "weights": {"name": "w", "variant": "small"},
        "samples": 2, "official_samples": 2, "every": 1, "limit": None, "notes": [],
    }  # fmt: skip
    (row,) = (text for text in table(configuration, summary) if text.startswith("  m "))
    assert "90.0 dB (1 identical)  90.0 dB (b)" in row


def test_the_file_has_no_infinite_numbers(tmp_path):
    path = tmp_path / "p.jsonl"
    with ParityRecord(path, {"a": (1, 2)}, resume=False, overwrite=False) as record:
        record.add({"sample": "1", "psnr": [math.inf, 1.0]})
        record.finish({"mean": math.inf})
    assert "Infinity" not in path.read_text()
    header, sample, last = read_lines(path)
    assert header["configuration"] == {"a": [1, 2]}
    assert sample["psnr"] == [None, 1.0]
    assert last == {"summary": {"mean": None}}
    with ParityRecord(path, {"a": (1, 2)}, resume=True, overwrite=False) as record:
        assert record.done == {"1"}


RUN = """
import sys
from pathlib import Path
from bench.quality.record import ParityRecord
how = {"resume": sys.argv[2] == "resume", "overwrite": sys.argv[2] == "overwrite"}
with ParityRecord(Path(sys.argv[1]), {"a": 1}, **how) as record:
    record.add({"sample": "of another run"})
"""


@pytest.mark.skipif(not HAS_FLOCK, reason="flock is of POSIX")
@pytest.mark.parametrize("first", ["new", "resume"])
@pytest.mark.parametrize("second", ["resume", "overwrite"])
def test_a_second_run_cannot_write_to_the_file_of_the_first(tmp_path, first, second):
    path = tmp_path / "p.jsonl"
    if first == "resume":
        with ParityRecord(path, {"a": 1}, resume=False, overwrite=False) as record:
            record.add({"sample": "0"})
    with ParityRecord(path, {"a": 1}, resume=first == "resume", overwrite=False) as record:
        record.add({"sample": "1"})
        command = [sys.executable, "-c", RUN, str(path), second]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "p.jsonl is being written by another run: wait for it" in done.stderr
        record.add({"sample": "2"})
        expected = [*(["0"] if first == "resume" else []), "1", "2"]
    assert [line["sample"] for line in read_lines(path)[1:]] == expected
    with pytest.raises(MeasurementError, match="other a"):
        ParityRecord(path, {"a": 2}, resume=True, overwrite=False)
    # No lock is left, neither after success nor after an error.
    with ParityRecord(path, {"a": 1}, resume=False, overwrite=True) as record:
        assert record.done == set()


def test_a_record_can_be_written_to_a_device():
    for _ in range(2):
        with (
            ParityRecord(Path("/dev/null"), {}, resume=False, overwrite=True) as record,
            ParityRecord(Path("/dev/null"), {}, resume=False, overwrite=True),
        ):
            record.add({"sample": "1"})


def test_a_real_video_can_be_measured(models, run):
    """Real frames of another size than the fixed models; the dynamic one accepts them."""
    lines, _ = run(
        "--model", models / "dynamic.onnx", "--weights", "demo", "--dataset", "folder",
        "--root", DATA / "bear-vp9-odd-dimensions.webm", "--every", "5", "--limit", "2",
    )  # fmt: skip
    names = [sample["sample"] for sample in lines[1:-1]]
    assert names == [f"frame {k}" for k in (0, 10)]
    for one in itertools.islice(lines, 1, 3):
        assert min(map(db, one["artefacts"]["dynamic.onnx"]["against_reference"])) > 70
