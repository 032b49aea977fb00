"""The JSON of bench.alternatives."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from bench.records.common import Environment
from bench.records.latency import RatioFigures


class ClipPsnr(TypedDict):
    """PSNR of the new frames of a clip to the true ones in dB, of "each" in order of time."""

    mean: float
    min: float
    each: list[float]


class MethodRecord(TypedDict):
    """One method: its options, the seconds of each round for all new frames, and its quality.

    "ratio" is the time of the reference over that of the method, None for the reference itself.
    """

    name: str
    how: dict[str, Any]
    seconds: list[float]
    frames_per_second: float
    psnr: ClipPsnr
    ratio: RatioFigures | None


class AlternativesMeasurement(TypedDict):
    """An alternatives file without the environment; "size" is [height, width]."""

    kind: Literal["alternatives"]
    format_version: Literal[1]
    what: str
    clip: str
    size: list[int]
    pairs: int
    threads: int
    reference: str
    methods: list[MethodRecord]


class AlternativesRecord(AlternativesMeasurement):
    """An alternatives file."""

    environment: Environment
