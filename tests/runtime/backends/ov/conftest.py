"""What the tests of OpenVINO need of the machine."""

import pytest

from runtime.backends.ov.compilation import capabilities, import_openvino


@pytest.fixture
def bf16_cpu():
    """Skips a test where the CPU does not compute in bfloat16."""
    _, computes_in = capabilities(import_openvino())
    if "BF16" not in computes_in:
        pytest.skip("this CPU does not compute in bfloat16")
