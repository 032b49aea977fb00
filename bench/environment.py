"""The environment recorded with every measurement: machine, versions, commit, command."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from bench.records.common import Environment
from runtime.errors import InterpolationError
from runtime.files import written_beside
from runtime.machine import (
    available_cpus,
    cpu_name,
    gpu_driver,
    installed_versions,
    instruction_sets,
)

_SMI_FIELDS = (
    "name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit",
    "temperature.gpu", "memory.total",
)  # fmt: skip
_SMI_TIMEOUT_S = 30.0


class MeasurementError(InterpolationError):
    """A measurement that is not possible as requested."""


def write_evidence(path: Path, record: Mapping[str, object]) -> None:
    """Writes a record and its environment as JSON; the file is replaced atomically."""
    with written_beside(path) as beside:
        beside.write_text(
            json.dumps({**record, "environment": environment_record()}, indent=1) + "\n"
        )
    print(f"{path}: the measurements as JSON")


def check_writable(path: Path, option: str) -> None:
    """Checks before a measurement that its result can be written.

    Args:
        path: Path of the file to write.
        option: Option of the command line that names it.

    Raises:
        MeasurementError: If its folder is missing or not writable, or the path is a folder.
    """
    folder = path.resolve().parent
    if not folder.is_dir():
        raise MeasurementError(
            f"{option} is {path}, whose folder {folder} does not exist: create the folder"
        )
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise MeasurementError(
            f"{option} {path} cannot be written: give a file in a folder that you can write to"
        )


def environment_record() -> Environment:
    """The environment of this process, from which a reader can judge or reproduce a figure."""
    gpu = gpu_driver()
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(map(_shareable, sys.orig_argv[1:])),
        "commit": _commit(),
        "platform": platform.platform(),
        "processor": cpu_name(),
        "instruction_sets": instruction_sets(),
        "processors": available_cpus(),
        "gpu": {
            "gpus": [
                {"name": one.name, "compute_capability": one.compute_capability} for one in gpu.gpus
            ],
            "cuda_version": gpu.cuda_version,
            "problem": gpu.problem,
        },
        "nvidia_smi": _nvidia_smi() if gpu.gpus else None,
        "versions": {"python": platform.python_version(), **installed_versions()},
    }


def _nvidia_smi() -> list[dict[str, str]] | None:
    """Name, driver, clocks, power, temperature, memory of each GPU; None without nvidia-smi."""
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_SMI_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None  # A Jetson has no nvidia-smi, and containers often lack it.
    rows = [line.split(", ") for line in done.stdout.splitlines() if line.strip()]
    return [dict(zip(_SMI_FIELDS, row, strict=False)) for row in rows]


def _shareable(argument: str) -> str:
    """The last part of an absolute path: evidence is published without local folders."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def _commit() -> str | None:
    """The commit of the project, with "+" if files are modified; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
