"""Fixtures for the types in which the CPU computes."""

import pytest

from openvino_types import claim_types
from runtime.backends.ov.compilation import capabilities, import_openvino


@pytest.fixture
def bf16_cpu():
    """Skips a test if the CPU has no bfloat16."""
    _, computes_in = capabilities(import_openvino())
    if "BF16" not in computes_in:
        pytest.skip("this CPU does not compute in bfloat16")


@pytest.fixture
def claims_bf16(monkeypatch):
    """Makes OpenVINO report bfloat16, which it emulates on a CPU without it."""
    claim_types(monkeypatch, "FP32", "BF16")
