"""The comparison of bfloat16 and float16 with float32 in OpenVINO: figures, limits, failures."""

import re
from dataclasses import replace

import numpy as np
import pytest

from export.errors import ExportError
from export.gate import proofs
from export.gate.proofs import proof_cases, provable_precisions, prove
from image_folders import image_folder
from openvino_types import claim_bfloat16, claim_types
from paths import WALK
from runtime.backends.ov import precision as ov_precision
from runtime.machine import low_precision_sets
from runtime.telemetry import import_quietly


@pytest.fixture
def checked(export, monkeypatch):
    claim_bfloat16(monkeypatch)
    return export(height=50, width=70)


def test_a_model_is_compared_on_generated_and_on_real_frames(checked):
    (proof,) = prove(checked.model, checked.info, ["bf16"])
    assert (proof.precision, proof.problem) == ("bf16", None)
    assert proof.openvino == import_quietly("openvino").get_version()
    assert proof.instruction_sets == low_precision_sets()
    made = [case for case in proof.cases if case["motion_px"] is not None]
    real = [case for case in proof.cases if case["motion_px"] is None]
    assert [case["motion_px"] for case in made] == [2.0, 7.0]
    names = [f"walk.mkv, window {k} of 4" for k in range(1, 5)]
    assert [case["frames"] for case in real] == names
    assert {case["size"] for case in proof.cases} == {"50x70"}
    assert proof.made_db == min(case["psnr_db"] for case in made)
    assert proof.real_db == min(case["psnr_db"] for case in real)
    assert 48 <= proof.made_db < 100  # 100 dB or more would mean float32.
    assert 60 <= proof.real_db < 100
    assert proof.loss_db == pytest.approx(sum(case["loss_db"] for case in real) / 4, abs=1e-3)
    assert proof.required == {"made_db": 48.0, "real_db": 60.0, "loss_db": 0.02}


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        (
            "REQUIRED_MADE_DB",
            {"fp32": 200.0},
            r"^its PSNR to fp32 is \d+\.\d dB at 50x70 with motion of",
        ),
        (
            "REQUIRED_REAL_DB",
            {"fp32": 200.0},
            r"^its PSNR to fp32 is \d+\.\d dB at 50x70 of walk\.mkv",
        ),
        ("ALLOWED_LOSS_DB", -1.0, r"-?\d\.\d{3} dB below that of fp32, but only -1 dB are"),
    ],
)
def test_each_limit_can_refuse_a_precision(checked, monkeypatch, name, value, problem):
    monkeypatch.setattr(proofs, name, value)
    (proof,) = prove(checked.model, checked.info, ["bf16"])
    assert re.search(problem, proof.problem), proof.problem
    assert len(proof.cases) == 6


def test_a_model_that_openvino_rounds_wrongly_gives_a_proof_with_a_problem(checked, monkeypatch):
    monkeypatch.setattr(ov_precision, "rounded_layers", lambda *_: ["Mul_3"])
    (proof,) = prove(checked.model, checked.info, ["bf16"])
    assert "1 of the layers of the coordinates in bf16" in proof.problem
    assert (proof.made_db, proof.real_db, proof.loss_db, proof.cases) == (None, None, None, [])


def test_a_model_of_free_size_is_compared_at_720p_too(checked):
    info = replace(checked.info, height=None, width=None)
    assert [str(case) for case in proof_cases(info, WALK)] == [
        "256x448 with motion of 2 px",
        "256x448 with motion of 45 px",
        "720x1280 with motion of 2 px",
        "720x1280 with motion of 128 px",
        *(f"480x640 of walk.mkv, window {k} of 4" for k in range(1, 5)),
    ]


def test_precisions_that_can_be_proved_depend_on_the_model_and_the_cpu(checked, monkeypatch):
    assert provable_precisions(checked.info) == ["bf16"]
    assert provable_precisions(replace(checked.info, tuned_for="cpu")) == []
    claim_types(monkeypatch, "FP32")
    assert provable_precisions(checked.info) == []
    assert prove(checked.model, checked.info, []) == ()


def test_a_still_clip_proves_nothing(checked, tmp_path):
    still = image_folder(tmp_path / "still", [np.full((64, 96, 3), 9, np.uint8)] * 6)
    with pytest.raises(ExportError, match="nothing moves"):
        prove(checked.model, checked.info, ["bf16"], still)
