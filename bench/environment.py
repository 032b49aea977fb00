"""The record that travels with every measured number: machine, versions, commit, command."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

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
    """What was asked for cannot be measured."""


def write_evidence(path: Path, record: dict[str, Any]) -> None:
    """Writes what was measured as JSON with the environment in it, whole or not at all."""
    with written_beside(path) as beside:
        beside.write_text(
            json.dumps({**record, "environment": environment_record()}, indent=1) + "\n"
        )
    print(f"{path}: evidence with every sample")


def check_writable(path: Path, option: str) -> None:
    """Refuses before a measurement what could not be written after it.

    Args:
        path: Of the file that is to be written.
        option: Of the command line that names it.

    Raises:
        MeasurementError: If its folder is missing, or it cannot be written there.
    """
    folder = path.resolve().parent
    if not folder.is_dir():
        raise MeasurementError(
            f"{option} {path}: the folder {folder} does not exist, make it first"
        )
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise MeasurementError(
            f"{option} {path} cannot be written: name a file in a folder of yours"
        )


def environment_record() -> dict[str, Any]:
    """What a reader needs to judge a figure or to measure it again."""
    gpu = gpu_driver()
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(map(_shareable, sys.orig_argv[1:])),
        "commit": _commit(),
        "platform": platform.platform(),
        "processor": cpu_name(),
        "instruction_sets": instruction_sets(),
        "processors": available_cpus(),
        "gpu": asdict(gpu),
        "nvidia_smi": _nvidia_smi() if gpu.gpus else None,
        "versions": {"python": platform.python_version(), **installed_versions()},
    }


def _nvidia_smi() -> list[dict[str, str]] | None:
    """Name, driver, clocks, power and temperature of each GPU now; None without nvidia-smi."""
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_SMI_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None  # A Jetson has none, and containers often leave it out.
    rows = [line.split(", ") for line in done.stdout.splitlines() if line.strip()]
    return [dict(zip(_SMI_FIELDS, row, strict=False)) for row in rows]


def _shareable(argument: str) -> str:
    """An absolute path's last part: evidence is published, where the files lay is not."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def _commit() -> str | None:
    """The project's commit, with "+" where files differ from it; None outside a checkout."""
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
