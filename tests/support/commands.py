"""Commands of the project, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run_module(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m ...` as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        timeout=300,
    )


def need_torch() -> None:
    """Skips where PyTorch is left out on purpose (tools/installed); elsewhere it must be there."""
    if "IFRNET_WITHOUT_TORCH" in os.environ:
        pytest.skip("needs PyTorch, which is left out here")


WITHOUT_TORCH = """
import sys, runpy
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {"torch", "ifrnet_model", "onnxscript", "safetensors"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
sys.argv = ["build_engine", *sys.argv[1:]]
runpy.run_module("export.build_engine", run_name="__main__")
"""


def build_without_torch(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, check=False,
    )  # fmt: skip
