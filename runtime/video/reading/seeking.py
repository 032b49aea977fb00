"""The start of a part: refused where it cannot be found, and sought in the file."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av

from runtime.errors import VideoError
from runtime.video.reading.demux import Demuxer, Part
from runtime.video.reading.info import DecodedFrame

_EARLIER = (Fraction(0), Fraction(5), Fraction(30))
"""Seconds before the start to seek to, one after the other, until a frame at or before the start
is found: enough for the distances between key frames that are usual in MPEG-TS."""

_NOT_SOUGHT = ("yuv4mpegpipe", "mpeg")
"""Formats that are read from the beginning whatever the start: Y4M may come through a pipe, and in
MPEG-PS, where few frames have stamps, FFmpeg gives other stamps to the rest after a seek."""


def refuse_late(name: str, part: Part, duration: Fraction | None) -> None:
    """Refuses a start behind the end.

    Args:
        name: Of the source.
        part: With stamps.
        duration: Of the whole, in seconds; None where it is not known, or only roughly.

    Raises:
        VideoError: If the part starts behind the end.
    """
    if part.start is not None and duration is not None and part.start >= part.zero + duration:
        raise VideoError(
            f"{name} lasts {float(duration):.3f} s: start at less than that, not at "
            f"{float(part.start - part.zero):.3f} s"
        )


def refuse_without_stamps(demuxer: Demuxer, name: str, part: Part) -> None:
    """Refuses a part of raw streams, whose frames have no stamps to find it by."""
    frames = [item for item in demuxer.probed if isinstance(item, DecodedFrame)]
    if not part.whole and all(frame.pts is None for frame in frames):
        raise VideoError(
            f"{name} has no time stamps, so that start and end cannot be found in it: put it into "
            "a container that has them (.mkv), or leave start and end out"
        )


def seek_to_start(container: Any, stream: Any, demuxer: Demuxer, part: Part) -> bool:
    """Goes to a frame at or before the start.

    Containers without an index of key frames (MPEG-TS, for one) are sought in by decoding stamps.
    That lands between two key frames; the decoder then gives nothing before the second one, which
    may lie behind the start.

    Returns:
        False where no seek got there. The container must be opened anew then, as no seek leads to
        its first packet either: in MPEG-TS several packets are decoded before the first frame is
        shown, and a seek to that moment lands on the last of them.
    """
    start = part.start
    if start is None or container.format.name in _NOT_SOUGHT:
        return True
    for earlier in _EARLIER:
        target = start - earlier
        if target < part.zero:
            return False
        try:
            container.seek(int(target / Fraction(stream.time_base)), stream=stream)
        except av.error.FFmpegError:
            continue
        demuxer.again()
        demuxer.probe()
        first = next((item for item in demuxer.probed if isinstance(item, DecodedFrame)), None)
        if first is not None and first.pts is not None and first.pts * first.time_base <= start:
            return True
    return False
