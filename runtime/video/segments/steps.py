"""The steps of a video that is rendered in segments, as methods that jobs name."""

from __future__ import annotations

from typing import Any

from runtime.interpolator import Interpolator
from runtime.video.interpolate import interpolate_video
from runtime.video.options import VideoReport
from runtime.video.segments.join import join
from runtime.video.segments.plan import Scan, SpanFacts, analyse, scan
from runtime.video.segments.render import Rendered, render


class Steps:
    """Runs jobs with one model.

    Attributes:
        vfi: The model that computes the new frames.
    """

    def __init__(self, vfi: Interpolator) -> None:
        self.vfi = vfi

    def scan(self, **arguments: Any) -> Scan:
        """Scans a video, with the arguments of `runtime.video.segments.plan.scan`."""
        return scan(**arguments)

    def look(self, **arguments: Any) -> SpanFacts:
        """Analyses a span, with the arguments of `runtime.video.segments.plan.analyse`."""
        return analyse(**arguments)

    def render(self, **arguments: Any) -> Rendered:
        """Renders a segment, with the arguments of `runtime.video.segments.render.render`."""
        return render(self.vfi, **arguments)

    def join(self, **arguments: Any) -> list[str]:
        """Joins segments, with the arguments of `runtime.video.segments.join.join`."""
        return join(**arguments)

    def whole(self, **arguments: Any) -> VideoReport:
        """Renders a video in one piece, with the arguments of `interpolate_video`."""
        return interpolate_video(model=self.vfi, **arguments)
