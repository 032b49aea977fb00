"""The record of the environment that every measurement contains."""

import os

import pytest

from bench import environment
from bench.environment import environment_record
from runtime.machine import Gpu, GpuDriver

ANSWER = """\
NVIDIA H100 80GB HBM3, 580.82.07, 1980 MHz, 1980 MHz, 2619 MHz, 700.00 W, 41, 81559 MiB
NVIDIA H100 80GB HBM3, 580.82.07, 345 MHz, 1980 MHz, 2619 MHz, 700.00 W, 30, 81559 MiB
"""


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a fake nvidia-smi first on PATH; returns the file to which it writes its arguments."""

    def install(script):
        asked = tmp_path / "asked"
        program = tmp_path / "nvidia-smi"
        program.write_text(f'#!/bin/sh\necho "$@" >{asked}\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return asked

    return install


@pytest.fixture
def gpus(monkeypatch):
    driver = GpuDriver([Gpu("NVIDIA H100 80GB HBM3", "9.0")] * 2, "13.0")
    monkeypatch.setattr(environment, "gpu_driver", lambda: driver)


def test_clocks_and_driver_of_every_gpu_are_recorded(gpus, nvidia_smi):
    asked = nvidia_smi(f"cat <<END\n{ANSWER}END")
    first, second = environment_record()["nvidia_smi"]
    assert first["name"] == "NVIDIA H100 80GB HBM3"
    assert first["driver_version"] == "580.82.07"
    assert (first["clocks.sm"], second["clocks.sm"]) == ("1980 MHz", "345 MHz")
    assert first["memory.total"] == "81559 MiB"
    assert f"--query-gpu={','.join(first)} --format=csv,noheader" in asked.read_text()


@pytest.mark.parametrize("script", ["exit 9", "sleep 60"])
def test_if_nvidia_smi_fails_clocks_and_driver_are_omitted(gpus, nvidia_smi, monkeypatch, script):
    monkeypatch.setattr(environment, "_SMI_TIMEOUT_S", 0.5)
    nvidia_smi(script)
    record = environment_record()
    assert record["nvidia_smi"] is None
    assert len(record["gpu"]["gpus"]) == 2


def test_without_a_gpu_nvidia_smi_is_not_called(nvidia_smi, monkeypatch):
    monkeypatch.setattr(environment, "gpu_driver", lambda: GpuDriver(problem="no driver"))
    asked = nvidia_smi("exit 0")
    assert environment_record()["nvidia_smi"] is None
    assert not asked.exists()
