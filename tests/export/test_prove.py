"""export.prove: results in the manifest, repeated runs, and refused arguments."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from commands import run_main
from export import prove
from export.errors import GateError
from export.gate import proofs
from export.source import SourceGraph
from moving_clips import write_clip
from openvino_types import claim_bfloat16, claim_types
from runtime import Interpolator
from runtime.manifest import EngineManifest, file_sha256, manifest_path


@pytest.fixture
def built(models, tmp_path, monkeypatch):
    """An artefact for OpenVINO whose manifest has no proofs, as if built on a CPU without bf16."""
    from export.candidate import checked_from_onnx
    from export.store import write_artefact

    claim_bfloat16(monkeypatch)
    path = tmp_path / "model.onnx"
    checked = checked_from_onnx(models / "frames.onnx", backend="openvino")
    write_artefact(checked, path, started=0.0)
    return path


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        prove.main([str(argument) for argument in arguments])
    return ended.value.code


def test_the_proof_is_added_to_the_manifest_and_used(built, capsys):
    before = EngineManifest.read(built)
    assert before.proofs == ()
    content = built.read_bytes()
    assert run(built) == 0
    said = capsys.readouterr().out
    assert f"{manifest_path(built)}: results of the comparison with fp32 were added" in said
    assert "  bf16 on this CPU: lowest PSNR to fp32 " in said
    assert " dB on generated frames, " in said
    after = EngineManifest.read(built)
    assert [proof.precision for proof in after.proofs] == ["bf16"]
    assert replace(after, proofs=()) == before
    assert built.read_bytes() == content
    assert sorted(path.name for path in built.parent.iterdir()) == ["model.onnx", "model.onnx.json"]
    with Interpolator.open(built, backend="openvino", cache="none") as vfi:
        assert vfi.backend == "openvino cpu bf16"


def test_a_second_run_replaces_only_its_own_result(built, monkeypatch, capsys):
    assert run(built) == 0
    manifest = EngineManifest.read(built)
    other = replace(manifest.proofs[0], openvino="2025.0.0", problem="it is 40.0 dB from fp32")
    replace(manifest, proofs=(other, *manifest.proofs)).write(built)
    monkeypatch.setattr(proofs, "REQUIRED_MADE_DB", {"fp32": 200.0})
    assert run(built) == 1
    assert "  bf16 on this CPU: not used, because its PSNR " in capsys.readouterr().out
    kept, new = EngineManifest.read(built).proofs
    assert kept == other
    assert (new.precision, new.required["made_db"]) == ("bf16", 200.0)
    assert new.problem is not None
    with Interpolator.open(built, backend="openvino", cache="none") as vfi:
        assert (vfi.backend, list(vfi.notes)) == ("openvino cpu fp32", [])


def test_without_a_correct_float32_reference_nothing_is_proved(built, monkeypatch, capsys):
    def wrong(self):
        raise GateError("OpenVINO is 20.0 dB from the file")

    monkeypatch.setattr(SourceGraph, "reference", property(wrong))
    assert run(built) == 1
    assert capsys.readouterr().err.endswith("error: OpenVINO is 20.0 dB from the file\n")
    assert EngineManifest.read(built).proofs == ()


def test_proofs_can_use_a_given_clip(built, tmp_path):
    clip = write_clip(tmp_path / "own.mkv", 12)
    assert run(built, "--real-frames", clip) == 0
    names = {case.get("frames", "") for case in EngineManifest.read(built).proofs[0].cases}
    assert any(name.startswith("own.mkv, window 1 of ") for name in names)


def test_a_cpu_that_computes_only_in_float32_has_nothing_to_prove(built, monkeypatch, capsys):
    claim_types(monkeypatch, "FP32")
    assert run(built) == 0
    assert capsys.readouterr().out == (
        f"{built}: this CPU computes in fp32 only, so there is nothing to compare\n"
    )


def test_demo_names_the_shipped_model(monkeypatch, capsys, built):
    monkeypatch.setattr(prove, "demo_model", lambda _: built)
    assert run("demo") == 0
    assert len(EngineManifest.read(built).proofs) == 1


def tuned(path):
    manifest = EngineManifest.read(path)
    replace(manifest, model=replace(manifest.model, tuned_for="cpu")).write(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "model.onnx does not exist: give a file of"),
        (lambda path: manifest_path(path).unlink(), "model.onnx.json is missing: put it beside"),
        (lambda path: path.write_bytes(b"x"), "its manifest was written for"),
        (tuned, "is tuned for ONNX Runtime: build one for OpenVINO with python -m export.build_"),
    ],
)
def test_errors_of_the_command_are_one_sentence(built, capsys, change, message):
    change(built)
    assert run(built) == 1
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1


def test_an_engine_is_refused(tmp_path, capsys):
    (tmp_path / "model.engine").write_bytes(b"x")
    assert run(tmp_path / "model.engine") == 1
    assert "model.engine is not an ONNX file" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_an_error(built, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)  # Patched, as root may write everywhere.
    assert run(built) == 1
    assert "copy model.onnx and model.onnx.json to another folder" in capsys.readouterr().err


def test_a_clip_that_cannot_be_read_is_an_error(built, tmp_path, capsys):
    (tmp_path / "broken.mkv").write_bytes(b"not a video")
    assert run(built, "--real-frames", tmp_path / "broken.mkv") == 1
    assert "broken.mkv" in capsys.readouterr().err
    assert EngineManifest.read(built).proofs == ()


def test_a_build_for_openvino_proves_the_precisions_of_the_cpu(models, tmp_path):
    """The runtime has no notes about a model that was built on this CPU."""
    done = run_main(
        "export.build_engine", "--onnx", models / "frames.onnx", "--backend", "openvino",
        "--output", "m.onnx", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = EngineManifest.read(tmp_path / "m.onnx")
    assert manifest.artefact_sha256 == file_sha256(tmp_path / "m.onnx")
    assert manifest.machine["instruction_sets"] or not Path("/proc/cpuinfo").exists()
    with Interpolator.open(tmp_path / "m.onnx", backend="openvino", cache="none") as vfi:
        assert list(vfi.notes) == []
        used = vfi.backend.removeprefix("openvino cpu ")
    passed = [proof.precision for proof in manifest.proofs if proof.problem is None]
    assert used == (passed or ["fp32"])[0]
    written = json.loads(manifest_path(tmp_path / "m.onnx").read_text())
    assert ("proofs" in written) == bool(manifest.proofs)
    assert done.stdout.count(" on this CPU") == len(manifest.proofs)


def test_real_frames_are_refused_for_other_backends(tmp_path):
    done = run_main(
        "export.build_engine", "--onnx", "m.onnx", "--backend", "onnxruntime", "--output", "o.onnx",
        "--real-frames", "clip.mkv", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--real-frames was given with --backend onnxruntime: leave it out" in done.stderr
