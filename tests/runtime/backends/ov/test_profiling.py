"""OpenVINO: times of layers without the first call, and names of layers in all precisions."""

from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from runtime.backends.base import OpenOptions
from runtime.backends.ov import profiling
from runtime.backends.ov.compilation import Compilation, import_openvino
from runtime.backends.ov.precision import IDENTITY
from runtime.backends.registry import open_backend

INPUTS = {
    "img0": np.zeros((1, 50, 70, 3), np.uint8),
    "img1": np.full((1, 50, 70, 3), 255, np.uint8),
    "timestep": np.full((1, 1, 1, 1), 0.5, np.float32),
}


def profile(path, *, precision="fp32", runs=2):
    return profiling.profile_layers(path, INPUTS, precision=precision, threads=1, runs=runs)


def test_the_first_call_is_left_out_and_the_rest_averaged(models, monkeypatch):
    """OpenVINO reports the mean of all calls so far."""
    status = import_openvino().ProfilingInfo.Status
    seconds = {"1:a/WithoutBiases_acdb_12:b": [900, 30, 60], "c": [1, 0, 0], "fused": [0, 0, 0]}
    calls = []

    def layer(name, times):
        mean = sum(times[: len(calls)]) // len(calls)
        executed = status.NOT_RUN if name == "fused" else status.EXECUTED
        return SimpleNamespace(
            node_name=name, node_type="Convolution", exec_type="brgconv_avx512_bf16",
            status=executed, real_time=timedelta(microseconds=mean),
        )  # fmt: skip

    class Request:
        infer = calls.append

        @property
        def profiling_info(self):
            return [layer(*one) for one in seconds.items()]

    def compiled(_, content, how, *, shapes):
        assert (how.profile, how.cache, how.streams, how.precision) == (True, None, 1, "bf16")
        return SimpleNamespace(create_infer_request=Request)

    monkeypatch.setattr(profiling, "compiled_model", compiled)
    assert profile(models / "frames.onnx", precision="bf16") == [
        ("Convolution brgconv_avx512_bf16 a_acdb_b", pytest.approx(0.045)),
        ("Convolution brgconv_avx512_bf16 c", 0.0),
    ]
    assert len(calls) == 3


def test_bfloat16_is_in_the_names_of_the_kernels(models, bf16_cpu):
    names = {}
    for precision in ("fp32", "bf16"):
        layers = [
            name.split(" ") for name, _ in profile(models / "frames.onnx", precision=precision)
        ]
        names[precision] = {name: kernel for kind, kernel, name in layers if kind == "Convolution"}
    # With an OpenVINO that loses marks, two convolutions are added.
    added = {name for name in names["bf16"] if name.endswith(IDENTITY)}
    assert len(added) in (0, 2)
    assert names["fp32"].keys() == names["bf16"].keys() - added
    assert all(kernel.endswith("_f32") for kernel in names["fp32"].values())
    assert sum(kernel.endswith("_bf16") for kernel in names["bf16"].values()) > 30


def test_an_open_model_does_not_profile(models, monkeypatch):
    """The profile must not slow what is timed."""
    seen = []
    settings = Compilation.settings
    monkeypatch.setattr(
        Compilation, "settings", lambda self: seen.append(settings(self)) or seen[-1]
    )
    open_backend(models / "frames.onnx", OpenOptions(), backend="openvino").close()
    profile(models / "frames.onnx", runs=1)
    assert ["PERF_COUNT" in one for one in seen] == [False, True]
