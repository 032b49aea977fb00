"""A machine with one GPU that is not there: fakes of CUDA and TensorRT, and a driver's answer."""

from __future__ import annotations

import contextlib
import gc
import importlib
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from typing import Any

import pytest

import fake_cuda
import fake_tensorrt
from runtime.machine import Gpu, GpuDriver

VERSIONS = ("8.6.0", "10.3.0", "10.13.3.9", "11.4.0.106")
GPU = Gpu("NVIDIA GeForce RTX 4090", "8.9")


@contextlib.contextmanager
def machine(version: str, monkeypatch: pytest.MonkeyPatch, **cuda_options: Any) -> Iterator[Any]:
    """Installs the fakes; afterwards nothing may be left on the GPU and no rule be broken."""
    cuda = fake_cuda.FakeCuda(**cuda_options)
    trt = fake_tensorrt.fake_tensorrt(version, cuda)
    fake_cuda.install(monkeypatch, cuda)
    fake_tensorrt.install(monkeypatch, trt)
    for module in ("config", "util"):  # Polygraphy would keep the TensorRT that it sees first.
        # Not by a dotted string: there `config` is another module, that of the whole package.
        loaded = importlib.import_module(f"polygraphy.backend.trt.{module}")
        monkeypatch.setattr(loaded, "trt", trt)
    trt.__spec__ = ModuleSpec("tensorrt", None)  # PyTorch asks for it when it exports.
    driver = GpuDriver([GPU], "13.0")
    for module in ("runtime.backends.trt.engine", "export.trt.engine"):
        monkeypatch.setattr(f"{module}.gpu_driver", lambda: driver)
    # The median time of a portable engine; the clock of the fake is as steady as it is arbitrary.
    monkeypatch.setattr("export.trt.attempts._INFERENCES", 3)
    trt.cuda = cuda
    yield trt
    gc.collect()
    assert cuda.violations == []
    cuda.assert_nothing_left()
