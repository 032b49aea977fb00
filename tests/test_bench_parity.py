import json

import numpy as np
import pytest
from conftest import DATA, run_module

from bench.parity import clip_pairs, psnr


def test_psnr_by_hand():
    zero = np.zeros((4, 4, 3), np.float32)
    assert psnr(zero, zero + np.float32(0.1)) == pytest.approx(20, abs=1e-4)
    assert psnr(zero, zero) == float("inf")
    black, one = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint8)
    assert psnr(black, one) == psnr(one, black) == pytest.approx(48.13, abs=0.01)


def test_pairs_are_consecutive_and_of_the_size_asked_for():
    pairs = list(clip_pairs(DATA / "bear-vp9-odd-dimensions.webm", (48, 64), 3))
    assert len(pairs) == 3
    np.testing.assert_array_equal(pairs[0][1], pairs[1][0])
    assert pairs[0][0].shape == (48, 64, 3)


def test_the_command_measures_floats_and_bytes(models, tmp_path):
    evidence = tmp_path / "parity.json"
    done = run_module(
        "bench.parity", "--model", models / "float.onnx", models / "frames.onnx",
        "--weights", "demo", "--clip", DATA / "walk.mkv", "--limit", 2, "--json", evidence,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(evidence.read_text())
    as_float, as_bytes = record["artefacts"]
    assert (as_float["compared"], as_bytes["compared"]) == ("floats", "bytes")
    assert as_float["worst_db"] > 100
    assert as_bytes["worst_db"] > 70
    assert len(as_bytes["psnr_db"]) == 2
    assert record["environment"]["processor"]


def test_other_weights_are_refused(models, midpoint_checkpoint):
    done = run_module(
        "bench.parity", "--model", models / "frames.onnx", "--weights", midpoint_checkpoint,
        "--clip", DATA / "walk.mkv", "--limit", 1,
    )  # fmt: skip
    assert done.returncode == 1
    assert "give the same file, or --force" in done.stderr
