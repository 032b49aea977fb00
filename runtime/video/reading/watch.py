"""Watches decoded frames for properties that change within a video, and deinterlaces them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from av.packet import Packet
from av.video.frame import VideoFrame

from runtime.errors import counted
from runtime.video.reading.demux import Part
from runtime.video.reading.filters import Deinterlace, FrameFilter
from runtime.video.reading.info import INTERLACED
from runtime.video.reading.levels import is_beyond_limits

_FEW = 0.1
"""Share of the frames below which luma beyond black and white is not reported."""


class Seen(NamedTuple):
    """What was seen in the frames of a part, from which `notes_on` makes notes.

    Attributes:
        frames: Number of frames.
        interlaced: Number of those that are interlaced.
        beyond: Number of those with luma below black or above white.
        aspects: The first pixel aspect ratio, and each that differs from the one before; with the
            stamp, in seconds, of the packet that declares it, or None where it has none.
    """

    frames: int = 0
    interlaced: int = 0
    beyond: int = 0
    aspects: tuple[tuple[Fraction | None, Fraction], ...] = ()


def joined(parts: Sequence[Seen]) -> Seen:
    """What was seen in consecutive parts; a change of the aspect ratio may be in two of them."""
    changes = sorted(
        {change for part in parts for change in part.aspects}, key=lambda at: at[0] or 0
    )
    kept = [change for n, change in enumerate(changes) if not n or change[1] != changes[n - 1][1]]
    return Seen(
        sum(part.frames for part in parts),
        sum(part.interlaced for part in parts),
        sum(part.beyond for part in parts),
        tuple(kept),
    )


def notes_on(seen: Seen, zero: Fraction, deinterlace: Deinterlace | None) -> list[str]:
    """Notes on all frames of a part.

    Args:
        seen: What was seen in them, before they were deinterlaced.
        zero: The stamp, in seconds, at which the source begins.
        deinterlace: How the frames are deinterlaced; None: they are not.
    """
    notes = []
    frames = counted(seen.frames, "frame")
    if deinterlace is None and seen.interlaced:
        notes.append(f"{seen.interlaced} of {frames} are {INTERLACED}")
    elif (
        deinterlace in ("frame", "field") and seen.interlaced < seen.frames
    ):  # Film needs no marks.
        notes.append(
            f"{seen.interlaced} of {frames} are marked as interlaced, the others are unchanged"
            + ("" if seen.interlaced else ": mark the frames with FFmpeg's setfield first")
        )
    if len(seen.aspects) > 1:
        moment, aspect = seen.aspects[1]
        at = "" if moment is None else f" at {float(moment - zero):.3f} s"
        more = len(seen.aspects) - 2
        notes.append(
            f"the pixel aspect ratio changes{at} to {aspect}"
            + (f", and {counted(more, 'time')} after that" if more else "")
            + ": the output keeps the first one, so that these parts are shown stretched"
        )
    if seen.beyond and seen.beyond >= _FEW * seen.frames:
        notes.append(
            f"{seen.beyond} of {frames} have luma below black or above white, which new frames "
            "clip: where that flickers, bring the levels into the limited range first, or mark the "
            "video as full range if it is"
        )
    return notes


class FrameWatch:
    """Counts what the notes at the end of a run report; the `Stage` of a video file.

    Only frames of the part and the one before its start are counted.

    Attributes:
        deinterlacer: Deinterlaces the frames after they were counted; None: they are not. To be set
            before the first frame.
    """

    def __init__(self, part: Part, context: Any, deinterlace: Deinterlace | None) -> None:
        """Starts before the first frame.

        Args:
            part: The part, with start and end as stamps.
            context: PyAV's codec context of the decoder.
            deinterlace: How `deinterlacer` will deinterlace; None: not at all.
        """
        self._part = part
        self._context = context
        self._deinterlace = deinterlace
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

    @property
    def seen(self) -> Seen:
        """What was seen in the frames so far."""
        return Seen(self._frames, self._interlaced, self._beyond, tuple(self._aspects))

    def early_notes(self) -> list[str]:
        """Notes that are known after the first frame; `notes` has more exact ones."""
        if self._deinterlace is None and self._interlaced:
            return [f"the first frames are {INTERLACED}"]
        return []

    def notes(self) -> list[str]:
        """Notes on the frames so far; call it at the end."""
        return notes_on(self.seen, self._part.zero, self._deinterlace)

    def _reset(self) -> None:
        self._frames = self._interlaced = self._beyond = 0
        self._begun = self._part.start is None
        self._over = False
        self._aspects: list[tuple[Fraction | None, Fraction]] = []

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
        """Records the pixel aspect ratio, which the decoder reads with the packet."""
        aspect = Fraction(self._context.sample_aspect_ratio or 0)
        if not aspect or self._over or not packet.size:
            return
        moment = None if packet.pts is None else packet.pts * Fraction(packet.time_base)
        if not self._begun:
            self._aspects.clear()
        end = self._part.end
        is_part = end is None or moment is None or moment < end
        if not self._aspects or (aspect != self._aspects[-1][1] and is_part):
            self._aspects.append((moment, aspect))
