"""Makes and encodes one segment of a video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from runtime.errors import VideoError
from runtime.files import written_beside
from runtime.interpolator import Interpolator
from runtime.video.interpolate import rate_of
from runtime.video.options import VideoOptions
from runtime.video.reading.info import DecodedFrame
from runtime.video.reading.source import Source
from runtime.video.render import Rendering
from runtime.video.schedule import PrecomputedSchedule
from runtime.video.segments.decode import frame_digest, frames_from, open_part
from runtime.video.segments.errors import SeamError
from runtime.video.segments.file import SegmentSink
from runtime.video.segments.plan import Scan, Segment
from runtime.video.timeline import Mode
from runtime.video.writing.encoder import open_encoder


class Rendered(NamedTuple):
    """A segment file that is whole.

    Attributes:
        sha256: Of the file.
        frames: In it.
        frames_new: Of those made.
        notes: What the user should know.
    """

    sha256: str
    frames: int
    frames_new: int
    notes: list[str]


def render(
    vfi: Interpolator,
    path: Path,
    found: Scan,
    segment: Segment,
    mode: Mode,
    options: VideoOptions,
    *,
    like: Path,
    output: Path,
) -> Rendered:
    """Makes and encodes one segment; the file is whole or not there.

    Args:
        vfi: Makes the new frames.
        path: The source.
        found: Of it.
        segment: To render.
        mode: Of the whole.
        options: How it is read and written.
        like: The file that the segments will be joined to: says encoder and container.
        output: The segment file.

    Raises:
        SeamError: If the source cannot be decoded from there as from its beginning.
        VideoError: If it cannot be read or written.
    """
    rendering = Rendering(vfi, found.info, PrecomputedSchedule(segment.shown))
    with (
        open_part(path, found.info, options, segment.begins) as read,
        open_encoder(
            like, like=found.info, rate=rate_of(mode, found.info), encode=options.encode
        ) as encoder,
        written_beside(output) as beside,
        SegmentSink(beside, encoder, like.name) as sink,
    ):
        rendering.run(_frames_of(read, segment), sink)
        sink.finish()
        if sink.written != len(segment.shown):
            raise VideoError(
                f"segment {segment.number} of {path} has {sink.written} frames, "
                f"{len(segment.shown)} were decided: the file changed meanwhile, begin again"
            )
    return Rendered(sink.sha256, sink.written, rendering.frames_new, rendering.notes)


def _frames_of(read: Source, segment: Segment) -> Iterator[DecodedFrame]:
    """Exactly the frames of a segment, the first of them checked."""
    frames = frames_from(read, segment.begins)
    for number, stamp in enumerate(segment.stamps):
        frame = next(frames, None)
        if frame is None or frame.pts != stamp:
            raise SeamError(f"its frame at tick {stamp} is not found from the key frame on")
        if number == 0 and segment.picture not in (None, frame_digest(frame)):
            raise SeamError(f"its frame at tick {stamp} needs frames from before the key frame")
        yield frame
