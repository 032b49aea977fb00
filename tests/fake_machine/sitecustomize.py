"""Gives every Python process fakes of a GPU, its driver, CUDA and TensorRT.

Python imports a module of this name when it starts. With this folder on PYTHONPATH the programs of
the project, and all processes that they start, run as on a machine with a GPU, over the fakes of
tests/support:

    PYTHONPATH=tests/fake_machine python tools/gpu_check.py --smoke --json smoke.json

IFRNET_FAKE_TENSORRT is the version of TensorRT (default 8.6.0; "none": not installed),
IFRNET_FAKE_GPU the name of the GPU. The fakes are imported when a program imports tensorrt or cuda.
A program that breaks a rule of CUDA, or does not free GPU memory, ends with exit status 70.
"""

# ruff: noqa: ARG002, ARG004, N802 (signatures and names are those of the real libraries)

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib.machinery
import os
import sys
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).resolve().parents[1] / "support"
GPU = os.environ.get("IFRNET_FAKE_GPU", "NVIDIA H100 80GB HBM3")
VERSION = os.environ.get("IFRNET_FAKE_TENSORRT", "8.6.0")
CAPABILITY = {75: 9, 76: 0}
"""Values of the attributes COMPUTE_CAPABILITY_MAJOR (75) and _MINOR (76)."""


class Driver:
    """The functions of libcuda that `runtime.machine.gpu_driver` calls."""

    def cuInit(self, flags: int) -> int:
        return 0

    def cuDriverGetVersion(self, version: Any) -> None:
        version._obj.value = 13000

    def cuDeviceGetCount(self, count: Any) -> None:
        count._obj.value = 1

    def cuDeviceGetName(self, name: Any, size: int, index: int) -> None:
        name.value = GPU.encode()

    def cuDeviceGetAttribute(self, value: Any, attribute: int, index: int) -> None:
        value._obj.value = CAPABILITY[attribute]


class WithDriver(ctypes.CDLL):
    """A ctypes.CDLL with a fake libcuda and without libcudart: a real one would find no GPU."""

    def __new__(cls, name: Any, *args: Any, **options: Any) -> Any:
        if "libcudart" in str(name):
            raise OSError(f"{name} is hidden from programs that run over the fakes")
        return Driver() if name in ("libcuda.so.1", "nvcuda.dll") else super().__new__(cls)


class Fakes:
    """An import finder that creates the fakes at the first import of tensorrt or cuda."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in ("tensorrt", "cuda") or (name, VERSION) == ("tensorrt", "none"):
            return None
        sys.meta_path.remove(self)
        install()
        self.module = sys.modules.pop(name)  # The import system puts it back.
        return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec: Any) -> Any:
        return self.module

    def exec_module(self, module: Any) -> None:
        """Does nothing: the module exists already."""


class _Patch:
    def setitem(self, modules: dict[str, Any], name: str, module: Any) -> None:
        modules[name] = module


def install() -> None:
    """Puts the fakes into sys.modules; violations and leaks are reported at exit."""
    sys.path.append(str(SUPPORT))
    import fake_cuda
    import fake_tensorrt

    cuda = fake_cuda.FakeCuda()
    trt = fake_tensorrt.fake_tensorrt(VERSION, cuda)
    fake_cuda.install(_Patch(), cuda)
    fake_tensorrt.install(_Patch(), trt)
    trt.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)  # PyTorch reads it.
    atexit.register(_check, cuda)


def _check(cuda: Any) -> None:
    gc.collect()
    try:
        assert cuda.violations == [], cuda.violations
        cuda.assert_nothing_left()
    except AssertionError as error:
        print(f"fake CUDA: error: {error}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(70)


ctypes.CDLL = WithDriver  # type: ignore[misc]
sys.meta_path.insert(0, Fakes())
