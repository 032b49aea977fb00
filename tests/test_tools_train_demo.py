"""tools/train_demo.py: exact motion, triplets within one shot, and a training that runs."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import train_demo
from conftest import ROOT
from PIL import Image

from ifrnet_model import load_checkpoint
from ifrnet_model.layers import warp

CUT = 5


@pytest.fixture
def material(tmp_path: Path) -> argparse.Namespace:
    """A clip of ten frames whose brightness is their number, with a cut, and one photograph."""
    clips, photos = tmp_path / "clips", tmp_path / "photos"
    clips.mkdir()
    photos.mkdir()
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 8, (10, 48, 64, 3)) + 20 * np.arange(10).reshape(10, 1, 1, 1)
    np.save(clips / "counting.npy", frames.astype(np.uint8))
    entry = {"name": "counting", "frames": 10, "cuts": [CUT]}
    (clips / "index.json").write_text(json.dumps([entry]))
    photo = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(photo).save(photos / "noise.png")
    return argparse.Namespace(clips=clips, photos=photos)


def test_flows_lead_to_where_the_layer_was_and_will_be(material: argparse.Namespace) -> None:
    rng = np.random.default_rng(3)
    made = train_demo.SyntheticMotion(
        material.photos, train_demo.RealMotion(material.clips, rng), rng
    )
    size = 64
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    texture = F.interpolate(coarse, size=(96, 96), mode="bicubic")[0]
    matrices = made._matrices(np.array([size / 2] * 2), np.array([6.0, -4.0]), 0.3)
    colours, _ = train_demo._render(texture, torch.ones(1, 96, 96), matrices, size, True)
    flows = train_demo._flows(matrices, size)[None]

    inside = (..., slice(12, -12), slice(12, -12))
    for end, flow in ((colours[:1], flows[:, :2]), (colours[2:], flows[:, 2:])):
        # Two bilinear samplings of a smooth texture; the frames themselves differ by 0.1 and more.
        error = (warp(end, flow) - colours[1:2])[inside].abs().max()
        assert error < 0.01
        assert (end - colours[1:2])[inside].abs().max() > 0.1


def test_samples_keep_frames_flows_and_time_together(material: argparse.Namespace) -> None:
    stage = train_demo.Stage(size=32, batch=4, steps=1, motion=8.0)
    for _, batch in zip(range(5), train_demo.batches(material, stage, seed=1), strict=False):
        assert batch.img0.shape == batch.imgt.shape == batch.img1.shape == (4, 3, 32, 32)
        assert batch.flow.shape == (4, 4, 32, 32)
        real = batch.known.flatten() == 0
        assert not batch.flow[real].any()
        # The brightness of the clip grows evenly, whichever way time was turned.
        at = [frame.mean((1, 2, 3))[real] for frame in (batch.img0, batch.imgt, batch.img1)]
        t = batch.t.flatten()[real]
        torch.testing.assert_close(at[1], at[0] + t * (at[2] - at[0]), atol=0.01, rtol=0)


def test_no_triplet_reaches_over_a_cut(material: argparse.Namespace) -> None:
    real = train_demo.RealMotion(material.clips, np.random.default_rng(0))
    for _ in range(50):
        crop, t = real.sample(32)
        first, middle, last = np.rint(crop.mean((1, 2, 3)) / 20 - 0.175).astype(int)
        assert first < middle < last
        assert t == pytest.approx((middle - first) / (last - first))
        assert not first < CUT <= last


def test_the_training_forward_is_the_networks_own() -> None:
    network = load_checkpoint("demo").network
    generator = torch.Generator().manual_seed(0)
    img0, img1 = torch.rand(2, 1, 3, 64, 64, generator=generator)
    t = torch.full((1, 1, 1, 1), 0.3)
    batch = train_demo.Batch(img0, img1, img0, t, torch.zeros(1, 4, 64, 64), torch.zeros_like(t))
    with torch.inference_mode():
        made, flows = train_demo.interpolate(network, batch)
        expected = network(img0, img1, t)
    assert [flow.shape[-1] for flow in flows] == [8, 16, 32, 64]
    torch.testing.assert_close(made.clamp(0, 1), expected, atol=1e-5, rtol=0)


def test_two_workers_train_and_resume(material: argparse.Namespace, tmp_path: Path) -> None:
    output = tmp_path / "small.safetensors"

    def train(*stages: str, resume: bool = False) -> str:
        command = [sys.executable, str(ROOT / "tools" / "train_demo.py")]
        command += ["--clips", str(material.clips), "--photos", str(material.photos)]
        command += ["--output", str(output), *(["--resume"] if resume else [])]
        for stage in stages:
            command += ["--stage", stage]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=300
        ).stdout

    train("32:1:1:4")
    first = load_checkpoint(output)
    assert first.time_steps == "arbitrary"
    assert torch.load(output.with_suffix(".state"), weights_only=True)["step"] == 1
    train("32:1:1:4", "32:1:1:8", resume=True)
    assert torch.load(output.with_suffix(".state"), weights_only=True)["step"] == 2
    assert load_checkpoint(output).sha256 != first.sha256
