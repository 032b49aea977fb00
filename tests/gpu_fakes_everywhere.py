"""A pytest plugin: the whole run sees a GPU and a TensorRT, which are fakes; see gpu_fakes.

    PYTHONPATH=.:tests python -m pytest -p gpu_fakes_everywhere tests/test_gpu.py

IFRNET_FAKE_TENSORRT names the version of TensorRT; 8.6.0 if it is not set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import gpu_fakes
import pytest


@pytest.fixture(scope="session", autouse=True)
def _machine_with_a_gpu() -> Iterator[None]:
    version = os.environ.get("IFRNET_FAKE_TENSORRT", "8.6.0")
    with pytest.MonkeyPatch.context() as patch, gpu_fakes.machine(version, patch):
        yield
