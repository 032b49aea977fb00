"""Reads videos, network streams, folders of images, and Y4M pipes.

One pass over a file yields the frames of one video track and the packets of the audio and subtitle
tracks, in the order of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.packet import Packet

from runtime.errors import VideoError
from runtime.video.reading.decoder import Decoder
from runtime.video.reading.demux import READ_ATTEMPTS, Demuxer, Part
from runtime.video.reading.filters import Deinterlace, deinterlacer
from runtime.video.reading.images import ImageReader, images_at, is_of_images
from runtime.video.reading.info import (
    PULLDOWN,
    DecodedFrame,
    SourceInfo,
    Track,
    frame_notes,
    frame_properties,
    pixel_properties,
    reason,
)
from runtime.video.reading.opening import is_url, name_of, open_container
from runtime.video.reading.rate import DEFAULT_RATE, FilmRate
from runtime.video.reading.seeking import (
    check_frames,
    check_stamps,
    check_start,
    seek_to_start,
)
from runtime.video.reading.streams import (
    beginning_of,
    chapters_of,
    duration_of,
    first_stamp_of,
    nominal_rate_of,
    tracks_of,
    video_stream_of,
)
from runtime.video.reading.tags import readable
from runtime.video.reading.truncation import PacketCounts, truncation
from runtime.video.reading.watch import FrameWatch, Seen

_MAX_NAMES = 5
"""Limit of the file names in a note."""

_TIMELESS = ("attachment", "cover picture")
"""Kinds of tracks without a duration."""


@contextmanager
def open_source(
    path: str | Path | Any,
    *,
    video_stream: int | None = None,
    strict: bool = False,
    start: Fraction | None = None,
    end: Fraction | None = None,
    picture_rate: Fraction = DEFAULT_RATE,
    deinterlace: Deinterlace | None = None,
) -> Iterator[Source]:
    """Opens a video and decodes its first frames.

    Args:
        path: A file that FFmpeg reads, the address of a network stream (rtsp://, udp://, http://
            ...), a folder of PNG or JPEG files, a pattern as %06d.png, "-" for Y4M on stdin, or a
            binary file object with Y4M. An image that cannot be read or decoded is skipped and
            named in the notes; the others keep their times.
        video_stream: Index of the video track; by default FFmpeg's choice.
        strict: Whether a damaged or truncated file is an error; by default damaged packets are
            skipped and counted, and the notes describe what is missing.
        start: Seconds after the beginning. The last frame before it is yielded too.
        end: Seconds after the beginning. The first frame at or after it is the last one yielded.
        picture_rate: Frames a second of a folder of images.
        deinterlace: "frame", "field" or "film": what becomes of interlaced frames, see
            `Deinterlace`.

    Raises:
        VideoError: If there is no video to decode, or the track or the part does not exist; while
            iterating, if the file is damaged or truncated and `strict`.
    """
    if start is not None and (start < 0 or (end is not None and end <= start)):
        until = "the end" if end is None else f"{float(end):g} s"
        raise VideoError(
            f"the part is {float(start):g} s to {until}: give a start of 0 or more, and "
            "an end after it"
        )
    if end is not None and end <= 0:
        raise VideoError(f"end is {float(end):g} s: give a time above 0")
    if isinstance(path, str | Path) and str(path) != "-" and not is_url(path):
        path = Path(path)
        if is_of_images(path):
            if deinterlace is not None:
                raise VideoError(f"{path} has images, which are progressive: leave deinterlace out")
            yield _image_source(path, picture_rate, Part(start, end), strict)
            return
        if not path.is_file():
            raise VideoError(f"{path} does not exist: give a video file")
    for seek in (True, False):
        with open_container(path) as container:
            source = _container_source(
                container, path, video_stream, Part(start, end), strict, deinterlace, seek=seek
            )
            if source is not None:
                yield source
                return


def key_frames(
    path: Path, video_stream: int | None = None, *, strict: bool = False
) -> tuple[list[int], str | None]:
    """Finds the stamps of key frames; reads the whole file and decodes nothing.

    Args:
        path: A video file.
        video_stream: Index of the video track; by default FFmpeg's choice.
        strict: Whether a damaged or truncated file is an error; by default it is read as far as
            possible.

    Returns:
        The stamps in ticks of the video track, in ascending order, and a note if the file is
        truncated. For MPEG-PS the list is empty, since it is always decoded from the beginning.

    Raises:
        VideoError: If there is no video to read, the track does not exist, or the file is damaged
            or truncated and `strict`.
    """
    stamps, read = set(), PacketCounts()
    with open_container(path) as container:
        stream = video_stream_of(container, str(path), video_stream)
        tracks, dropped = tracks_of(container, stream)
        try:
            for packet in container.demux([stream, *(track.stream for track in tracks)]):
                read.add(packet, packet.stream.index)
                if packet.stream is stream and packet.is_keyframe and packet.pts is not None:
                    stamps.add(packet.pts)
        except (av.error.FFmpegError, OSError) as error:
            if strict:
                raise VideoError(
                    f"{path} cannot be read to its end ({reason(error)}): copy or download it again"
                ) from error
        if container.format.name == "mpeg":
            stamps.clear()
        missing = _truncation(path, container, stream, tracks, dropped, read)
    if missing and strict:
        raise _truncated(str(path), missing)
    return sorted(stamps), missing


class Source:
    """Yields frames and packets in the order of the file; iterate once.

    Items are `DecodedFrame`, and `av.Packet` of the tracks in `info.tracks`. Packets that begin
    before the start of a part, or at or after its end, are left out; a subtitle that is visible at
    the start begins there.

    Attributes:
        info: Properties of the source.
        notes: Notes for the user; complete at the end of the iteration.
        early: Those notes on the first frames that notes on all frames replace at the end.
    """

    def __init__(
        self,
        info: SourceInfo,
        notes: list[str],
        demuxer: Demuxer,
        missing: Callable[[], str | None] = lambda: None,
        strict: bool = False,
        failed: Sequence[str] = (),
        watch: FrameWatch | None = None,
    ) -> None:
        """Wraps an opened source.

        Args:
            info: Properties of the source.
            notes: Notes for the user so far.
            demuxer: Yields the items.
            missing: Called at the end; returns a sentence about a truncated file, else None.
            strict: Whether a truncated file is an error.
            failed: Names of images that could not be read or decoded; complete at the end.
            watch: Has notes on all frames at the end; None for images.
        """
        self.info = info
        self.notes = notes
        self._demuxer = demuxer
        self._missing = missing
        self._strict = strict
        self._failed = failed
        self._watch = watch
        self.early = [] if watch is None else watch.early_notes()
        self.notes += self.early

    @property
    def damaged(self) -> int:
        """Number of packets so far that could not be read or decoded."""
        return self._demuxer.damaged

    @property
    def seen(self) -> Seen:
        """What was seen in the frames so far; nothing for images."""
        return Seen() if self._watch is None else self._watch.seen

    @property
    def decoded_from(self) -> Fraction | None:
        """Stamp, in seconds, of the first decoded frame, which may be before the part."""
        first = self._demuxer.first
        if first is None or first.pts is None:
            return None
        return first.pts * Fraction(first.time_base or 1)

    def track_packets(self) -> Iterator[Packet[Any]]:
        """Yields only the packets of `info.tracks`, without decoding; replaces the iteration."""
        for item in self._demuxer.items(decoded=False):
            if isinstance(item, Packet):
                yield item

    def __iter__(self) -> Iterator[DecodedFrame | Packet[Any]]:
        yield from self._demuxer.items()
        if self._watch is not None:
            self.notes[:] = [note for note in self.notes if note not in self.early]
            self.notes += self._watch.notes()
        if self._failed:
            self.notes.append(f"images that cannot be read or decoded: {_listed(self._failed)}")
        if self.damaged:
            self.notes.append(f"damaged packets skipped: {self.damaged}")
        if missing := self._missing():
            if self._strict:
                raise _truncated(self.info.name, missing)
            self.notes.append(missing)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _truncated(name: str, missing: str) -> VideoError:
    return VideoError(f"{name}: {missing}; get the complete file, or leave out --strict")


def _truncation(
    path: Any,
    container: Any,
    stream: Any,
    tracks: list[Track],
    dropped: list[Track],
    read: PacketCounts,
) -> str | None:
    """A sentence about a truncated file; None for a complete one, and for a pipe."""
    if not isinstance(path, Path):
        return None
    complete = all(track.kind in _TIMELESS for track in dropped)
    return truncation(path, container, stream, [t.stream for t in tracks], read, complete)


def _image_source(path: Path, rate: Fraction, part: Part, strict: bool) -> Source:
    files, notes = images_at(path)
    reader = ImageReader(files, rate)
    check_start(str(path), part, len(files) / rate)
    demuxer = Demuxer(
        str(path), reader.packets, reader.decode, 0, part, strict, describe=reader.describe
    )
    check_frames(demuxer, str(path), part, lambda: f"of {len(files)} images")
    assert demuxer.first is not None
    info = SourceInfo(
        name=str(path),
        **frame_properties(demuxer.first),
        rate=rate,
        stored_rate=rate,
        regular=True,
        time_base=1 / rate,
        stored_tick=1 / rate,
        origin=part.start or Fraction(0),
        beginning=Fraction(0),
        first=Fraction(0),
        duration=part.duration(len(files) / rate),
        frames=len(files) if part.whole else None,
        end=part.end,
        sample_aspect_ratio=None,
        metadata={},
        video_metadata={},
        chapters=[],
        tracks=(),
        dropped=(),
    )
    return Source(info, notes, demuxer, failed=reader.failed)


def _container_source(
    container: Any,
    path: Any,
    number: int | None,
    part: Part,
    strict: bool,
    deinterlace: Deinterlace | None,
    *,
    seek: bool,
) -> Source | None:
    """The source of an opened file; None if it must be opened again and read without `seek`."""
    name = name_of(path)
    stream = video_stream_of(container, name, number)
    # With damage near the end, frame threads lose up to one intact frame for each thread.
    stream.thread_type = "SLICE"
    tracks, dropped = tracks_of(container, stream)
    streams = [stream, *(track.stream for track in tracks)]
    beginning = beginning_of(streams)
    part.convert_to_stamps(beginning)
    duration = duration_of(container, stream)
    # The duration of MPEG-PS is an estimate, which may be too short by a second.
    check_start(name, part, None if container.format.name == "mpeg" else duration)
    watch = FrameWatch(part, stream.codec_context, deinterlace)
    decoder = Decoder(stream)
    demuxer = Demuxer(
        name,
        lambda: container.demux(streams),
        decoder.decode,
        stream.index,
        part,
        strict,
        sum(track.kind == "audio" for track in tracks),
        stage=watch,
        flush=decoder.flush,
        # A stream that fails is not there any more; a file may be intact after a bad part.
        attempts=1 if is_url(path) else READ_ATTEMPTS,
    )
    nominal = nominal_rate_of(container, stream, demuxer.first_stamps)
    uneven = isinstance(nominal, FilmRate)
    factor, ticks = Fraction(1), 1
    if deinterlace is not None:
        watch.deinterlacer = deinterlacer(deinterlace, nominal)
        factor, ticks = watch.deinterlacer.factor, watch.deinterlacer.ticks
    if seek and not seek_to_start(container, stream, demuxer, part):
        return None

    def missing() -> str | None:
        return _truncation(path, container, stream, tracks, dropped, demuxer.counts)

    def lost() -> str | None:
        packets = demuxer.counts.packets.get(stream.index, 0)
        if packets > 1:
            return f"of {packets} packets"
        if stream.frames > 1:
            return missing() or f"the file declares {stream.frames} frames"
        return missing() or ("damaged data follows" if demuxer.damaged else None)

    check_frames(demuxer, name, part, lost)
    check_stamps(demuxer, name, part)
    assert demuxer.first is not None
    declaring = decoder.declaring(demuxer.first)
    info = SourceInfo(
        name=name,
        **frame_properties(declaring) | pixel_properties(demuxer.first),
        rate=nominal.rate * factor,
        stored_rate=nominal.rate,
        regular=nominal.regular or (uneven and deinterlace == "film"),
        time_base=Fraction(stream.time_base) / ticks,
        stored_tick=Fraction(stream.time_base),
        origin=beginning if part.start is None else part.start,
        beginning=beginning,
        first=first_stamp_of(stream, demuxer.first),
        duration=part.duration(duration),
        frames=(int(stream.frames * factor) or None) if part.whole else None,
        end=part.end,
        sample_aspect_ratio=Fraction(stream.sample_aspect_ratio or 0) or None,
        metadata=readable(container.metadata),
        video_metadata=readable(stream.metadata),
        chapters=chapters_of(container),
        tracks=tuple(tracks),
        dropped=tuple(dropped),
    )
    left_out = [track for track in dropped if track not in info.timecode_tracks]
    notes = [f"not carried over: {', '.join(map(str, left_out))}"] if left_out else []
    notes += [*decoder.notes, *frame_notes(declaring)]
    if uneven and deinterlace != "film":
        notes.append(PULLDOWN)
    whole = missing if part.whole else lambda: None
    return Source(info, notes, demuxer, whole, strict, watch=watch)
