import os

import pytest

from runtime import machine
from runtime.machine import (
    Gpu,
    GpuDriver,
    available_cpus,
    cpu_name,
    gpu_driver,
    instruction_sets,
)


def groups(folder, files, own):
    for name, text in files.items():
        path = folder / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "own").write_text(own)
    return list(machine._granted_cpus(folder / "sys", folder / "own"))


@pytest.mark.parametrize(
    ("files", "own", "granted"),
    [
        ({"cpu.max": "150000 100000"}, "0::/\n", [1.5]),
        ({"cpu.max": "max 100000"}, "0::/\n", []),
        # Limits of parent groups apply too.
        ({"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b\n", [4.0]),
        # The host's path of the group that is the root of the container.
        ({"cpu.max": "200000 100000"}, "0::/docker/123\n", [2.0]),
        (
            {
                "cpu,cpuacct/x/cpu.cfs_quota_us": "50000",
                "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
            },
            "5:memory:/x\n4:cpu,cpuacct:/x\n",
            [0.5],
        ),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/\n", []),
        ({"cpu.max": "nonsense"}, "0::/\n", []),
    ],
)
def test_the_share_of_cpus_follows_from_control_groups(tmp_path, files, own, granted):
    assert groups(tmp_path, files, own) == granted


@pytest.mark.parametrize(("share", "expected"), [([0.2], 1), ([1.5, 64.0], 2), ([], 8)])
def test_the_number_of_cpus_is_the_minimum_of_affinity_and_share_rounded_up(
    monkeypatch, share, expected
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "_granted_cpus", lambda: iter(share))
    assert available_cpus() == expected


@pytest.mark.parametrize(
    ("cpuinfo", "found"),
    [
        (
            "model name\t: AMD EPYC\nflags\t\t: fpu sse4_2 avx2 avx512_bf16 fma nx\n",
            ["avx2", "avx512_bf16", "fma", "sse4_2"],
        ),
        ("processor\t: 0\nFeatures\t: fp asimd sve bf16 crc32\n", ["asimd", "bf16", "sve"]),
        (None, []),
    ],
)
def test_instruction_sets(monkeypatch, cpuinfo, found):
    def read_text(path):
        if cpuinfo is None:
            raise FileNotFoundError(path)
        return cpuinfo

    monkeypatch.setattr(machine.Path, "read_text", read_text)
    assert instruction_sets() == found
    if cpuinfo and "EPYC" in cpuinfo:
        assert cpu_name() == "AMD EPYC"


@pytest.mark.parametrize(
    ("cpuinfo", "found"),
    [
        # Zen 5 also has avx_vnni, but computes like Zen 4.
        ("flags\t: avx avx2 avx512f avx512bw avx512_vnni avx512_bf16",
         ["avx512_bf16", "avx512_vnni", "avx512f"]),
        ("flags\t: avx avx2 avx512f avx512bw avx512_vnni avx512_bf16 avx_vnni",
         ["avx512_bf16", "avx512_vnni", "avx512f"]),
        ("flags\t: avx512f avx512_fp16 avx512_bf16 amx_tile amx_int8 amx_bf16 amx_fp16",
         ["amx_bf16", "amx_fp16", "amx_int8", "avx512_bf16", "avx512_fp16", "avx512f"]),
        ("flags\t: sse4_2 avx avx2 avx_vnni avx_ne_convert fma",
         ["avx_ne_convert", "avx_vnni"]),
        ("Features\t: fp asimd asimdhp bf16 i8mm sve sve2 sveaes",
         ["asimdhp", "bf16", "i8mm", "sve", "sve2"]),
        ("model name\t: Old CPU\nflags\t: avx avx2 fma", ["Old CPU"]),
    ],
)  # fmt: skip
def test_instruction_sets_that_matter_for_low_precision(monkeypatch, cpuinfo, found):
    monkeypatch.setattr(machine.Path, "read_text", lambda _: cpuinfo)
    assert machine.low_precision_sets() == found


@pytest.mark.parametrize(
    ("release", "tree", "expected"),
    [
        (None, None, False),
        ("# R36", None, True),
        (None, "nvidia,p3768-0000+p3767-0000\0nvidia,tegra234\0", True),
        (None, "raspberrypi,5-model-b\0brcm,bcm2712\0", False),
    ],
)
def test_a_jetson_is_recognised_by_its_system_files(tmp_path, monkeypatch, release, tree, expected):
    for name, text in (("_TEGRA_RELEASE", release), ("_DEVICE_TREE", tree)):
        path = tmp_path / name
        monkeypatch.setattr(machine, name, path)
        if text is not None:
            path.write_text(text)
    assert machine.is_jetson() is expected


class Libcuda:
    """The functions of libcuda.so.1 on a machine with these GPUs: (name, major, minor)."""

    def __init__(self, *gpus, version=12040, code=0):
        self.gpus, self.version, self.code = gpus, version, code

    def cuInit(self, flags):  # noqa: N802
        assert flags == 0  # CUDA allows no other value.
        return self.code

    def cuDriverGetVersion(self, version):  # noqa: N802
        version._obj.value = self.version

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = len(self.gpus)

    def cuDeviceGetName(self, name, size, index):  # noqa: N802
        assert size == len(name)
        name.value = self.gpus[index][0].encode()

    def cuDeviceGetAttribute(self, value, attribute, index):  # noqa: N802
        value._obj.value = self.gpus[index][{75: 1, 76: 2}[attribute]]


@pytest.mark.parametrize(
    ("library", "found"),
    [
        (
            Libcuda(("NVIDIA A", 8, 9), ("NVIDIA B", 10, 0)),
            GpuDriver([Gpu("NVIDIA A", "8.9"), Gpu("NVIDIA B", "10.0")], "12.4", None),
        ),
        (
            Libcuda(version=11080),
            GpuDriver([], "11.8", "the NVIDIA driver sees no GPU"),
        ),
        (
            Libcuda(code=100),
            GpuDriver(problem="the NVIDIA driver found no usable GPU (cuInit returned 100)"),
        ),
    ],
)
def test_the_driver_names_its_gpus_and_its_version(monkeypatch, library, found):
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda _: library)
    assert gpu_driver() == found


@pytest.mark.parametrize(("platform", "name"), [("linux", "libcuda.so.1"), ("win32", "nvcuda.dll")])
def test_a_missing_driver_is_named(monkeypatch, platform, name):
    asked = []

    def load(library):
        asked.append(library)
        raise OSError

    monkeypatch.setattr(machine.ctypes, "CDLL", load)
    monkeypatch.setattr(machine.sys, "platform", platform)
    assert gpu_driver() == GpuDriver(problem=f"no NVIDIA driver was found ({name} is missing)")
    assert asked == [name]
