"""bench.parity beside published figures: rules of the paper and of mmagic, layouts, sizes."""

from dataclasses import replace

import pytest

from bench import parity
from bench.data.protocols import ADOBE240_TEST, GOPRO_TEST, PROTOCOLS
from bench.environment import MeasurementError
from ifrnet_model.weights import table
from ifrnet_model.weights.table import Published
from moving_clips import read_clip
from parity_runs import SIZE, save_image, set_arguments, ucf101_arguments
from paths import WALK

FIGURES = {
    "vimeo90k": Published("mmagic", 35.7999, 0.9680, "ssim_2d"),
    "gopro": Published("mmagic", 29.9394, 0.8922, "ssim_2d"),
    "adobe240": Published("mmagic", 30.0273, 0.9057, "ssim_2d"),
    "ucf101": Published("paper", 35.29, 0.9693),
}


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """Gives the shipped weights the published figures of others, and data sets small frames."""
    entries = [
        replace(k, figures=FIGURES) if k.publisher == "ifrnet-deploy" else k
        for k in table.CHECKPOINTS
    ]
    monkeypatch.setattr(table, "CHECKPOINTS", tuple(entries))
    for name in FIGURES:
        monkeypatch.setitem(PROTOCOLS, name, replace(PROTOCOLS[name], frame_size=SIZE))


@pytest.fixture(scope="module")
def frames():
    """Nine real frames, cropped to 50x70."""
    rows, columns = (slice(200, 200 + side) for side in SIZE)
    clip, _, _ = read_clip(WALK)
    return [frame.to_ndarray(format="rgb24")[rows, columns] for frame in clip[:9]]


def write_videos(folder, videos, frames):
    for video in videos:
        for number, frame in enumerate(frames, 1):
            save_image(frame, folder / video / f"{number:06}.png")


def row(lines, name="frames.onnx"):
    summary = lines[-1]["summary"]
    return summary["published"], summary["artefacts"][name]


def test_vimeo90k_by_the_rules_of_mmagic(models, run, tmp_path, frames):
    folder = tmp_path / "vimeo_triplet" / "sequences" / "00001" / "0001"
    for number, frame in enumerate(frames[:3], 1):
        save_image(frame, folder / f"im{number}.png")
    (tmp_path / "vimeo_triplet" / "tri_testlist.txt").write_text("00001/0001\n\n")
    lines, printed = run(*set_arguments(models, "vimeo90k", tmp_path), "--protocol", "mmagic")
    configuration = lines[0]["configuration"]
    assert configuration["metrics"] == ["psnr", "ssim_2d"]
    assert configuration["title"] == "Vimeo90K, mmagic"
    assert configuration["protocol"]["rules"] == "mmagic"
    published, found = row(lines)
    assert (published["psnr"], published["ssim"]) == (35.7999, 0.9680)
    assert published["measured"]["ssim"] == pytest.approx(found["reference_ssim_2d"], abs=1e-3)
    assert "published:      35.80 dB, SSIM (2D) 0.9680 (mmagic)" in printed


@pytest.mark.parametrize(
    ("dataset", "folder", "videos"),
    [("gopro", "test/sharp", GOPRO_TEST), ("adobe240", "test/full_sharp", ADOBE240_TEST)],
)
@pytest.mark.parametrize("rules", ["mmagic", "paper"])
def test_eightfold_sets_in_the_layouts_of_mmagic(
    models, run, tmp_path, frames, dataset, folder, videos, rules
):
    write_videos(tmp_path / folder, videos[:2], frames)
    lines, printed = run(*set_arguments(models, dataset, tmp_path), "--protocol", rules)
    assert lines[-1]["summary"]["samples"] == 2
    published, found = row(lines)
    assert published["ssim_kind"] == "ssim_2d"
    assert len(found["by_timestep"]) == 7
    # The published kind is measured in any case, the paper's kind by its own rules.
    assert ("ssim_3d" in found, "ssim_2d" in found) == (rules == "paper", True)
    kept = len(videos) - 2
    assert f"{kept} of the official {len(videos)} videos missing" in printed


def test_published_figures_stand_beside_floats_and_the_loss_of_rounding(models, ucf101, run):
    lines, printed = run(*ucf101_arguments(models, ucf101))
    published, found = row(lines)
    floats = published["measured"]
    of_floats, _ = run(*ucf101_arguments(models, ucf101, "float"), "--overwrite")
    expected = of_floats[-1]["summary"]["artefacts"]["float.onnx"]
    assert floats["psnr"] == pytest.approx(expected["reference_psnr"], abs=1e-9)
    assert floats["ssim"] == pytest.approx(expected["reference_ssim_3d"], abs=1e-12)
    assert floats["psnr"] != found["reference_psnr"]
    assert f"PyTorch, here:  {floats['psnr']:.2f} dB, SSIM (3D) {floats['ssim']:.4f}" in printed
    loss = floats["psnr"] - found["reference_psnr"]
    assert f"rounding:       new frames as bytes have {loss:.3f} dB less than as floats" in printed


def test_weights_without_a_published_figure_need_no_floats(models, ucf101, run, monkeypatch):
    monkeypatch.setattr(table, "CHECKPOINTS", ())
    lines, printed = run(*ucf101_arguments(models, ucf101))
    assert list(lines[1]["reference"]) == ["bytes"]
    assert lines[-1]["summary"]["published"] is None
    assert "published" not in printed


def test_mmagic_is_refused_for_other_data_sets(models, ucf101, run):
    _, printed = run(*ucf101_arguments(models, ucf101), "--protocol", "mmagic", code=1)
    assert "--protocol mmagic was given with --dataset ucf101" in printed
    assert "give one of vimeo90k, gopro, adobe240" in printed


def test_a_set_of_another_size_is_refused_unless_allowed_with_a_note(
    models, run, tmp_path, frames, monkeypatch
):
    monkeypatch.setitem(
        PROTOCOLS, "adobe240", replace(PROTOCOLS["adobe240"], frame_size=(352, 640))
    )
    write_videos(tmp_path, ADOBE240_TEST[:1], frames)
    arguments = set_arguments(models, "adobe240", tmp_path)
    lines, printed = run(*arguments, code=1)
    assert lines == []
    assert (
        f"the frames on disk are 50x70 (sample {ADOBE240_TEST[0]}/000001), and Adobe240 8x is "
        "measured with frames of 352x640"
    ) in printed
    lines, printed = run(*arguments, "--allow-mismatch")
    assert "forced: the frames on disk are 50x70" in printed


@pytest.mark.parametrize(
    ("arguments", "gpus"),
    [
        ((), 0.0),
        (("--device", "cuda"), 1.0),
        (("--reference-device", "cuda:0"), 1.0),
        (("--model", "small.engine"), 1.0),
        (("--device", "cuda", "--gpus-per-worker", "0.5"), 0.5),
        (("--gpus-per-worker", "2"), 2.0),
        (("--device", "cuda", "--gpus-per-worker", "0"), None),
    ],
)
def test_a_worker_has_a_gpu_if_something_runs_on_one(arguments, gpus, tmp_path):
    for name in ("m.onnx", "small.engine"):
        (tmp_path / name).touch()
    arguments = [str(tmp_path / a) if a.endswith(".engine") else a for a in arguments]
    model = [] if "--model" in arguments else ["--model", str(tmp_path / "m.onnx")]
    args = parity.make_parser().parse_args(
        [*model, *arguments, "--weights", "demo", "--dataset", "ucf101", "--root", str(tmp_path)]
    )
    request = parity._request(args)
    if gpus is None:
        with pytest.raises(MeasurementError, match="--gpus-per-worker is 0, and a model"):
            parity._gpus_per_worker(args, request)
    else:
        assert parity._gpus_per_worker(args, request) == gpus
