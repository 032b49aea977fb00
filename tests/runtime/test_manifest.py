import json
from dataclasses import replace

import pytest

from runtime.errors import ModelError
from runtime.manifest import EngineManifest, GateReport, ModelInfo, file_sha256, manifest_path

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


def test_properties_round_trip():
    assert ModelInfo.from_properties(INFO.to_properties(), source="x") == INFO
    free = replace(INFO, height=None, width=None)
    assert "ifrnet.height" not in free.to_properties()
    assert ModelInfo.from_properties(free.to_properties(), source="x") == free
    assert free.size is None
    assert INFO.size == (720, 1280)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ifrnet.format_version": "2"}, "format version 2, this runtime reads 1"),
        ({"ifrnet.format_version": None}, "format version None"),
        ({"ifrnet.divisor": "many"}, "damaged metadata"),
        ({"ifrnet.flow_scale": None}, "damaged metadata"),
        ({"ifrnet.io": "bytes"}, "'bytes', not one of float, frames"),
        ({"ifrnet.variant": None}, "lacks or has too much of: variant"),
        ({"ifrnet.extra": "1"}, "lacks or has too much of: extra"),
        ({"ifrnet.height": None}, "one of height and width only"),
        ({"ifrnet.divisor": "0"}, "sizes below 1"),
        ({"ifrnet.flow_scale": "nan"}, "sizes below 1"),
    ],
)
def test_damaged_properties_are_refused(change, message):
    properties = {**INFO.to_properties(), **change}
    properties = {key: value for key, value in properties.items() if value is not None}
    with pytest.raises(ModelError, match=message):
        ModelInfo.from_properties(properties, source="m.onnx")


def test_foreign_models_are_refused_with_the_remedy():
    with pytest.raises(ModelError, match=r"m\.onnx carries no .* python -m export\.to_onnx"):
        ModelInfo.from_properties({"author": "someone"}, source="m.onnx")


@pytest.fixture
def artefact(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"model")
    manifest = EngineManifest(
        model=INFO,
        backend="onnxruntime",
        artefact_sha256=file_sha256(path),
        onnx_sha256=file_sha256(path),
        versions={"python": "3.10"},
        machine={"processor": "x"},
        build_seconds=1.5,
        gate=GateReport(None, 0.0, 80.0, "PyTorch", [{"psnr_db": None}]),
    )
    manifest.write(path)
    return path, manifest


def test_manifest_round_trips_and_leaves_nothing_else(artefact):
    path, manifest = artefact
    assert EngineManifest.read(path) == manifest
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.onnx", "model.onnx.json"]


def test_manifest_of_another_file_is_refused(artefact):
    path, _ = artefact
    path.write_bytes(b"another")
    with pytest.raises(ModelError, match="its manifest was written for"):
        EngineManifest.read(path)


def test_missing_manifest(artefact):
    path, _ = artefact
    manifest_path(path).unlink()
    with pytest.raises(ModelError, match=r"model\.onnx\.json is missing"):
        EngineManifest.read(path)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '"x"', '{"format_version": 1}', '{"format_version": 1, "model": 3}'],
)
def test_damaged_manifests(artefact, content):
    path, _ = artefact
    manifest_path(path).write_text(content)
    with pytest.raises(ModelError):
        EngineManifest.read(path)


def test_manifest_of_another_version_is_refused(artefact):
    path, _ = artefact
    values = json.loads(manifest_path(path).read_text())
    manifest_path(path).write_text(json.dumps({**values, "format_version": 9}))
    with pytest.raises(ModelError, match="format version 9"):
        EngineManifest.read(path)
