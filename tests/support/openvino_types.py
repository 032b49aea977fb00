"""OpenVINO that says which types the CPU computes in."""

from __future__ import annotations

import pytest

from runtime.telemetry import import_quietly


def claim_types(monkeypatch: pytest.MonkeyPatch, *types: str) -> None:
    """OpenVINO says that the CPU computes in these types, and emulates what it does not have."""
    openvino = import_quietly("openvino")
    real = openvino.Core.get_property

    def with_types(core, device, name):
        return list(types) if name == "OPTIMIZATION_CAPABILITIES" else real(core, device, name)

    monkeypatch.setattr(openvino.Core, "get_property", with_types)
