"""What all evidence has in common: version, machine, versions of packages, commit."""

from __future__ import annotations

from typing import Final, TypedDict

FORMAT_VERSION: Final = 1
"""Version of all formats."""

Decibel = float | None
"""A PSNR in dB. That of identical images is infinite, which is null in JSON."""


class GpuRecord(TypedDict):
    """One GPU, `runtime.machine.Gpu`."""

    name: str
    compute_capability: str


class GpuDriverRecord(TypedDict):
    """The GPUs of the machine, `runtime.machine.GpuDriver`."""

    gpus: list[GpuRecord]
    cuda_version: str | None
    problem: str | None


class _NewInEnvironment(TypedDict, total=False):
    instruction_sets: list[str]
    nvidia_smi: list[dict[str, str]] | None


class Environment(_NewInEnvironment):
    """Machine, versions, commit and command of a measurement."""

    time: str
    command: str
    commit: str | None
    platform: str
    processor: str
    processors: int
    gpu: GpuDriverRecord
    versions: dict[str, str]
