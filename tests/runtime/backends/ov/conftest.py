"""What the tests of OpenVINO need of the machine."""

import pytest

from openvino_types import claim_types
from runtime.backends.ov.compilation import capabilities, import_openvino


@pytest.fixture
def bf16_cpu():
    """Skips a test where the CPU does not compute in bfloat16."""
    _, computes_in = capabilities(import_openvino())
    if "BF16" not in computes_in:
        pytest.skip("this CPU does not compute in bfloat16")


@pytest.fixture
def claims_bf16(monkeypatch):
    """OpenVINO says that the CPU computes in bfloat16, and emulates it where that is not true."""
    claim_types(monkeypatch, "FP32", "BF16")
