"""Changes the types in which the CPU can compute according to OpenVINO."""

from __future__ import annotations

import numpy as np
import pytest

from export.gate import proofs
from runtime.telemetry import import_quietly


def claim_types(monkeypatch: pytest.MonkeyPatch, *types: str) -> None:
    """Makes OpenVINO report these types as OPTIMIZATION_CAPABILITIES of the CPU.

    For a type that the CPU does not have, OpenVINO uses its AVX-512 instructions, or float32.
    """
    openvino = import_quietly("openvino")
    real = openvino.Core.get_property

    def with_types(core, device, name):
        return list(types) if name == "OPTIMIZATION_CAPABILITIES" else real(core, device, name)

    monkeypatch.setattr(openvino.Core, "get_property", with_types)


def claim_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the CPU compute in bfloat16, or with an error of that size, for `export.gate.proofs`.

    Images that are computed in float32 instead are rounded to multiples of 1/512: 65 dB.
    """
    claim_types(monkeypatch, "FP32", "BF16")
    real = proofs.openvino_runner

    def runner(model, info, precision="fp32"):
        run = real(model, info, precision)
        if precision == "fp32":
            return run
        plain = real(model, info)

        def rounded(*inputs):
            images, exact = run(*inputs), plain(*inputs)
            return np.rint(images * 512) / 512 if np.array_equal(images, exact) else images

        return rounded

    monkeypatch.setattr(proofs, "openvino_runner", runner)
