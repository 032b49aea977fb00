"""ONNX Runtime's CUDA provider on a real GPU, compared with the CPU; marked `gpu`.

The tests need onnxruntime-gpu, and PyTorch to export the models. Without onnxruntime-gpu or a GPU
they skip; with FAIL_WITHOUT_GPU=1 they fail if there is no GPU.
"""

import os

import numpy as np
import pytest

from export.gate.cases import moving_frames
from export.gate.compare import compare
from export.gate.gate import REQUIRED_DB
from runtime import Interpolator
from runtime.backends.ort.cuda_provider import PROVIDER, cuda_provider_problem
from runtime.machine import gpu_driver
from runtime.telemetry import import_quietly

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="session", autouse=True)
def _gpu():
    ort = import_quietly("onnxruntime")
    if PROVIDER not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA provider: pip install onnxruntime-gpu")
    if missing := cuda_provider_problem(ort, gpu_driver()):
        unavailable = pytest.fail if os.environ.get("FAIL_WITHOUT_GPU") == "1" else pytest.skip
        unavailable(f"{missing.problem}: {missing.remedy}")


@pytest.mark.parametrize("io_binding", [True, False])
@pytest.mark.parametrize("name", ["float", "dynamic"])
def test_frames_of_a_gpu_equal_those_of_the_cpu(models, name, io_binding):
    frames = moving_frames(64, 80, 4.0)
    if name == "float":
        frames = tuple((frame / np.float32(255)).astype(np.float32) for frame in frames)
    made = {}
    for device in ("cpu", "cuda"):
        with Interpolator.open(
            models / f"{name}.onnx", backend="onnxruntime", device=device,
            io_binding=io_binding if device == "cuda" else None,
        ) as vfi:  # fmt: skip
            made[device] = vfi.interpolate(*frames, timesteps=[0.25, 0.5])
    if name == "dynamic":  # uint8: a value between two levels may be rounded to either.
        assert np.abs(np.stack(made["cuda"]).astype(int) - np.stack(made["cpu"])).max() <= 1
        return
    decibels, _ = compare(np.stack(made["cpu"]), np.stack(made["cuda"]))
    assert decibels >= REQUIRED_DB["fp32"]


@pytest.mark.parametrize("factor", [2, 4])
def test_a_stream_on_a_gpu_equals_that_of_the_cpu(midpoint_model, factor):
    clip = [frame for seed in range(2) for frame in moving_frames(50, 70, 4.0, seed=seed)]
    made = {}
    for device in ("cpu", "cuda"):
        with Interpolator.open(midpoint_model, backend="onnxruntime", device=device) as vfi:
            made[device] = np.stack(list(vfi.stream(iter(clip), factor=factor))).astype(int)
    # Recursion feeds rounded frames into the next call, so that a difference may grow by one.
    assert np.abs(made["cuda"] - made["cpu"]).max() <= factor // 2
