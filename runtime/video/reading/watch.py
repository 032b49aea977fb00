"""Watches decoded frames for properties that change within a video, and deinterlaces them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from av.packet import Packet
from av.video.frame import VideoFrame

from runtime.errors import counted
from runtime.video.reading.demux import Part
from runtime.video.reading.filters import Deinterlacer, FrameFilter
from runtime.video.reading.info import INTERLACED
from runtime.video.reading.levels import is_beyond_limits

_FEW = 0.1
"""Share of the frames below which luma beyond black and white is not reported."""


class FrameWatch:
    """Counts what the notes at the end of a run report; the `Stage` of a video file.

    Only frames of the part and the one before its start are counted.

    Attributes:
        deinterlacer: Deinterlaces the frames after they were counted; None: they are not. To be set
            before the first frame.
    """

    def __init__(self, part: Part, context: Any) -> None:
        """Starts before the first frame.

        Args:
            part: The part, with start and end as stamps.
            context: PyAV's codec context of the decoder.
        """
        self._part = part
        self._context = context
        self.deinterlacer: FrameFilter | None = None
        self._reset()

    def restart(self) -> None:
        """Starts again after a seek."""
        self._reset()
        if self.deinterlacer is not None:
            self.deinterlacer.restart()

    def passed(self, packet: Packet[Any], frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        """Yields the frames that are complete after those of a packet; an empty packet is last."""
        watched = self._watched(packet, frames)
        if self.deinterlacer is None:
            yield from watched
        else:
            yield from self.deinterlacer.filtered(watched, last=not packet.size)

    def early_notes(self) -> list[str]:
        """Notes that are known after the first frame; `notes` has more exact ones."""
        if self.deinterlacer is None and self._interlaced:
            return [f"the first frames are {INTERLACED}"]
        return []

    def notes(self) -> list[str]:
        """Notes on the frames so far; call it at the end."""
        return [*self._interlaced_notes(), *self._aspect_notes(), *self._level_notes()]

    def _reset(self) -> None:
        self._frames = self._interlaced = self._beyond = 0
        self._begun = self._part.start is None
        self._over = False
        self._aspect: Fraction | None = None
        self._changes: list[tuple[Fraction | None, Fraction]] = []

    def _watched(self, packet: Packet[Any], frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        self._see_aspect(packet)
        for frame in frames:
            if not self._over:
                self._see(frame)
            yield frame

    def _see(self, frame: VideoFrame) -> None:
        start, end = self._part.start, self._part.end
        moment = None if frame.pts is None else frame.pts * Fraction(frame.time_base or 1)
        if not self._begun and moment is not None and start is not None and moment < start:
            self._frames = self._interlaced = self._beyond = 0
        else:
            self._begun = True
        self._over = end is not None and moment is not None and moment >= end
        self._frames += 1
        self._interlaced += frame.interlaced_frame
        self._beyond += is_beyond_limits(frame)

    def _see_aspect(self, packet: Packet[Any]) -> None:
        """Compares the pixel aspect ratio, which the decoder reads with the packet."""
        aspect = Fraction(self._context.sample_aspect_ratio or 0)
        if not aspect or self._over or not packet.size:
            return
        if self._begun and self._aspect is not None and aspect != self._aspect:
            end = self._part.end
            moment = None if packet.pts is None else packet.pts * Fraction(packet.time_base)
            if end is None or moment is None or moment < end:
                self._changes.append((moment, aspect))
        self._aspect = aspect

    def _interlaced_notes(self) -> list[str]:
        interlaced, frames = self._interlaced, counted(self._frames, "frame")
        if self.deinterlacer is None and interlaced:
            return [f"{interlaced} of {frames} are {INTERLACED}"]
        # The others need no marks.
        if isinstance(self.deinterlacer, Deinterlacer) and interlaced < self._frames:
            return [
                f"{interlaced} of {frames} are marked as interlaced, the others are unchanged"
                + ("" if interlaced else ": mark the frames with FFmpeg's setfield first")
            ]
        return []

    def _level_notes(self) -> list[str]:
        if self._beyond < _FEW * self._frames or not self._beyond:
            return []
        return [
            f"{self._beyond} of {counted(self._frames, 'frame')} have luma below black or above "
            "white, which new frames clip: where that flickers, bring the levels into the limited "
            "range first, or mark the video as full range if it is"
        ]

    def _aspect_notes(self) -> list[str]:
        if not self._changes:
            return []
        moment, aspect = self._changes[0]
        at = "" if moment is None else f" at {float(moment - self._part.zero):.3f} s"
        more = len(self._changes) - 1
        return [
            f"the pixel aspect ratio changes{at} to {aspect}"
            + (f", and {counted(more, 'time')} after that" if more else "")
            + ": the output keeps the first one, so that these parts are shown stretched"
        ]
