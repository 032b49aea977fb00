"""Helpers that inspect and change artefacts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from runtime.manifest import manifest_path
from runtime.model_info import ModelInfo

INFO = ModelInfo(
    variant="small",
    weights_sha256="ab" * 32,
    precision="fp16",
    io="frames",
    divisor=20,
    flow_scale=0.8,
    time_steps="arbitrary",
    steps_per_call=3,
    pairs_per_call=1,
    height=720,
    width=1280,
    warp="gridsample",
    tuned_for="any",
    tool_version="0.1.0",
)
"""A model of one size, 720x1280, that computes three time steps in one call."""


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def assert_same(made: Sequence[Any], expected: Sequence[Any]) -> None:
    """Fails unless two sequences of frames are equal."""
    assert len(made) == len(expected)
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def change_build(path: Path, **values: object) -> None:
    """Changes values of the `engine` section of an engine's manifest."""
    file = manifest_path(path)
    manifest = json.loads(file.read_text())
    manifest["engine"].update(values)
    file.write_text(json.dumps(manifest))
