"""Chooses the precision of a model in OpenVINO by the proofs in its manifest."""

from __future__ import annotations

from typing import Any, NamedTuple

from runtime.backends.base import InferencePrecision
from runtime.backends.build_command import build_command, prove_command
from runtime.backends.onnx_format import OnnxFile
from runtime.backends.ov.compilation import native_precisions
from runtime.backends.ov.precision import PREPARATION, keeps_coordinates
from runtime.machine import low_precision_sets


class AutomaticPrecision(NamedTuple):
    """The precision that was chosen.

    Attributes:
        precision: Type in which convolutions are computed.
        note: Why it is float32 although the CPU computes in a faster type, and how to change that,
            as a sentence; None otherwise.
    """

    precision: InferencePrecision
    note: str | None = None


def automatic_precision(openvino: Any, file: OnnxFile) -> AutomaticPrecision:
    """The fastest precision that the CPU computes in natively and the manifest of a model proves.

    A proof counts if this version of OpenVINO, this version of the preparation
    (`precision.PREPARATION`) and a CPU with the same vector extensions produced it, since all three
    change the result: the same model at 1280x720 was up to 12 dB closer to float32 in OpenVINO
    2026.4 than in 2026.2.

    Args:
        openvino: The module.
        file: The model.
    """
    native = native_precisions(openvino)
    if not native:
        return AutomaticPrecision("fp32")
    if not keeps_coordinates(file.info):
        return _to_build(file, "it is tuned for ONNX Runtime")
    if file.manifest is None:
        return _to_build(file, f"it has no manifest that proves {native[0]}")
    version = openvino.get_version()
    current = version, PREPARATION, low_precision_sets()
    # The last proof of a precision counts.
    proofs = {
        proof.precision: proof for proof in file.manifest.proofs if proof.conditions == current
    }
    for precision in native:
        if precision in proofs and proofs[precision].problem is None:
            return AutomaticPrecision(precision)
    if missing := [precision for precision in native if precision not in proofs]:
        return _float32(
            file,
            f"{missing[0]} is not proved with OpenVINO {version.partition('-')[0]} on this CPU: "
            f"prove it with {prove_command(file.path)}",
        )
    return AutomaticPrecision("fp32")


def _to_build(file: OnnxFile, why: str) -> AutomaticPrecision:
    return _float32(file, f"{why}: build one with {build_command(file.info, 'openvino')}")


def _float32(file: OnnxFile, why: str) -> AutomaticPrecision:
    return AutomaticPrecision("fp32", f"{file.path.name} is computed in fp32, because {why}")
