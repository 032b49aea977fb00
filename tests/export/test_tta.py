"""--tta: the mean with the result for the flipped frames, compared with two passes in PyTorch."""

import numpy as np
import onnx
import pytest
import torch

from bench.runs.authors import random_network
from commands import build_without_torch, run_main
from export import wrapper
from export.candidate import finalise
from export.errors import GateError
from export.from_checkpoint import checked_from_checkpoint
from export.gate import gate as gate_module
from export.gate.cases import moving_frames
from export.gate.runners import onnx_runner, openvino_runner
from export.int8 import build as int8
from export.source import source_from_model
from export.store import write_onnx
from export.trt.build import BuildOptions
from export.trt.engine import EngineRequest, target_at, write_engine
from export.wrapper import ExportOptions
from image_folders import image_folder
from runtime import Interpolator
from runtime.frames import padding
from runtime.manifest import EngineManifest, manifest_path

TIMES = (0.25, 0.5, 0.875)
PADDED = {"height": 50, "width": 61}
"""Of the missing rows and columns, 14 and 3, the odd one is not the same at both sides."""

GRAPHS = {
    "frames": PADDED,
    "float": {"height": 48, "width": 64, "io": "float"},
    "steps": {**PADDED, "timesteps": 3},
    "batch": {**PADDED, "batch": 3},
    "free pairs": {**PADDED, "max_batch": 3},
    "free size": {"height": 64, "width": 80, "dynamic": True},
    "flow scale": {**PADDED, "flow_scale": 0.8},
    "gather": {**PADDED, "warp": "gather"},
}


def one_pass(network, pair, time, flow_scale, multiple):
    """The result for frames (H, W, 3) of any size, (H, W, 3) in [0, 1]."""
    height, width, _ = pair[0].shape
    rows, columns = padding(height, multiple), padding(width, multiple)
    planes = [
        torch.from_numpy(np.pad(frame / np.float32(255), (rows, columns, (0, 0)), "edge"))
        for frame in pair
    ]
    with torch.inference_mode():
        imgt = network(
            *(image.permute(2, 0, 1)[None] for image in planes),
            torch.full((1, 1, 1, 1), time), flow_scale,
        )  # fmt: skip
    whole = imgt[0].permute(1, 2, 0).numpy()
    return whole[rows[0] : rows[0] + height, columns[0] : columns[0] + width]


def mean_of_two(network, pair, time, flow_scale=1.0, multiple=16):
    """The mean of the results for the frames and for the frames flipped in both axes."""
    plain = one_pass(network, pair, time, flow_scale, multiple)
    turned = one_pass(network, [f[::-1, ::-1] for f in pair], time, flow_scale, multiple)
    return (plain + turned[::-1, ::-1]) / 2


def expected(network, info, size, times):
    """What `images_for` and the graph must give for `moving_frames`, (T, 3, H, W)."""
    pairs = [moving_frames(*size, 5.0)]
    while len(pairs) < len(times):  # As `images_for` makes them.
        pairs.append(tuple(np.roll(frame, 5, 1) for frame in reversed(pairs[-1])))
    if info.steps_per_call > 1:
        pairs = pairs[:1] * len(times)
    images = [
        mean_of_two(network, pair, time, info.flow_scale, info.divisor)
        for pair, time in zip(pairs, times, strict=True)
    ]
    return np.stack(images).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("tuned_for", ["any", "cpu"])
def test_a_graph_returns_the_mean_of_two_passes(export, demo_network, name, tuned_for):
    checked = export(**GRAPHS[name], tta=True)
    assert checked.info.tta
    assert checked.gate.psnr_db > 100
    model, info = finalise(onnx.ModelProto.FromString(checked.model.SerializeToString()),
                           checked.info, tuned_for)  # fmt: skip
    size = info.size or (77, 93)
    count = info.max_pairs or info.frames_per_call
    times = np.array(TIMES[:count], np.float32)
    found = onnx_runner(model, info)(*moving_frames(*size, 5.0), times.reshape(-1, 1, 1, 1))
    wanted = expected(demo_network, info, size, times)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    plain = one_pass(demo_network, moving_frames(*size, 5.0), times[0], info.flow_scale,
                     info.divisor)  # fmt: skip
    assert np.abs(wanted[0] - plain.transpose(2, 0, 1)).max() > 1e-2, "the mean changes nothing"


def test_openvino_returns_the_mean_of_two_passes(export, demo_network):
    checked = export(**GRAPHS["free size"], tta=True)
    found = openvino_runner(checked.model, checked.info)(
        *moving_frames(77, 93, 5.0), np.full((1, 1, 1, 1), 0.5, np.float32)
    )
    wanted = expected(demo_network, checked.info, (77, 93), [0.5])
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("variant", ["base", "large"])
def test_the_other_variants_pass_the_gate(tmp_path, variant):
    torch.save(random_network(variant).state_dict(), tmp_path / "random.pth")
    checked = checked_from_checkpoint(
        tmp_path / "random.pth", ExportOptions(32, 40, tta=True), time_steps="arbitrary"
    )
    assert checked.info.variant == variant
    assert checked.gate.psnr_db > 80


def test_float16_is_simulated_in_both_passes(export):
    checked = export(**PADDED, precision="fp16", tta=True)
    assert 50 < checked.gate.psnr_db < 120
    one = export(**PADDED, precision="fp16")
    simulated = [case for case in checked.gate.cases if "simulated" in case["candidate"]]
    assert simulated[0]["psnr_db"] > one.gate.psnr_db - 3


@pytest.mark.parametrize("axes", [(3,), (2,), ()])
def test_the_gate_refuses_a_flip_of_other_axes(monkeypatch, axes):
    """Also where the flip and its reversal agree, so that the mean is one of valid images."""

    def with_flipped(images):
        return torch.cat((images, images.flip(axes)), 1).reshape(-1, *images.shape[1:])

    def mean_with_flipped(images):
        return (images[::2] + images[1::2].flip(axes)) * 0.5

    monkeypatch.setattr(wrapper, "with_flipped", with_flipped)
    monkeypatch.setattr(wrapper, "mean_with_flipped", mean_with_flipped)
    with pytest.raises(GateError, match="80 dB are required"):
        checked_from_checkpoint("demo", ExportOptions(48, 64, io="float", tta=True))


def test_int8_is_quantised_from_such_a_graph(export, tmp_path, monkeypatch):
    monkeypatch.setitem(gate_module.REQUIRED_DB, "int8", 25.0)
    checked = export(height=64, width=80, tta=True)
    source = source_from_model(checked.model, checked.info, checked.onnx_sha256)
    frames = [frame for seed in range(6) for frame in moving_frames(64, 80, 4.0, seed=seed)]
    made = int8.checked_int8(source, image_folder(tmp_path / "clip", frames))
    assert made.info.tta
    assert made.calibration.quantised


def test_an_engine_passes_the_gate_in_a_fake_of_tensorrt(trt, export, tmp_path):
    checked = export(height=50, width=70, precision="fp16", tta=True)
    path = tmp_path / "m.engine"
    source = source_from_model(checked.model, checked.info, checked.onnx_sha256)
    write_engine(target_at(0), source, path, EngineRequest(BuildOptions(), command="rebuild it"))
    assert EngineManifest.read(path).model.tta


def test_a_build_takes_it_from_the_file(export, tmp_path, frames, demo_network):
    write_onnx(export(height=50, width=70, tta=True).model, tmp_path / "plain.onnx")
    done = build_without_torch(
        "--onnx", "plain.onnx", "--backend", "onnxruntime", "--output", "m.onnx", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "mean with flipped frames" in done.stdout
    manifest = EngineManifest.read(tmp_path / "m.onnx")
    assert manifest.model.tta
    with Interpolator.open(tmp_path / "m.onnx") as vfi:
        assert vfi.info.tta
        found = vfi.interpolate(*frames)
    wanted = np.rint(mean_of_two(demo_network, frames, 0.5) * 255)
    assert np.abs(found - wanted).max() <= 1
    assert np.mean(found != wanted) < 1e-3


def test_the_option_is_refused_with_a_file(models, tmp_path):
    done = run_main(
        "export.build_engine", "--onnx", models / "frames.onnx", "--backend", "onnxruntime",
        "--tta", "--output", "m.onnx", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--onnx was given with tta: the file fixes these, leave them out" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not manifest_path(tmp_path / "m.onnx").exists()


def test_the_command_exports_it(tmp_path):
    done = run_main(
        "export.to_onnx", "--weights", "demo", "--size", "32x48", "--tta", "--output", "m.onnx",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mean with flipped frames" in done.stdout
    properties = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert properties["ifrnet.tta"] == "true"
