"""Exports compared with PyTorch: sizes, time steps, precisions, and the command."""

import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from av.video.frame import VideoFrame

from commands import run_main
from export import to_onnx
from export.errors import ExportError, GateError
from export.from_checkpoint import checked_from_checkpoint
from export.gate.cases import moving_frames
from export.gate.gate import REQUIRED_DB
from export.wrapper import ExportOptions, wrap
from runtime import Interpolator
from runtime.frames import to_planes
from runtime.telemetry import import_quietly

onnxruntime = import_quietly("onnxruntime")


def run_onnx(model, *inputs):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["imgt"], dict(zip(("img0", "img1", "timestep"), inputs, strict=True)))[0]


def steps(*values):
    return np.array(values, np.float32).reshape(-1, 1, 1, 1)


def in_pytorch(network, options, *inputs):
    with torch.inference_mode():
        return wrap(network, options).unrounded(*map(torch.from_numpy, inputs)).numpy()


@pytest.mark.parametrize("size", [(48, 64), (64, 96), (144, 208)])
def test_dynamic_float_models_equal_pytorch_at_sizes_that_were_not_traced(
    export, demo_network, size
):
    options = ExportOptions(64, 80, io="float", dynamic=True)
    model = export(height=64, width=80, io="float", dynamic=True).model
    frames = [to_planes(f, 16) for f in moving_frames(*size, 6.0)]
    expected = in_pytorch(demo_network, options, *frames, steps(0.25))
    np.testing.assert_allclose(run_onnx(model, *frames, steps(0.25)), expected, atol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (50, 70), (64, 80), (131, 93), (150, 200)])
def test_dynamic_frames_models_equal_pytorch_at_sizes_that_were_not_traced(
    export, demo_network, size
):
    options = ExportOptions(64, 80, dynamic=True)
    model = export(height=64, width=80, dynamic=True).model
    frames = [f[None] for f in moving_frames(*size, 3.0)]
    expected = in_pytorch(demo_network, options, *frames, steps(0.5)).transpose(0, 2, 3, 1) * 255
    found = run_onnx(model, *frames, steps(0.5))
    assert found.shape == (1, *size, 3)
    # Half a level of rounding, and errors of float32.
    assert np.abs(found - expected).max() < 0.5 + 0.03


@pytest.mark.parametrize("options", [{}, {"io": "float"}, {"warp": "gather"}])
def test_a_free_number_of_pairs_equals_one_pair_at_a_time(export, options):
    height, width = (48, 64) if options else (50, 70)
    checked = export(height=height, width=width, **options, max_batch=3)
    one = export(height=height, width=width, **options).model
    assert checked.info.max_pairs == 3
    assert [len(case["timesteps"]) for case in checked.gate.cases] == [1, 3]
    pairs = [moving_frames(height, width, 4.0, seed=k) for k in range(3)]
    planes = "io" in options
    img0, img1 = (
        np.concatenate([to_planes(pair[k], 16) if planes else pair[k][None] for pair in pairs])
        for k in (0, 1)
    )
    times = steps(0.25, 0.5, 0.75)
    single = [run_onnx(one, img0[k : k + 1], img1[k : k + 1], times[k : k + 1]) for k in range(3)]
    for count in (1, 2, 3):
        found = run_onnx(checked.model, img0[:count], img1[:count], times[:count])
        expected = np.concatenate(single[:count])
        np.testing.assert_allclose(found, expected, atol=1e-5 if planes else 0)


def test_three_time_steps_equal_three_calls(export):
    three = export(height=50, width=70, timesteps=3).model
    one = export(height=50, width=70).model
    frames = [f[None] for f in moving_frames(50, 70, 4.0)]
    together = run_onnx(three, *frames, steps(0.25, 0.5, 0.75)).astype(int)
    apart = np.concatenate([run_onnx(one, *frames, steps(t)) for t in (0.25, 0.5, 0.75)])
    assert np.abs(together - apart).max() <= 1
    assert np.mean(together != apart) < 0.001


def test_flow_scale_reaches_the_graph(export, demo_network):
    options = ExportOptions(80, 100, io="float", flow_scale=0.8)
    model = export(height=80, width=100, io="float", flow_scale=0.8).model
    frames = [to_planes(f, 20) for f in moving_frames(80, 100, 6.0)]
    found = run_onnx(model, *frames, steps(0.5))
    expected = in_pytorch(demo_network, options, *frames, steps(0.5))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    plain = in_pytorch(demo_network, replace(options, flow_scale=1.0, width=96), *(
        f[..., :96] for f in frames), steps(0.5))  # fmt: skip
    assert np.abs(found[..., :96] - plain).max() > 1e-3, "the flow scale changes nothing"


@pytest.mark.parametrize("io", ["float", "frames"])
def test_float16_passes_its_gate_and_is_in_the_metadata(export, io):
    exported = export(height=64, width=80, io=io, precision="fp16")
    assert exported.info.precision == "fp16"
    names = {case["candidate"] for case in exported.gate.cases}
    assert "float16 simulated in PyTorch" in names
    assert REQUIRED_DB["fp16"] < exported.gate.psnr_db < 120
    size = exported.model.ByteSize()
    assert size < 0.6 * export(height=64, width=80, io="float").model.ByteSize()


def test_weights_that_ignore_the_time_step_are_recognised(midpoint_checkpoint, export):
    assert export(midpoint_checkpoint, height=50, width=70).info.time_steps == "midpoint"
    assert export(height=50, width=70).info.time_steps == "arbitrary"


def test_a_failed_gate_writes_nothing(monkeypatch):
    monkeypatch.setitem(REQUIRED_DB, "fp32", 1000.0)
    with pytest.raises(GateError, match="nothing was written"):
        checked_from_checkpoint("demo", ExportOptions(32, 48))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"io": "float", "height": 50, "width": 70}, "use 64x80"),
        ({"height": 15, "width": 70}, "below 16x16"),
        ({"timesteps": 0}, "--steps-per-call is 0: use 1 to 64"),
        ({"timesteps": 65}, "--steps-per-call is 65: use 1 to 64"),
        ({"batch": 0}, "--batch is 0: use 1 to 64"),
        ({"batch": 65}, "--batch is 65: use 1 to 64"),
        ({"flow_scale": 0.0}, "flow scale"),
        ({"io": "bytes"}, "use float, frames"),
        ({"precision": "int8"}, "use fp32, fp16"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ExportError, match=message):
        _ = ExportOptions(**options).divisor


def test_the_command_writes_a_file_and_prints_the_comparison(tmp_path):
    out = tmp_path / "model.onnx"
    done = run_main(
        "export.to_onnx", "--weights", "demo", "--size", "32x48", "--output", out, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dB, largest difference") == 2
    model = onnx.load(out)
    nodes = len(model.graph.node)
    assert f"  model: small, fp32, {nodes} nodes, time steps: arbitrary\n" in done.stdout
    onnx.checker.check_model(model, full_check=True)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_the_size_can_be_taken_from_images(tmp_path):
    picture = VideoFrame.from_ndarray(np.zeros((34, 52, 3), np.uint8), format="rgb24")
    (tmp_path / "like").mkdir()
    for number in (1, 2):
        picture.save(str(tmp_path / "like" / f"{number}.png"))
    done = run_main(
        "export.to_onnx", "--weights", "demo", "--like", "like", "--output", "model.onnx",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with Interpolator.open(tmp_path / "model.onnx") as vfi:
        assert vfi.info.size == (34, 52)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "demo", "--like", "none.mp4"], "none.mp4 does not exist"),
        (["--weights", "none.pth"], "none.pth does not exist: give a checkpoint file, or demo"),
        (["--weights", "demo", "--size", "30x40", "--io", "float"], "use 32x48"),
        (["--weights", "demo", "--size", "32x48", "--output", "no/where.onnx"], "create it first"),
    ],
)
def test_errors_of_the_command_are_one_sentence(tmp_path, arguments, message):
    arguments = arguments if "--output" in arguments else [*arguments, "--output", "model.onnx"]
    done = run_main("export.to_onnx", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_mean_of_large_frames_is_exact(export):
    """A mean over the frame in one step would lose 30 dB: ONNX Runtime sums value by value."""
    assert export(height=352, width=592, io="float").gate.psnr_db > 115


def test_ctrl_c_stops_an_export(tmp_path):
    arguments = ["-m", "export.to_onnx", "--weights", "demo", "--output", str(tmp_path / "m.onnx")]
    with subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr.readline().startswith("stage ")
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
    lines = [line for line in errors.splitlines() if not line.startswith("stage ")]
    assert (run.returncode, lines) == (130, ["python -m export.to_onnx: interrupted"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "noted"),
    [(["--size", "2160x3840"], True), (["--size", "2160x3840", "--flow-scale", "1"], False),
     (["--size", "2160x3840", "--dynamic"], False), ([], False)],
)  # fmt: skip
def test_the_command_recommends_a_flow_scale_for_4k(tmp_path, monkeypatch, capsys, options, noted):
    def stop(*_, **__):
        raise ExportError("stopped")

    monkeypatch.setattr("export.from_checkpoint.checked_from_checkpoint", stop)
    with pytest.raises(SystemExit):
        to_onnx.main(["--weights", "demo", *options, "--output", str(tmp_path / "m.onnx")])
    printed = capsys.readouterr()
    assert printed.err.endswith("stopped\n")
    assert printed.out.startswith("note: 2160x3840 without --flow-scale") == noted
    assert len(printed.out.splitlines()) == noted


def test_weights_that_cannot_be_loaded_are_an_error_of_the_export(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"")
    with pytest.raises(ExportError, match=r"weights\.pth is empty: "):
        checked_from_checkpoint(tmp_path / "weights.pth", ExportOptions(32, 48))


def test_an_exporter_that_returns_nothing_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: None)
    with pytest.raises(ExportError, match=r"returned nothing: install torch 2\.10 or newer"):
        checked_from_checkpoint("demo", ExportOptions(32, 48))
