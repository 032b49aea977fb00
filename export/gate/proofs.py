"""Proves that a model is accurate in bfloat16 and float16 in OpenVINO on this CPU.

The model is compared with itself in float32, in which the gate compared it with PyTorch, on
generated frames with small and large motion and on real frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto

from export.gate.cases import GateCase, GroundTruthCase, gate_cases, ground_truth_cases
from export.gate.compare import decibels
from export.gate.gate import GateComparison, Reference, compare_all
from export.gate.runners import openvino_runner
from export.gate.windows import read_windows, split_windows
from runtime.backends.base import InferencePrecision
from runtime.backends.ov.compilation import import_openvino, native_precisions
from runtime.backends.ov.precision import PREPARATION, keeps_coordinates
from runtime.errors import BackendError
from runtime.machine import cpu_name, low_precision_sets
from runtime.manifest import PrecisionProof
from runtime.model_info import ModelInfo, Precision

REAL_FRAMES = Path(__file__).parent / "frames" / "walk.mkv"
"""The shipped clip: 640x480, a person who walks."""

REQUIRED_MADE_DB: dict[Precision, float] = {"fp32": 48.0, "fp16": 48.0, "int8": 45.0}
"""Minimum PSNR to float32 on generated frames in dB, whose motion is up to a tenth of the frame, by
the precision of the model. Measured with the demo weights in bfloat16: 49 to 86, and 42 to 54 with
bfloat16 coordinates; 47.9 to 56 in int8 models, where a small error can round to another level."""

REQUIRED_REAL_DB: dict[Precision, float] = {"fp32": 60.0, "fp16": 60.0, "int8": 50.0}
"""Minimum PSNR to float32 on real frames in dB, by the precision of the model. Measured in
bfloat16: 70 to 83; in int8 models 54 to 61."""

ALLOWED_LOSS_DB = 0.02
"""Maximum mean loss of PSNR to the true frames in dB. Measured: 0.010 or less."""

_SIZES = ((256, 448), (720, 1280))
"""(height, width) in pixels at which a model of free size is compared on generated frames: the
error grows with the motion in pixels, and versions of OpenVINO differ at the larger one."""


def provable_precisions(info: ModelInfo) -> list[InferencePrecision]:
    """The precisions below float32 that this CPU computes in, and in which a model can run.

    The list is empty for a model whose coordinates would not stay float32; see
    `runtime.backends.ov.precision.keeps_coordinates`.

    Raises:
        BackendError: If OpenVINO is not installed.
    """
    return native_precisions(import_openvino()) if keeps_coordinates(info) else []


def prove(
    model: ModelProto,
    info: ModelInfo,
    precisions: Sequence[InferencePrecision],
    clip: Path = REAL_FRAMES,
) -> tuple[PrecisionProof, ...]:
    """Compares a model in each precision with itself in float32.

    Args:
        model: The ONNX model.
        info: Its description.
        precisions: From `provable_precisions`.
        clip: A video or a folder of images with the real frames.

    Returns:
        One result for each precision, also for those that do not pass.

    Raises:
        ExportError: If the clip has too few frames, or nothing moves in it.
        VideoError: If the clip cannot be read.
        GateError: If the bytes that the model returns are not its image rounded.
    """
    if not precisions:
        return ()
    cases = proof_cases(info, clip)
    reference = Reference(openvino_runner(model, info), "float32")
    return tuple(_proof(model, info, precision, reference, cases) for precision in precisions)


def proof_cases(info: ModelInfo, clip: Path) -> list[GateCase | GroundTruthCase]:
    """Generated frames at the size of a model, or at two sizes, and frames of a clip."""
    held_out, _ = split_windows(read_windows(clip, info))
    return [
        *gate_cases([info.size] if info.size else _SIZES, info),
        *ground_truth_cases(held_out, clip.name, info),
    ]


def _proof(
    model: ModelProto,
    info: ModelInfo,
    precision: InferencePrecision,
    reference: Reference,
    cases: Sequence[GateCase | GroundTruthCase],
) -> PrecisionProof:
    required = {
        "made_db": REQUIRED_MADE_DB[info.precision],
        "real_db": REQUIRED_REAL_DB[info.precision],
        "loss_db": ALLOWED_LOSS_DB,
    }
    comparisons: list[GateComparison] = []
    try:
        run = openvino_runner(model, info, precision)
        comparisons, _ = compare_all(reference, {precision: run}, cases)
        problem = _problem(comparisons, required)
    except BackendError as error:
        problem = str(error)
    made, real = (
        min((one.psnr_db for one in comparisons if isinstance(one.case, kind)), default=np.inf)
        for kind in (GateCase, GroundTruthCase)
    )
    losses = _losses(comparisons)
    return PrecisionProof(
        precision=precision,
        openvino=import_openvino().get_version(),
        preparation=PREPARATION,
        instruction_sets=low_precision_sets(),
        processor=cpu_name(),
        problem=problem,
        made_db=decibels(made),
        real_db=decibels(real),
        loss_db=round(float(np.mean(losses)), 4) if losses else None,
        required=required,
        cases=[one.as_record() for one in comparisons],
    )


def _problem(comparisons: Sequence[GateComparison], required: dict[str, float]) -> str | None:
    """Why the comparisons do not pass, as part of a sentence; None if they pass."""
    for one in sorted(comparisons, key=lambda one: one.psnr_db):
        limit = required["made_db" if isinstance(one.case, GateCase) else "real_db"]
        if not one.psnr_db >= limit:
            return (
                f"its PSNR to fp32 is {one.psnr_db:.1f} dB at {one.case}, but {limit:.0f} dB are "
                "required"
            )
    loss, limit = float(np.mean(_losses(comparisons))), required["loss_db"]
    if not loss <= limit:
        return (
            f"its PSNR to the true frames is {loss:.3f} dB below that of fp32, but only {limit:g} "
            "dB are allowed"
        )
    return None


def _losses(comparisons: Sequence[GateComparison]) -> list[float]:
    return [one.loss_db for one in comparisons if one.loss_db is not None]
