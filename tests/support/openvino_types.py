"""Changes the types in which the CPU can compute according to OpenVINO."""

from __future__ import annotations

import pytest

from runtime.telemetry import import_quietly


def claim_types(monkeypatch: pytest.MonkeyPatch, *types: str) -> None:
    """Makes OpenVINO report these types as OPTIMIZATION_CAPABILITIES of the CPU.

    OpenVINO emulates those that the CPU does not have.
    """
    openvino = import_quietly("openvino")
    real = openvino.Core.get_property

    def with_types(core, device, name):
        return list(types) if name == "OPTIMIZATION_CAPABILITIES" else real(core, device, name)

    monkeypatch.setattr(openvino.Core, "get_property", with_types)
