import hashlib
import json
from dataclasses import replace

import pytest

from artefacts import INFO
from runtime.errors import ModelError
from runtime.manifest import (
    EngineManifest,
    GateReport,
    PrecisionProof,
    backend_in_manifest,
    file_sha256,
    manifest_path,
)


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


def test_a_manifest_round_trips_and_no_other_file_is_written(artefact):
    path, manifest = artefact
    assert EngineManifest.read(path) == manifest
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.onnx", "model.onnx.json"]


def test_proofs_round_trip_and_are_left_out_if_there_are_none(artefact):
    path, manifest = artefact
    assert "proofs" not in json.loads(manifest_path(path).read_text())
    proof = PrecisionProof(
        "bf16", "2026.4.1", 1, ["avx512_bf16"], "x", None, 49.0, None, 0.001, {"made_db": 48.0}, []
    )
    proved = replace(manifest, proofs=(proof, replace(proof, problem="it is 40.0 dB")))
    proved.write(path)
    assert EngineManifest.read(path) == proved
    assert proof.conditions == ("2026.4.1", 1, ["avx512_bf16"])


@pytest.mark.parametrize("content", [b"", b"mode", b"modem", b"model ", b"another"])
def test_manifest_of_another_file_is_refused(artefact, content):
    path, _ = artefact
    path.write_bytes(content)
    with pytest.raises(ModelError, match="its manifest was written for"):
        EngineManifest.read(path)


@pytest.mark.parametrize("digit", [0, 11, 12, 63])
def test_every_digit_of_the_hash_counts(artefact, digit):
    path, manifest = artefact
    digits = list(manifest.artefact_sha256)
    digits[digit] = "0" if digits[digit] != "0" else "1"
    replace(manifest, artefact_sha256="".join(digits)).write(path)
    with pytest.raises(ModelError, match="its manifest was written for"):
        EngineManifest.read(path)


def test_the_hash_of_a_file_is_that_of_all_its_bytes(artefact):
    path, _ = artefact
    content = bytearray(3 << 20)
    content[-1] = 1
    path.write_bytes(content)
    assert file_sha256(path) == hashlib.sha256(content).hexdigest()


def test_a_missing_manifest_is_an_error(artefact):
    path, _ = artefact
    manifest_path(path).unlink()
    with pytest.raises(ModelError, match=r"model\.onnx\.json is missing"):
        EngineManifest.read(path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '"x"',
        '{"format_version": 1}',
        '{"format_version": 1, "model": 3}',
        "[" * 100_000,
        '{"format_version": ' + "9" * 10_000 + "}",
        b"\xff\xfe{",
    ],
)
def test_damaged_manifests_are_refused(artefact, content):
    path, _ = artefact
    manifest_path(path).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError):
        EngineManifest.read(path)
    assert backend_in_manifest(path) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("artefact_sha256", 5), ("backend", None), ("versions", []), ("build_seconds", "1"),
        ("gate", []), ("engine", []), ("calibration", {}), ("proofs", {}), ("proofs", [1]),
    ],
)  # fmt: skip
def test_a_field_of_another_type_is_refused(artefact, field, value):
    path, _ = artefact
    values = json.loads(manifest_path(path).read_text())
    manifest_path(path).write_text(json.dumps({**values, field: value}))
    with pytest.raises(ModelError, match=r"is damaged, its field |missing or unknown fields"):
        EngineManifest.read(path)


def test_manifest_of_another_version_is_refused(artefact):
    path, _ = artefact
    values = json.loads(manifest_path(path).read_text())
    manifest_path(path).write_text(json.dumps({**values, "format_version": 9}))
    with pytest.raises(ModelError, match="format version 9"):
        EngineManifest.read(path)
