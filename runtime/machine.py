"""What machine this is: processor, GPUs, driver, and the versions of what matters here."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import math
import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_VECTORS = re.compile(r"avx|amx|sse4_2$|f16c$|fma$|asimd|sve|sme(\d|_|$)|i8mm$|bf16$")
"""Beginnings of the names of vector extensions."""

_TEGRA_RELEASE = Path("/etc/nv_tegra_release")
_DEVICE_TREE = Path("/proc/device-tree/compatible")

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


def loads_library(name: str) -> bool:
    """Whether a shared library, by file name or path, can be loaded; it stays loaded."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def is_jetson() -> bool:
    """Whether this is an NVIDIA Jetson, also in a container, which sees the device tree alone."""
    if _TEGRA_RELEASE.exists():
        return True
    try:
        return b"nvidia,tegra" in _DEVICE_TREE.read_bytes()
    except OSError:  # No such file on a PC.
        return False


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
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """The vector extensions of the CPU that decide how fast it computes, as Linux names them.

    They tell machines of one product name apart, for example with and without avx512_bf16. Empty
    where the system does not tell.
    """
    found = _cpuinfo("flags").split() + _cpuinfo("Features").split()  # x86, Arm
    return sorted({flag for flag in found if _VECTORS.match(flag)})


def _cpuinfo(key: str) -> str:
    """The first value of a key in /proc/cpuinfo; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in fields if name.strip() == key), "")


def available_processors() -> int:
    """Processors that this process may use, which in a container is not the whole machine.

    The set that it may run on, or the share of time that its control groups grant if that is
    less (`docker run --cpus`), rounded up.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, min([count, *(math.ceil(share) for share in _granted_processors())]))


def _granted_processors(
    groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> Iterator[float]:
    """The processors that each control group above this process grants, where it limits them."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # In a container the group is often named as the host sees it, and lies at the root.
        root = groups / controllers if controllers else groups
        below = root / name.lstrip("/")
        for folder in dict.fromkeys((below, *below.parents)):
            if folder == root or root in folder.parents:
                yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    """Of version 2, or of version 1; nothing where there is no limit."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text().split()
        yield int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota = (folder / "cpu.cfs_quota_us").read_text()
        if int(quota) > 0:
            yield int(quota) / int((folder / "cpu.cfs_period_us").read_text())


def cache_folder() -> Path:
    """Where what is expensive to make is kept for the next time."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "ifrnet-deploy"
