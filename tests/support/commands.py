"""Commands of the project, run as a user runs them."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest


def run_module(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `python -m ...` and captures its output; the exit status is not checked."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        timeout=300,
    )


def run_main(
    module: str, *arguments: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command like `run_module`, but in this process, which saves seconds of imports."""
    name = f"{module}.__main__" if find_spec(module).submodule_search_locations else module
    main = importlib.import_module(name).main
    words = [str(argument) for argument in arguments]
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        if cwd is not None:
            patch.chdir(cwd)
        patch.setattr(sys, "argv", [name, *words])
        patch.setattr(sys, "stdout", output)
        patch.setattr(sys, "stderr", errors)
        with pytest.raises(SystemExit) as ended:
            main(words)
    code = ended.value.code or 0
    return subprocess.CompletedProcess(module, code, output.getvalue(), errors.getvalue())


def signalled(number, *arguments: object, when: Callable[[], bool], cwd: Path | None = None):
    """Runs `python -m ...` and sends it a signal as soon as `when` is true.

    Returns:
        The CompletedProcess, whose stdout was dropped.
    """
    command = [sys.executable, "-m", *map(str, arguments)]
    deadline = time.monotonic() + 120
    with subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            while not when():
                assert process.poll() is None, f"it ended before: {process.communicate()[1]}"
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, "", errors)


def need_torch() -> None:
    """Skips where PyTorch is left out on purpose (IFRNET_WITHOUT_TORCH, see tools/installed)."""
    if "IFRNET_WITHOUT_TORCH" in os.environ:
        pytest.skip("needs PyTorch, which is left out here")


WITHOUT = """
import runpy, sys
hidden, module, *arguments = sys.argv[1:]
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in hidden.split(','):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def run_without(packages, module, *arguments, cwd=None):
    """Runs `python -m module ...` in a process in which these packages cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, ",".join(packages), module, *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, check=False, timeout=300,
    )  # fmt: skip


def build_without_torch(*arguments, cwd):
    hidden = ("torch", "ifrnet_model", "onnxscript", "safetensors")
    return run_without(hidden, "export.build_engine", *arguments, cwd=cwd)


WITHOUT_NUMPY = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == "numpy":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""
