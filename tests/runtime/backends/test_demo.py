"""The shipped models: "demo" opens them, and they equal a new export."""

import hashlib
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from commands import need_torch
from runtime import BackendError, Interpolator
from runtime.backends.demo import demo_model
from runtime.manifest import EngineManifest, file_sha256

BACKENDS = ("onnxruntime", "openvino")


@pytest.mark.parametrize("size", [(50, 70), (96, 128)])
def test_demo_opens_in_each_backend_at_any_size(size):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (size[0] // 8 + 1, size[1] // 8 + 1, 3), dtype=np.uint8)
    frame = blocks.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
    made = []
    for backend in BACKENDS:
        precision = "fp32" if backend == "openvino" else "auto"
        with Interpolator.open("demo", backend=backend, precision=precision) as vfi:
            assert vfi.backend.startswith(f"{backend} cpu")
            assert (vfi.info.size, vfi.info.time_steps) == (None, "arbitrary")
            made.append(vfi.interpolate(frame, np.roll(frame, 3, 1), timesteps=(0.25, 0.5)))
    assert np.abs(np.array(made[0], int) - np.array(made[1], int)).max() <= 1


@pytest.mark.parametrize("installed", BACKENDS)
def test_demo_opens_in_the_backend_that_is_installed(monkeypatch, installed):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == installed or None)
    with Interpolator.open("demo") as vfi:
        assert vfi.backend.startswith(f"{installed} cpu")


def test_demo_on_cuda_is_the_plain_graph():
    assert demo_model("onnxruntime", "cuda:1") == demo_model("openvino")
    assert demo_model("onnxruntime", "cpu") != demo_model("openvino")


def test_no_engine_is_shipped():
    with pytest.raises(BackendError, match=r"build one with python -m export\.build_engine"):
        Interpolator.open("demo", backend="tensorrt")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_shipped_models_equal_a_new_export(export, backend):
    """After a change of the weights or of the exported graph run `make models`."""
    need_torch()
    from export.candidate import default_tuning, finalise

    path = demo_model(backend)
    manifest = EngineManifest.read(path)
    assert manifest.backend == backend
    assert manifest.gate.required_db == 80
    checked = export(height=256, width=448, dynamic=True)
    assert manifest.model.weights_sha256 == checked.info.weights_sha256
    exported = onnx.ModelProto.FromString(checked.model.SerializeToString())
    assert sha256(exported) == checked.onnx_sha256
    # A shipped model has the version that wrote it; the rest equals an export of this version.
    exported.producer_version = manifest.model.tool_version
    info = replace(checked.info, tool_version=manifest.model.tool_version)
    exported, info = finalise(exported, info, "any")
    assert sha256(exported) == manifest.onnx_sha256
    made, info = finalise(exported, info, default_tuning("fp32", backend), compact=True)
    shipped = onnx.load(path)
    assert info == manifest.model
    assert made.graph.node == shipped.graph.node
    assert len(made.graph.initializer) == len(shipped.graph.initializer)
    for one, other in zip(made.graph.initializer, shipped.graph.initializer, strict=True):
        assert one.name == other.name
        assert np.array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other))


def sha256(model):
    return hashlib.sha256(model.SerializeToString()).hexdigest()


def test_the_shipped_models_are_small():
    for backend in BACKENDS:
        assert demo_model(backend).stat().st_size < 6 << 20
        assert (
            file_sha256(demo_model(backend))
            == EngineManifest.read(demo_model(backend)).artefact_sha256
        )
