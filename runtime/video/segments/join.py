"""Joins segments into one video by copying their packets."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.packet import Packet

from runtime.errors import VideoError
from runtime.video.interpolate import rate_of
from runtime.video.options import VideoOptions
from runtime.video.reading.packets import moment_of
from runtime.video.reading.source import open_source
from runtime.video.segments.file import PacketIndex, SegmentFile
from runtime.video.timing.timeline import Mode
from runtime.video.writing.muxer import Muxer
from runtime.video.writing.sink import open_sink


def join(
    path: Path, destination: Path, files: Sequence[Path], mode: Mode, options: VideoOptions
) -> list[str]:
    """Joins segments by copying their packets, and adds sound, subtitles and chapters.

    Args:
        path: The source.
        destination: The video file to write.
        files: The segment files, in order.
        mode: How frames are multiplied.
        options: How the source is read and the destination written.

    Returns:
        Notes for the user.

    Raises:
        VideoError: If a file is not a complete segment, the segments do not fit together, or the
            destination cannot be written.
    """
    with (
        open_source(
            path, video_stream=options.video_stream, deinterlace=options.deinterlace
        ) as source,
        open_sink(
            destination,
            like=source.info,
            rate=rate_of(mode, source.info),
            audio=options.audio,
            strict=options.strict,
            overwrite=options.overwrite,
            encode=options.encode,
        ) as sink,
    ):
        assert isinstance(sink, Muxer)
        encoder = sink.encoder
        segments = [SegmentFile(file) for file in files]
        for segment in segments:
            segment.check(encoder)
        video = deque(_stamped([(s, p) for s in segments for p in s.packets]))
        for packet in source.track_packets():
            moment = moment_of(packet)
            if moment is not None:
                reached = (moment - source.info.origin) / encoder.tick
                sink.write_encoded(_until(video, reached, encoder.tick))
            sink.write_packet(packet)
        sink.write_encoded(_until(video, None, encoder.tick))
        # No frame is decoded here: the plan has notes on all frames.
        return [*(note for note in source.notes if note not in source.early), *sink.notes]


Stamped = tuple[SegmentFile, PacketIndex, int]
"""A packet of a segment, with its decoding stamp in the joined video, in ticks."""


def decoding_stamps(stamps: Sequence[int]) -> list[int]:
    """Decoding stamps that rise and are never later than the presentation stamps.

    They replace the stamps of the encoders: each encoder starts before its first frame, by its own
    delay, so that the stamps of a segment would overlap those of the previous one. Here the n-th
    packet is decoded when frame `n - delay` in the order of presentation is shown.

    Args:
        stamps: Presentation stamps, all different, in decoding order, in ticks.

    Returns:
        One decoding stamp for each, in the same order.
    """
    rising = sorted(stamps)
    rank = {stamp: k for k, stamp in enumerate(rising)}
    delay = max((k - rank[stamp] for k, stamp in enumerate(stamps)), default=0)
    step = rising[1] - rising[0] if len(rising) > 1 else 1
    early = [rising[0] - step * (delay - k) for k in range(min(delay, len(rising)))]
    return [*early, *rising[: len(rising) - len(early)]]


def _stamped(packets: Sequence[tuple[SegmentFile, PacketIndex]]) -> list[Stamped]:
    stamps = [entry.pts for _, entry in packets]
    if len(set(stamps)) != len(stamps):
        raise VideoError("two segments have a frame at the same time: start again")
    times = decoding_stamps(stamps)
    return [(segment, entry, dts) for (segment, entry), dts in zip(packets, times, strict=True)]


def _until(video: deque[Stamped], moment: Fraction | None, tick: Fraction) -> Iterator[Packet[Any]]:
    """Removes and yields the packets that are decoded up to a time, in ticks; None: all."""
    while video and (moment is None or video[0][2] <= moment):
        segment, entry, dts = video.popleft()
        yield segment.packet(entry, dts, tick)
