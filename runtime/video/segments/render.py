"""Interpolates and encodes one segment of a video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from runtime.files import written_beside
from runtime.interpolator import Interpolator
from runtime.video.interpolate import rate_of
from runtime.video.options import VideoOptions
from runtime.video.reading.info import DecodedFrame
from runtime.video.reading.source import Source
from runtime.video.render import FrameProgress, Rendering
from runtime.video.segments.decode import frame_digest, frames_from, open_span
from runtime.video.segments.errors import SeamError
from runtime.video.segments.file import SegmentSink
from runtime.video.segments.plan import Scan, Segment
from runtime.video.timing.schedule import PrecomputedSchedule
from runtime.video.timing.timeline import Mode
from runtime.video.writing.encoder import open_encoder


class Rendered(NamedTuple):
    """A complete segment file.

    Attributes:
        sha256: Hash of the file, hexadecimal.
        frames: Number of frames in it.
        frames_new: Number of those that the model computed.
        notes: Notes for the user.
        idle: Share of the time, in [0, 1], in which the model waited for frames.
    """

    sha256: str
    frames: int
    frames_new: int
    notes: list[str]
    idle: float


def render(
    vfi: Interpolator,
    path: Path,
    scanned: Scan,
    segment: Segment,
    mode: Mode,
    options: VideoOptions,
    *,
    like: Path,
    output: Path,
    progress: FrameProgress | None = None,
) -> Rendered:
    """Interpolates and encodes one segment; the file is written atomically.

    Args:
        vfi: The model that computes the new frames.
        path: The source.
        scanned: The result of `scan` for the source.
        segment: The segment to render.
        mode: How the frames of the whole video are multiplied.
        options: How the source is read and the segment encoded.
        like: The video file to which the segments will be joined; its suffix chooses encoder and
            container.
        output: The segment file.
        progress: Called after each frame, with the number of frames of the segment so far and of
            all.

    Raises:
        SeamError: If decoding from the segment's key frame gives other frames than decoding from
            the beginning.
        VideoError: If the source cannot be read or the segment cannot be written.
    """
    schedule = PrecomputedSchedule(segment.shown, segment.end)
    mask = options.mask_for(scanned.info)
    rendering = Rendering(vfi, scanned.info, schedule, alpha=options.alpha, mask=mask)
    with (
        open_span(path, scanned.info, options, segment.begins) as source,
        open_encoder(
            like, like=scanned.info, rate=rate_of(mode, scanned.info), encode=options.encode
        ) as encoder,
        written_beside(output) as temporary,
        SegmentSink(temporary, encoder, like.name) as sink,
    ):
        rendering.run(_frames_of(source, segment), sink, progress, len(segment.shown))
        sink.finish()
    return Rendered(
        sink.sha256, sink.written, rendering.frames_new, rendering.notes, rendering.idle
    )


def _frames_of(source: Source, segment: Segment) -> Iterator[DecodedFrame]:
    """The frames of a segment; checks their stamps, and the content of the first.

    Raises:
        SeamError: If a frame is missing or the first one differs.
    """
    frames = frames_from(source, segment.begins)
    for number, stamp in enumerate(segment.stamps):
        frame = next(frames, None)
        if frame is None or frame.pts != stamp:
            raise SeamError(
                f"its frame at tick {stamp} is missing when decoding starts at the key frame"
            )
        if number == 0 and segment.first_digest not in (None, frame_digest(frame)):
            raise SeamError(f"its frame at tick {stamp} refers to frames before the key frame")
        yield frame
