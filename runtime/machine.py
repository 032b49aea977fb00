"""What machine this is: processor, GPUs, driver, and the versions of what matters here."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path

_PACKAGES = (
    "ifrnet-deploy", "numpy", "onnxruntime", "onnxruntime-gpu", "onnx", "torch", "av", "tensorrt",
    "cuda-bindings", "polygraphy", "openvino",
)  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver names it."""

    name: str
    compute_capability: str


@dataclass(frozen=True)
class GpuDriver:
    """What the NVIDIA driver says; `problem` says why there is no GPU where there is none."""

    gpus: list[Gpu] = field(default_factory=list)
    cuda_version: str | None = None
    problem: str | None = None


def gpu_driver() -> GpuDriver:
    """Asks the driver itself, for no library that needs a GPU is safe to load without one."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return GpuDriver(problem=f"no NVIDIA driver was found ({library} is missing)")
    count, version = ctypes.c_int(), ctypes.c_int()
    if code := cuda.cuInit(0):
        return GpuDriver(problem=f"the NVIDIA driver found no usable GPU (cuInit gave {code})")
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGetCount(ctypes.byref(count))
    gpus = []
    for index in range(count.value):
        name = ctypes.create_string_buffer(128)
        major, minor = ctypes.c_int(), ctypes.c_int()
        cuda.cuDeviceGetName(name, 128, index)
        cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, index)  # COMPUTE_CAPABILITY_MAJOR
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, index)  # COMPUTE_CAPABILITY_MINOR
        gpus.append(Gpu(name.value.decode(), f"{major.value}.{minor.value}"))
    return GpuDriver(
        gpus,
        f"{version.value // 1000}.{version.value % 1000 // 10}",
        None if gpus else "the NVIDIA driver sees no GPU",
    )


def installed_versions() -> dict[str, str]:
    """The versions of the packages that matter here, of those that are installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def processor_name() -> str:
    """The processor as its maker names it, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def available_processors() -> int:
    """Processors that this process may use, which in a container is not the whole machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
