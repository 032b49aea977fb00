"""What was made of videos on a cluster, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any


@dataclass(frozen=True)
class VideoResult:
    """What became of one video.

    Attributes:
        source: Its path.
        destination: Of the result.
        error: Why there is none; None where all is well.
        frames_in: Frames decoded.
        frames_out: Frames written, of which `frames_new` were made.
        frames_new: See there.
        segments: Parts in which it was rendered; 1 also where it could not be cut.
        resumed: Of those, parts that an earlier run had left whole.
        cuts: Seconds after the beginning at which a new scene begins.
        worker_seconds: That its steps took on the workers, together.
        notes: What the user should know.
    """

    source: str
    destination: str
    error: str | None
    frames_in: int = 0
    frames_out: int = 0
    frames_new: int = 0
    segments: int = 0
    resumed: int = 0
    cuts: list[Fraction] = field(default_factory=list)
    worker_seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ClusterReport:
    """What was done.

    Attributes:
        videos: Each input.
        workers: What each said of itself when it was ready; one that replaced another too.
        retries: Steps that had to be done again because a worker died.
        frames_out: Frames written, all together.
        seconds: From the first job to the last.
    """

    videos: list[VideoResult]
    workers: list[dict[str, Any]]
    retries: int
    frames_out: int
    seconds: float

    @property
    def failures(self) -> list[VideoResult]:
        """The videos that were not made."""
        return [video for video in self.videos if video.error is not None]
