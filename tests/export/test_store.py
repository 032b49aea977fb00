"""Artefacts and their manifests: a manifest never stays beside a file that it does not describe."""

from dataclasses import replace

import pytest
from onnx import helper

from artefacts import INFO
from export.candidate import CheckedModel
from export.errors import ExportError
from export.store import add_proofs, save_with_manifest, write_artefact, write_onnx
from runtime.errors import ModelError
from runtime.manifest import EngineManifest, GateReport, PrecisionProof
from small_graphs import one_node

CHECKED = CheckedModel(
    one_node(helper.make_node("Relu", ["x"], ["y"]), {"x": [1, 2, 3, 4]}),
    INFO,
    GateReport(None, 0.0, 80.0, "PyTorch"),
    "cd" * 32,
)
PROOF = PrecisionProof("bf16", "2026.4", 1, ["amx_bf16"], "CPU", None, 50.0, 70.0, 0.0, {}, [])


def save(path, content, **changes):
    checked = CHECKED._replace(**changes)
    return save_with_manifest(path, lambda to: to.write_bytes(content), checked, started=0.0)


@pytest.fixture
def artefact(tmp_path):
    path = tmp_path / "model.onnx"
    save(path, b"old", proofs=(PROOF,))
    return path


def contents(path):
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def test_the_manifest_describes_the_file_beside_it(artefact):
    manifest = save(artefact, b"new")
    assert EngineManifest.read(artefact) == manifest
    assert (manifest.onnx_sha256, manifest.proofs) == ("cd" * 32, ())
    assert sorted(contents(artefact)) == ["model.onnx", "model.onnx.json"]


def test_a_file_without_a_manifest_does_not_keep_that_of_the_previous_one(artefact):
    write_onnx(CHECKED.model, artefact)
    assert contents(artefact) == {"model.onnx": CHECKED.model.SerializeToString()}


def test_the_old_manifest_is_removed_even_if_the_new_one_cannot_be_written(artefact, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(EngineManifest, "write", fail)
    with pytest.raises(OSError, match="no space left"):
        save(artefact, b"new")
    assert contents(artefact) == {"model.onnx": b"new"}


def test_an_artefact_that_cannot_be_saved_changes_nothing(artefact):
    def fail(path):
        path.write_bytes(b"half")
        raise OSError("no space left")

    before = contents(artefact)
    with pytest.raises(OSError, match="no space left"):
        save_with_manifest(artefact, fail, CHECKED, started=0.0)
    assert contents(artefact) == before


def test_new_proofs_replace_those_of_the_same_precision_and_conditions(artefact):
    others = [
        replace(PROOF, precision="fp16"),
        replace(PROOF, openvino="2025.0"),
        replace(PROOF, preparation=2),
        replace(PROOF, instruction_sets=["avx512_bf16"]),
    ]
    new = replace(PROOF, processor="another with the same extensions", problem="it is 40.0 dB")
    before = save(artefact, b"old", proofs=(others[0], PROOF, *others[1:]))
    add_proofs(artefact, [new])
    assert EngineManifest.read(artefact) == replace(before, proofs=(*others, new))


def test_no_proofs_are_added_to_the_manifest_of_another_file(artefact):
    artefact.write_bytes(b"another")
    before = contents(artefact)
    with pytest.raises(ModelError, match="its manifest was written for"):
        add_proofs(artefact, [PROOF])
    assert contents(artefact) == before


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_onnx(CHECKED.model, path),
        lambda path: write_artefact(CHECKED, path, started=0.0),
    ],
)
@pytest.mark.parametrize(
    ("name", "message"), [("no/m.onnx", "is not a folder: create it first"), ("", "is a folder")]
)
def test_a_path_without_a_folder_or_of_a_folder_is_refused(tmp_path, write, name, message):
    with pytest.raises(ExportError, match=message):
        write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
