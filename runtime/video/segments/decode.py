"""Frames of a part of a video, decoded from a key frame on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from runtime.video.options import VideoOptions
from runtime.video.reading.info import DecodedFrame, SourceInfo
from runtime.video.reading.source import Source, open_source
from runtime.video.scenes import planes_of


def open_part(
    path: Path, info: SourceInfo, options: VideoOptions, begins: int | None
) -> AbstractContextManager[Source]:
    """Opens a video at the stamp of a key frame, in ticks; None: at its own beginning."""
    start = None if begins is None else begins * info.time_base - info.origin
    return open_source(path, video_stream=options.video_stream, strict=options.strict, start=start)


def frames_from(read: Source, begins: int | None) -> Iterator[DecodedFrame]:
    """The frames from a stamp on; the source gives one before it too."""
    for item in read:
        if isinstance(item, DecodedFrame) and (
            begins is None or (item.pts is not None and item.pts >= begins)
        ):
            yield item


def frame_digest(frame: DecodedFrame) -> str:
    """The same for frames of the same content."""
    digest = hashlib.blake2b(digest_size=16)
    for plane in planes_of(frame.picture)[0]:
        digest.update(plane.tobytes())
    return digest.hexdigest()
