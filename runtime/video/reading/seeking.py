"""Seeks to the start of a part, and checks that the start can be found."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av

from runtime.errors import VideoError
from runtime.video.reading.demux import Demuxer, Part
from runtime.video.reading.info import DecodedFrame
from runtime.video.reading.packets import padding_of

_SEEK_MARGINS = (Fraction(0), Fraction(5), Fraction(30))
"""Distances before the start, in seconds, at which a seek is tried, until it finds a frame at or
before the start; enough for the usual distances between key frames in MPEG-TS."""

_WITHOUT_SEEK = ("yuv4mpegpipe", "mpeg")
"""Formats that are always read from the beginning: Y4M may come from a pipe, and in MPEG-PS, where
few frames have stamps, FFmpeg gives the others different stamps after a seek."""


def check_start(name: str, part: Part, duration: Fraction | None) -> None:
    """Checks that a part starts before the end of the source.

    Args:
        name: Name of the source, for errors.
        part: The part, with start and end as stamps.
        duration: Duration of the whole source, in seconds; None where it is not known exactly.

    Raises:
        VideoError: If it does not.
    """
    if part.start is not None and duration is not None and part.start >= part.zero + duration:
        raise VideoError(
            f"{name} lasts {float(duration):.3f} s, but start is "
            f"{float(part.start - part.zero):.3f} s: give an earlier start"
        )


def check_frames(demuxer: Demuxer, name: str, part: Part, lost: Callable[[], str | None]) -> None:
    """Decodes up to the second frame.

    Args:
        demuxer: Reads the source.
        name: Name of the source, for errors.
        part: The part to read.
        lost: Called if the whole source has one frame; returns how it is known that it should have
            more, or None for a still image.

    Raises:
        VideoError: If there is no frame, or only one in the whole source.
    """
    frames = demuxer.probe()
    if frames == 0 and part.whole:
        raise VideoError(
            f"{name} has no frame that can be decoded, it is damaged or empty: give a whole file"
        )
    if frames == 0:
        raise VideoError(
            f"{name} has no frame that can be decoded from "
            f"{float((part.start or part.zero) - part.zero):g} s on: start earlier, or give a "
            "whole file"
        )
    if frames == 1 and part.whole and (problem := lost()):
        raise VideoError(
            f"{name} has only one frame that can be decoded ({problem}): give a whole file"
        )
    if frames == 1 and part.whole:
        raise VideoError(f"{name} is a still image (one frame): give a video of two frames or more")


def check_stamps(demuxer: Demuxer, name: str, part: Part) -> None:
    """Checks that frames have stamps, unless the whole source is read; raw streams have none.

    Raises:
        VideoError: If they have none.
    """
    frames = [item for item in demuxer.probed if isinstance(item, DecodedFrame)]
    if not part.whole and all(frame.pts is None for frame in frames):
        raise VideoError(
            f"{name} has no time stamps, so that start and end cannot be found in it: put it into "
            "a container that has them (.mkv), or leave start and end out"
        )


def seek_to_start(container: Any, stream: Any, demuxer: Demuxer, part: Part) -> bool:
    """Seeks to a frame at or before the start of a part.

    In containers without an index of key frames, as MPEG-TS, FFmpeg seeks by decoding stamps, to a
    position between two key frames. The decoder then returns nothing before the second one, which
    may be after the start.

    Returns:
        False if no seek found such a frame. Then the container must be opened again, since no seek
        returns to its first packet: in MPEG-TS several packets are decoded before the first frame
        is shown, and a seek to the time of that frame goes to the last of them.
    """
    start = part.start
    if start is None or container.format.name in _WITHOUT_SEEK:
        return True
    padding = max((padding_of(track) for track in container.streams), default=Fraction(0))
    for margin in _SEEK_MARGINS:
        target = start - padding - margin
        if target < part.zero:
            return False
        try:
            container.seek(int(target / Fraction(stream.time_base)), stream=stream)
        except av.error.FFmpegError:
            continue
        demuxer.restart()
        demuxer.probe()
        first = next((item for item in demuxer.probed if isinstance(item, DecodedFrame)), None)
        if first is not None and first.pts is not None and first.pts * first.time_base <= start:
            return True
    return False
