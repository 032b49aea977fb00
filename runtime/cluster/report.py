"""The report of a run on a cluster: one result for each video."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any


@dataclass(frozen=True)
class VideoResult:
    """The result of one video.

    Attributes:
        source: Path of the input.
        destination: Path of the output.
        error: Why it failed; None where it succeeded.
        frames_in: Number of frames decoded.
        frames_out: Number of frames written.
        frames_new: Number of written frames that the model computed.
        segments: Number of segments; 1 for a video that was rendered in one piece.
        resumed: Number of segments that an earlier run had completed.
        cuts: Times of the scene cuts, in seconds after the beginning.
        held_gaps: Number of gaps that were too long to interpolate, in which a frame is held.
        worker_seconds: Step -> its seconds, summed over the workers: "scan", "look" (the analysis),
            "render" and "join", or "whole" for a video that was rendered in one piece.
        notes: Notes for the user.
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
    held_gaps: int = 0
    worker_seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ClusterReport:
    """The report of a run on a cluster.

    Attributes:
        videos: Results of all inputs, in their order.
        workers: Host, node, version and backend of each worker, replacements included.
        retries: Number of steps that were repeated because a worker died.
        frames_out: Number of frames written, of all videos.
        seconds: Duration of the run.
    """

    videos: list[VideoResult]
    workers: list[dict[str, Any]]
    retries: int
    frames_out: int
    seconds: float

    @property
    def failures(self) -> list[VideoResult]:
        """The results of the videos that failed."""
        return [video for video in self.videos if video.error is not None]
