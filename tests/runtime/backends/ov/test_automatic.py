"""The default precision of OpenVINO: which proofs allow bfloat16, and which notes are given."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from openvino_types import claim_types
from runtime import Interpolator, interpolate_video
from runtime.backends.build_command import prove_command
from runtime.backends.demo import demo_model
from runtime.backends.onnx_format import read_onnx
from runtime.backends.ov.automatic import automatic_precision
from runtime.backends.ov.precision import PREPARATION
from runtime.machine import low_precision_sets
from runtime.manifest import EngineManifest, PrecisionProof, manifest_path
from runtime.telemetry import import_quietly
from video_clips import write

VERSION = import_quietly("openvino").get_version()


def proof(precision="bf16", **changes):
    made = PrecisionProof(
        precision=precision,
        openvino=VERSION,
        preparation=PREPARATION,
        instruction_sets=low_precision_sets(),
        processor="a CPU",
        problem=None,
        made_db=50.0,
        real_db=70.0,
        loss_db=0.001,
        required={"made_db": 48.0, "real_db": 60.0, "loss_db": 0.02},
        cases=[],
    )
    return replace(made, **changes)


@pytest.fixture
def artefact(tmp_path):
    """Writes a copy of the shipped model with these proofs; returns its path."""

    def write_with(*proofs):
        path = tmp_path / "model.onnx"
        shutil.copy(demo_model("openvino"), path)
        manifest = EngineManifest.read(demo_model("openvino"))
        replace(manifest, proofs=proofs).write(path)
        return path

    return write_with


def chosen(path):
    return automatic_precision(import_quietly("openvino"), read_onnx(path))


@pytest.mark.usefixtures("claims_bf16")
@pytest.mark.parametrize("asked", [{}, {"precision": "auto"}, {"precision": None}])
def test_a_proved_model_runs_in_bfloat16(artefact, asked):
    path = artefact(proof())
    with Interpolator.open(path, backend="openvino", cache="none", **asked) as vfi:
        assert vfi.backend == "openvino cpu bf16"
        assert list(vfi.notes) == []
        frame = np.zeros((32, 48, 3), np.uint8)
        assert vfi.interpolate(frame, frame).shape == (32, 48, 3)


@pytest.mark.usefixtures("claims_bf16")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_given_precision_needs_no_proof_and_gives_no_note(artefact, precision):
    with Interpolator.open(artefact(), backend="openvino", precision=precision) as vfi:
        assert vfi.backend == f"openvino cpu {precision}"
        assert list(vfi.notes) == []


@pytest.mark.usefixtures("claims_bf16")
@pytest.mark.parametrize(
    "other",
    [
        {"openvino": "2025.0.0-1"},
        {"preparation": PREPARATION - 1},
        {"instruction_sets": ["amx_bf16", "avx512_bf16"]},
        {"precision": "fp16"},
    ],
)
def test_a_proof_for_another_cpu_or_version_does_not_count(artefact, other):
    path = artefact(proof(**other))
    with Interpolator.open(path, backend="openvino", cache="none") as vfi:
        assert vfi.backend == "openvino cpu fp32"
        (note,) = vfi.notes
    assert note == (
        f"model.onnx is computed in fp32, because bf16 is not proved with OpenVINO "
        f"{VERSION.partition('-')[0]} on this CPU: prove it with python -m export.prove {path}"
    )


@pytest.mark.usefixtures("claims_bf16")
def test_after_a_failed_proof_float32_is_used_without_a_note(artefact):
    path = artefact(proof(problem="it is 40.0 dB from fp32"))
    assert chosen(path) == ("fp32", None)


def test_the_fastest_proved_precision_is_used(artefact, monkeypatch):
    claim_types(monkeypatch, "FP32", "FP16", "BF16")
    assert chosen(artefact(proof("fp16"), proof("bf16"))).precision == "bf16"
    path = artefact(proof("bf16", problem="it is 40.0 dB from fp32"), proof("fp16"))
    assert chosen(path) == ("fp16", None)
    path = artefact(proof("bf16", problem="it is 40.0 dB from fp32"))
    assert "fp16 is not proved" in chosen(path).note


def test_the_last_proof_of_a_kind_counts(artefact, monkeypatch):
    claim_types(monkeypatch, "FP32", "BF16")
    refused = proof(problem="it is 40.0 dB from fp32")
    assert chosen(artefact(refused, proof())).precision == "bf16"
    assert chosen(artefact(proof(), refused)).precision == "fp32"


def test_a_cpu_without_faster_types_needs_no_note(artefact, monkeypatch):
    claim_types(monkeypatch, "FP32")
    assert chosen(artefact(proof())) == ("fp32", None)
    assert chosen(artefact()) == ("fp32", None)


@pytest.mark.usefixtures("claims_bf16")
def test_without_a_manifest_the_note_says_how_to_build_one(artefact):
    path = artefact(proof())
    manifest_path(path).unlink()
    assert chosen(path).precision == "fp32"
    command = "python -m export.build_engine --weights demo --backend openvino"
    assert f"it has no manifest that proves bf16: build one with {command}" in chosen(path).note


@pytest.mark.usefixtures("claims_bf16")
def test_a_model_that_is_tuned_for_onnx_runtime_gives_a_note():
    made = chosen(demo_model("onnxruntime"))
    assert made.precision == "fp32"
    assert "tuned for ONNX Runtime: build one with" in made.note


def test_the_command_that_proves_the_shipped_model_uses_its_name():
    assert prove_command(demo_model("openvino")).startswith("python -m export.prove demo")


def test_the_command_that_proves_a_model_names_missing_packages(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "av" else name)
    assert prove_command(tmp_path / "a b.onnx") == (
        f"python -m export.prove '{tmp_path}/a b.onnx' "
        "(needs pip install 'ifrnet-deploy[cpu,build]')"
    )


@pytest.mark.usefixtures("claims_bf16")
def test_a_video_names_the_precision_and_repeats_the_note(artefact, tmp_path):
    write(tmp_path / "in.mkv", 3)
    given = []
    report = interpolate_video(
        tmp_path / "in.mkv", tmp_path / "out.mkv", model=artefact(), on_note=given.append
    )
    assert report.backend == "openvino cpu fp32"
    assert "bf16 is not proved" in report.notes[0]
    assert given == report.notes
    report = interpolate_video(
        tmp_path / "in.mkv", tmp_path / "again.mkv", model=artefact(proof()), precision="auto"
    )
    assert report.backend == "openvino cpu bf16"
    assert report.notes == []
