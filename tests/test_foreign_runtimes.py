"""The plain graph in runtimes of others: `make test-foreign`; see tools/foreign."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.gate.cases import moving_frames
from export.store import write_onnx
from paths import ROOT
from runtime.frames import to_planes
from runtime.telemetry import import_quietly

pytestmark = pytest.mark.foreign

FOLDER = ROOT / ".foreign"
SIZE = (50, 70)
"""Frames that the graph pads."""
LARGEST_DIFFERENCE = {"float": 5e-5, "frames": 1}
"""Of floats in [0, 1], and of bytes: different sums round differently."""


@pytest.fixture(params=["frames", "float"])
def case(request, export, tmp_path):
    """A model of free size and its inputs: (I/O, path, arrays by name)."""
    path = tmp_path / "plain.onnx"
    write_onnx(export(height=64, width=80, dynamic=True, io=request.param).model, path)
    frames = moving_frames(*SIZE, 4.0)
    if request.param == "float":
        images = [to_planes(frame, 16) for frame in frames]
    else:
        images = [frame[None] for frame in frames]
    inputs = dict(zip(("img0", "img1"), map(np.ascontiguousarray, images), strict=True))
    inputs["timestep"] = np.full((1, 1, 1, 1), 0.5, np.float32)
    return request.param, path, inputs


def assert_equals_onnx_runtime(case, found):
    """Fails unless `found` are the new frames of ONNX Runtime in Python."""
    io, path, inputs = case
    onnxruntime = import_quietly("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(["imgt"], inputs)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    difference = np.abs(found.astype(np.float64) - expected)
    assert difference.max() <= LARGEST_DIFFERENCE[io]
    assert np.count_nonzero(difference) < 0.01 * difference.size or io == "float"
    # The new frame is none of the two, so that a copy does not pass.
    for name in ("img0", "img1"):
        other = np.abs(expected.astype(np.float64) - inputs[name]).max()
        assert other > 20 * LARGEST_DIFFERENCE[io]


def run(arguments, **environment):
    done = subprocess.run(
        list(map(str, arguments)),
        capture_output=True, text=True, check=False, timeout=300, cwd=FOLDER,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("package", ["onnxruntime-node", "onnxruntime-web"])
def test_onnx_runtime_in_javascript(case, package, tmp_path):
    _, path, inputs = case
    described = {}
    for name, array in inputs.items():
        file = tmp_path / f"{name}.bin"
        file.write_bytes(array.tobytes())
        described[name] = {"type": str(array.dtype), "dims": array.shape, "file": str(file)}
    (tmp_path / "inputs.json").write_text(json.dumps(described))
    output = tmp_path / "imgt.bin"
    said = run(["node", "run.mjs", package, path, tmp_path / "inputs.json", output])
    result = json.loads(said.splitlines()[-1])
    assert result["inputs"] == list(inputs)
    found = np.frombuffer(output.read_bytes(), result["type"]).reshape(result["dims"])
    assert_equals_onnx_runtime(case, found)


def test_opencv(case, tmp_path):
    _, path, inputs = case
    np.savez(tmp_path / "inputs.npz", **inputs)
    arguments = [sys.executable, "run_opencv.py", path, tmp_path / "inputs.npz", tmp_path / "o.npy"]
    run(arguments, PYTHONPATH=str(Path(FOLDER, "python")))
    assert_equals_onnx_runtime(case, np.load(tmp_path / "o.npy"))
