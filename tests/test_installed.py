"""The installed wheel, used as a user does: `make test-newest`, `make test-lowest`."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import export
import runtime
from commands import need_torch
from export.gate.compare import compare
from export.store import write_onnx
from paths import ROOT, WALK
from runtime import Interpolator
from runtime.frames import to_planes
from runtime.video.reading.tags import open_for_reading
from video_clips import frames_of

pytestmark = pytest.mark.installed

PARITY_DB = 60
"""Lowest PSNR of uint8 frames. Another order of sums changes few bytes by one level; all: 48 dB."""


CLIP = WALK
BOTH_HANDS_MOVE = 14
"""Number of a frame of the clip after which both hands move fast."""


def command(*arguments, cwd):
    """Runs `python -m ...` in a folder without the checkout; returns its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_graphs_are_exported_with_the_installed_pytorch():
    need_torch()
    assert "IFRNET_TEST_EXPORTS" not in os.environ  # That folder has graphs of another PyTorch.


@pytest.fixture(scope="module")
def frames():
    """Two frames of the clip, uint8 RGB (480, 640, 3)."""
    with open_for_reading(str(CLIP)) as container:
        pair = itertools.islice(container.decode(video=0), BOTH_HANDS_MOVE, BOTH_HANDS_MOVE + 2)
        return [frame.to_ndarray(format="rgb24") for frame in pair]


def middle_of_pytorch(frame0, frame1):
    """The middle frame of the demo weights in PyTorch, uint8 RGB (H, W, 3)."""
    import torch

    from ifrnet_model import load_checkpoint

    planes = (torch.from_numpy(to_planes(frame, 16)) for frame in (frame0, frame1))
    with torch.inference_mode():
        middle = load_checkpoint("demo").network(*planes, torch.full((1, 1, 1, 1), 0.5))
    return np.rint(middle[0].numpy().transpose(1, 2, 0) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def reference(once, frames):
    """PyTorch's middle frame. Stored as bytes, as NumPy 1 does not read pickles of NumPy 2."""
    made = once("the demo's frame", lambda: middle_of_pytorch(*frames).tobytes())
    return np.frombuffer(made, np.uint8).reshape(frames[0].shape)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, export):
    path = tmp_path_factory.mktemp("plain") / "plain.onnx"
    write_onnx(export(height=480, width=640).model, path)
    return path


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def built(request, tmp_path_factory, plain):
    folder = tmp_path_factory.mktemp(request.param)
    command(
        "export.build_engine", "--onnx", plain, "--backend", request.param,
        "--output", "model.onnx", cwd=folder,
    )  # fmt: skip
    return folder / "model.onnx"


def test_the_packages_are_imported_from_the_wheel():
    for package in (export, runtime):
        assert Path(package.__file__).is_relative_to(sys.prefix), package
        assert not Path(package.__file__).is_relative_to(ROOT / package.__name__)


def test_doctor_finds_every_backend(tmp_path):
    lines = command("runtime.doctor", cwd=tmp_path).splitlines()
    ready = {line.split("ready")[0].strip() for line in lines}  # Other backends have "... not".
    assert {"onnxruntime cpu", "openvino cpu", "video files"} <= ready


def test_the_console_command_is_installed(tmp_path):
    script = Path(sys.executable).with_name("ifrnet")
    done = subprocess.run(
        [script, "doctor"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, command("runtime.doctor", cwd=tmp_path))


def test_a_build_from_onnx_computes_the_frame_of_pytorch(built, frames, reference):
    with Interpolator.open(built) as vfi:
        middle = vfi.interpolate(*frames)
    decibels, _ = compare(reference / np.float32(255), middle / np.float32(255))
    assert decibels > PARITY_DB


def test_a_video_is_interpolated(built, tmp_path):
    command("runtime", CLIP, "out.mp4", "--model", built, "--end", "0.2", cwd=tmp_path)
    assert len(frames_of(tmp_path / "out.mp4")) == 2 * 6  # The clip has 30 frames a second.


def test_a_build_from_a_checkpoint_succeeds(tmp_path):
    need_torch()
    command(
        "export.build_engine", "--weights", "demo", "--backend", "onnxruntime",
        "--size", "96x128", "--output", "model.onnx", cwd=tmp_path,
    )  # fmt: skip
