"""Decodes the frames of a span of a video, from a key frame on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from runtime.video.options import VideoOptions
from runtime.video.reading.info import DecodedFrame, SourceInfo
from runtime.video.reading.source import Source, open_source
from runtime.video.scenes import planes_of


def open_span(
    path: Path, info: SourceInfo, options: VideoOptions, begins: int | None
) -> AbstractContextManager[Source]:
    """Opens a video at a key frame.

    Args:
        path: A video file.
        info: Properties of the video, from `scan`.
        options: How it is read.
        begins: Stamp of the key frame, in ticks; None for the beginning of the file.

    Raises:
        VideoError: On entry, if it cannot be read.
    """
    start = None if begins is None else begins * info.time_base - info.origin
    return open_source(
        path,
        video_stream=options.video_stream,
        strict=options.strict,
        start=start,
        deinterlace=options.deinterlace,
    )


def frames_from(source: Source, begins: int | None) -> Iterator[DecodedFrame]:
    """Yields the frames from a stamp on, in ticks, without the earlier one that a source yields."""
    for item in source:
        if isinstance(item, DecodedFrame) and (
            begins is None or (item.pts is not None and item.pts >= begins)
        ):
            yield item


def frame_digest(decoded: DecodedFrame) -> str:
    """Hash of the samples of a frame, 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for plane in planes_of(decoded.frame)[0]:
        digest.update(plane.tobytes())
    return digest.hexdigest()
