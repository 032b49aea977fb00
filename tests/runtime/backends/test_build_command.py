"""The build command in a message gives a model that accepts the frames."""

import argparse
import shlex
from dataclasses import replace

import numpy as np
import pytest

from artefacts import INFO
from export.build_engine import make_parser
from runtime import FrameError, Interpolator
from runtime.backends.build_command import build_command
from runtime.backends.demo import demo_model
from runtime.manifest import EngineManifest

PLAIN = replace(
    INFO,
    weights_sha256=EngineManifest.read(demo_model("openvino")).model.weights_sha256,
    precision="fp32",
    divisor=16,
    flow_scale=1.0,
    steps_per_call=1,
    height=256,
    width=448,
)
"""A model of the demo weights with the default options."""


@pytest.fixture(autouse=True)
def with_torch(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "torch" or None)


@pytest.mark.parametrize(
    ("changes", "backend", "given", "command"),
    [
        ({}, "onnxruntime cpu", {}, "--backend onnxruntime --output model.onnx"),
        ({}, "openvino cpu bf16", {"size": (50, 70)}, "--backend openvino --output model.onnx"),
        ({}, "tensorrt cuda:0", {"size": (50, 70)},
         "--size 50x70 --precision fp32 --output model.engine"),
        ({"precision": "fp16"}, "tensorrt", {}, "--size 256x448 --output model.engine"),
        ({"precision": "fp16", "height": None, "width": None}, "tensorrt", {},
         "--output model.engine"),
        ({"precision": "int8"}, "openvino cpu", {},
         "--backend openvino --precision int8 --calibrate CLIP --output model.onnx"),
        ({}, "onnxruntime cpu", {"io": "float"},
         "--backend onnxruntime --io float --output model.onnx"),
        ({"precision": "fp16"}, "tensorrt", {"io": "float", "size": (50, 70)},
         "--size 64x80 --io float --output model.engine"),
        ({"max_pairs": 4}, "onnxruntime cpu", {"size": (50, 70)},
         "--backend onnxruntime --size 50x70 --max-batch 4 --output model.onnx"),
        ({"flow_scale": 0.5, "steps_per_call": 3, "warp": "gather"}, "openvino", {},
         "--backend openvino --flow-scale 0.5 --steps-per-call 3 --warp gather "
         "--output model.onnx"),
        ({"tta": True}, "onnxruntime", {}, "--backend onnxruntime --tta --output model.onnx"),
    ],
)  # fmt: skip
def test_the_command_builds_a_model_with_the_same_options(changes, backend, given, command):
    built = build_command(replace(PLAIN, **changes), backend, **given)
    assert built == f"python -m export.build_engine --weights demo {command}"
    words = shlex.split(built)[3:]
    assert isinstance(make_parser().parse_args(words), argparse.Namespace)


def test_the_file_of_weights_that_are_not_shipped_is_unknown():
    assert "--weights CHECKPOINT " in build_command(INFO, "openvino")


def test_without_pytorch_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert build_command(INFO, "openvino").endswith("[cpu,export]')")


@pytest.mark.parametrize(
    ("size", "exchanged"), [((64, 80), ""), ((70, 50), ", height and width are exchanged")]
)
def test_the_error_for_another_size_has_the_command(models, monkeypatch, size, exchanged):
    monkeypatch.undo()
    with (
        Interpolator.open(models / "frames.onnx", backend="onnxruntime") as vfi,
        pytest.raises(FrameError) as raised,
    ):
        vfi.interpolate(*np.zeros((2, *size, 3), np.uint8))
    assert str(raised.value).startswith(
        f"frames are {size[0]}x{size[1]} (height x width), this model takes 50x70 only{exchanged}: "
        "build a model for them with python -m export.build_engine --weights demo --backend "
        "onnxruntime --output model.onnx"
    )
