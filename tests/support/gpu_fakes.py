"""Simulates a machine with one GPU: fakes of CUDA, of TensorRT and of the driver."""

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
    """Installs the fakes. Fails at the end on a violation or on GPU memory that is not freed."""
    cuda = fake_cuda.FakeCuda(**cuda_options)
    trt = fake_tensorrt.fake_tensorrt(version, cuda)
    fake_cuda.install(monkeypatch, cuda)
    fake_tensorrt.install(monkeypatch, trt)
    for module in ("config", "util"):  # Polygraphy keeps the first TensorRT it sees.
        # Not patched by a dotted string: in that, `config` is a module of `polygraphy` itself.
        loaded = importlib.import_module(f"polygraphy.backend.trt.{module}")
        monkeypatch.setattr(loaded, "trt", trt)
    trt.__spec__ = ModuleSpec("tensorrt", None)  # PyTorch reads it during an export.
    driver = GpuDriver([GPU], "13.0")
    for module in ("runtime.backends.trt.engine", "export.trt.engine"):
        monkeypatch.setattr(f"{module}.gpu_driver", lambda: driver)
    # Few inferences are enough for a portable engine's median time: the fake's clock is steady.
    monkeypatch.setattr("export.trt.attempts._INFERENCES", 3)
    trt.cuda = cuda
    yield trt
    gc.collect()
    assert cuda.violations == []
    cuda.assert_nothing_left()
