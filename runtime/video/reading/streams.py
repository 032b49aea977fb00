"""Chooses the tracks of an opened file, and reads what the file declares about them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
from av.stream import Disposition
from av.video.frame import VideoFrame

from runtime.errors import VideoError
from runtime.video.reading.info import DECODER_OPTIONS, MAXIMUM_PIXELS, Track
from runtime.video.reading.rate import DEFAULT_RATE, STAMPS, NominalRate, nominal_rate
from runtime.video.reading.tags import readable

_STILLS = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


def video_stream_of(container: Any, name: str, number: int | None) -> Any:
    """PyAV's stream of the video track.

    Args:
        container: The opened file.
        name: Name of the source, for errors.
        number: Index of the track in the file; None for FFmpeg's choice.

    Raises:
        VideoError: If there is no video track, not this one, no decoder for it, or its frames are
            too large.
    """
    videos = [s for s in container.streams.video if not s.disposition & _STILLS]
    if not videos:
        raise VideoError(f"{name} has no video track: give a file with a video")
    if number is not None:
        chosen = next((s for s in videos if s.index == number), None)
        if chosen is None:
            there = ", ".join(f"{s.index} ({s.width}x{s.height})" for s in videos)
            raise VideoError(f"{name} has no video track {number}: choose one of {there}")
    else:
        best = container.streams.best("video")
        chosen = best if best in videos else videos[0]
    if chosen.codec_context is None:
        raise VideoError(
            f"{name} has a video track of a codec that this FFmpeg cannot decode: convert it first"
        )
    if chosen.width * chosen.height > MAXIMUM_PIXELS:
        raise VideoError(
            f"{name} has frames of {chosen.width}x{chosen.height}, the limit is {MAXIMUM_PIXELS} "
            "pixels: make them smaller first"
        )
    chosen.codec_context.options = DECODER_OPTIONS
    return chosen


def tracks_of(container: Any, video: Any) -> tuple[list[Track], list[Track]]:
    """The audio and subtitle tracks, and the other tracks besides the video `video`."""
    kept, dropped = [], []
    chapters = bool(container.chapters())
    for stream in container.streams:
        if stream.index == video.index:
            continue
        context = stream.codec_context
        codec = context.name if context is not None else getattr(stream, "name", None)
        kind = "cover picture" if stream.disposition & _STILLS else stream.type
        language = readable(stream.metadata).get("language")
        track = Track(stream.index, kind, codec or "unknown", language, stream)
        if stream.type in ("audio", "subtitle") and context is not None:
            kept.append(track)
        elif not (chapters and stream.type == "data" and codec == "bin_data"):
            dropped.append(track)  # Not the text track with the chapters of an MP4.
    return kept, dropped


def chapters_of(container: Any) -> list[dict[str, Any]]:
    """The chapters as PyAV returns them, with readable tags."""
    return [{**c, "metadata": readable(c["metadata"])} for c in container.chapters()]


def beginning_of(streams: list[Any]) -> Fraction:
    """The smallest first stamp of the streams, in seconds; 0 where none is declared."""
    starts = [s.start_time * Fraction(s.time_base) for s in streams if s.start_time is not None]
    return min(starts, default=Fraction(0))


def duration_of(container: Any, stream: Any) -> Fraction | None:
    """Duration of a track in seconds, or else of the file; None where neither is declared."""
    if stream.duration:
        return Fraction(stream.duration * stream.time_base)
    return Fraction(container.duration, av.time_base) if container.duration else None


def first_stamp_of(stream: Any, first: VideoFrame | None) -> Fraction:
    """The stamp, in seconds, at which a track begins, else that of the first frame that is read."""
    stamp = stream.start_time
    if stamp is None and first is not None:
        stamp = first.pts
    return (stamp or 0) * Fraction(stream.time_base)


def nominal_rate_of(
    container: Any, stream: Any, first_stamps: Callable[[int], list[int]]
) -> NominalRate:
    """The rate that the file declares or FFmpeg guesses, checked against the first stamps.

    Args:
        container: The opened file.
        stream: PyAV's stream of the video.
        first_stamps: Returns the first stamps of the video, in ticks, from at most that number of
            packets.
    """
    # A pipe may be live: it is not read ahead. Y4M declares its rate, and its stamps follow it.
    count = 0 if container.format.name == "yuv4mpegpipe" else STAMPS
    tick = Fraction(stream.time_base)
    stamps = [stamp * tick for stamp in first_stamps(count)]
    rates = stream.guessed_rate, stream.average_rate
    average = stream.average_rate if stream.frames else None
    return nominal_rate(rates, stamps, tick, average) or NominalRate(DEFAULT_RATE, True)
