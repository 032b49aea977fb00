"""This machine: CPU, GPUs, NVIDIA driver, and the versions of the packages that this one uses."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import math
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_VECTORS = re.compile(r"avx|amx|sse4_2$|f16c$|fma$|asimd|sve|sme(\d|_|$)|i8mm$|bf16$")
"""Matches names of vector extensions, as /proc/cpuinfo has them."""

_LOW_PRECISION = re.compile(r"bf16|fp16|asimdhp|vnni|ne_convert|i8mm|amx_int8|avx512f|sve2?$")
"""Matches the vector extensions that decide how a CPU computes in bfloat16, float16 and int8."""

_TEGRA_RELEASE = Path("/etc/nv_tegra_release")
_DEVICE_TREE = Path("/proc/device-tree/compatible")

_PACKAGES = (
    "ifrnet-deploy", "numpy", "onnxruntime", "onnxruntime-gpu", "onnx", "torch", "av", "tensorrt",
    "cuda-bindings", "polygraphy", "openvino",
)  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """One GPU, as the driver reports it.

    Attributes:
        name: Product name, for example "NVIDIA H100 80GB HBM3".
        compute_capability: For example "9.0".
    """

    name: str
    compute_capability: str


@dataclass(frozen=True)
class GpuDriver:
    """The GPUs that the NVIDIA driver reports.

    Attributes:
        gpus: In the driver's order.
        cuda_version: The newest CUDA version that the driver supports, for example "13.0"; None
            without a driver.
        problem: Why no GPU can be used; None where one can.
    """

    gpus: list[Gpu] = field(default_factory=list)
    cuda_version: str | None = None
    problem: str | None = None


def gpu_driver() -> GpuDriver:
    """Reads the GPUs from the driver library, since other libraries may crash without a GPU."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return GpuDriver(problem=f"no NVIDIA driver was found ({library} is missing)")
    count, version = ctypes.c_int(), ctypes.c_int()
    if code := cuda.cuInit(0):
        return GpuDriver(problem=f"the NVIDIA driver found no usable GPU (cuInit returned {code})")
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
    """Loads a shared library, by file name or path, and leaves it loaded; False if it fails."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def is_jetson() -> bool:
    """Whether this machine is an NVIDIA Jetson; in a container only the device tree shows it."""
    if _TEGRA_RELEASE.exists():
        return True
    try:
        return b"nvidia,tegra" in _DEVICE_TREE.read_bytes()
    except OSError:  # No such file on a PC.
        return False


def installed_versions() -> dict[str, str]:
    """Package name -> version, of the packages in `_PACKAGES` that are installed."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def cpu_name() -> str:
    """The product name of the CPU; its architecture where the system does not give the name."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """The vector extensions of the CPU that decide how fast it computes, as Linux names them.

    CPUs with the same product name may have different ones, for example avx512_bf16 or not. Empty
    where the system has no /proc/cpuinfo.
    """
    flags = _cpuinfo("flags").split() + _cpuinfo("Features").split()  # x86, Arm
    return sorted({flag for flag in flags if _VECTORS.match(flag)})


def low_precision_sets() -> list[str]:
    """The vector extensions that decide how this CPU computes in bfloat16, float16 and int8.

    Where the system does not list them, the name of the CPU.
    """
    return low_precision_of(instruction_sets()) or [cpu_name()]


def low_precision_of(extensions: Iterable[str]) -> list[str]:
    """The vector extensions in a list that decide how a CPU computes in bfloat16, float16 and int8.

    With AVX-512, libraries do not use the 256-bit extensions such as avx_vnni, which are left out.

    Args:
        extensions: Vector extensions as Linux names them; see `instruction_sets`.
    """
    names = [name for name in extensions if _LOW_PRECISION.search(name)]
    if "avx512f" in names:
        names = [name for name in names if not name.startswith("avx_")]
    return names


def _cpuinfo(key: str) -> str:
    """The first value of a key in /proc/cpuinfo; "" without the key or the file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in fields if name.strip() == key), "")


def available_cpus() -> int:
    """The number of logical CPUs that this process may use, 1 or more.

    The smaller of the CPUs in its affinity mask and the CPU time that its control groups grant
    (`docker run --cpus`), rounded up.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, min([count, *(math.ceil(share) for share in _granted_cpus())]))


def _granted_cpus(
    groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> Iterator[float]:
    """The CPU time, in CPUs, that each control group of this process grants, if it has a limit."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # In a container the name is often the host's, while the group is mounted at the root.
        root = groups / controllers if controllers else groups
        below = root / name.lstrip("/")
        for folder in dict.fromkeys((below, *below.parents)):
            if folder == root or root in folder.parents:
                yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    """Yields the CPUs that a control group (version 2 or 1) grants; nothing if it has no limit."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text().split()
        yield int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota = (folder / "cpu.cfs_quota_us").read_text()
        if int(quota) > 0:
            yield int(quota) / int((folder / "cpu.cfs_period_us").read_text())


def cache_folder() -> Path:
    """The folder for files that are expensive to create; below $XDG_CACHE_HOME or ~/.cache."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "ifrnet-deploy"
