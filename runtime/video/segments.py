"""A long video in parts: looked through, cut at key frames, rendered apart and joined.

    scan -> look (each part) -> decide (the whole) -> render (each part) -> join

What is shown, and where the scenes are cut, is decided once for the whole video, so that the
result is that of `interpolate_video` frame for frame wherever the cuts fall. A part begins at a
key frame and ends with the key frame of the next, which belongs to both: no pair is lost. Nothing
here knows who runs the steps; `runtime.cluster` spreads them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from av.packet import Packet

from runtime.errors import InterpolationError, VideoError
from runtime.files import written_beside
from runtime.interpolator import Interpolator
from runtime.manifest import TimeSteps
from runtime.video.interpolate import Rendering, VideoOptions, detector_for, frame_facts, rate_of
from runtime.video.reading.demux import moment_of
from runtime.video.reading.info import Frame, SourceInfo
from runtime.video.reading.source import Source, key_frames, open_source
from runtime.video.scenes import planes_of
from runtime.video.schedule import FixedScript, FrameFacts, LiveScript
from runtime.video.timeline import Mode, Shown
from runtime.video.writing.sink import FileSink, open_encoder, open_sink

_OVERLAP = 4
"""Frames that are looked at beyond a part: a cut is judged by the three frames before it, so what
the next part says of its own first ones does not count."""

_MAGIC = b"ifrnet-segment-1"
_LENGTH = struct.Struct("<Q")


class SeamError(InterpolationError):
    """A video cannot be decoded from one of its key frames as it is from the beginning."""


class Scan(NamedTuple):
    """What is known of a video before its frames are looked at.

    Attributes:
        info: Of the source, without what lives only while the file is open.
        seams: Stamps, in ticks, of the key frames at which parts begin; the first part begins with
            the file.
        notes: What the user should know.
    """

    info: SourceInfo
    seams: list[int]
    notes: tuple[str, ...] = ()


class Look(NamedTuple):
    """What was seen of one part.

    Attributes:
        facts: Of its frames.
        beyond: Of the first frames of the next part, seen with this one's before them.
        pictures: Hashes of the frames at the seams, by their stamps.
        damaged: Packets that could not be decoded.
    """

    facts: list[FrameFacts]
    beyond: list[FrameFacts]
    pictures: dict[int, str]
    damaged: int


@dataclass(frozen=True)
class Segment:
    """One part of a video, as it is rendered.

    Attributes:
        number: From 0 on.
        stamps: Of the frames to decode, in ticks; the last ones may belong to the next part.
        from_beginning: Whether decoding begins with the file.
        picture: Hash of the first frame; None where the file begins with it.
        shown: What is shown, with the numbers of `stamps`.
    """

    number: int
    stamps: tuple[int, ...]
    from_beginning: bool
    picture: str | None
    shown: tuple[Shown, ...]

    @property
    def begins(self) -> int | None:
        """Stamp at which decoding begins; None for the file's own beginning."""
        return None if self.from_beginning else self.stamps[0]

    @property
    def key(self) -> str:
        """The same for segments that show the same."""
        return hashlib.sha256(repr((self.stamps, self.shown)).encode()).hexdigest()


class Decided(NamedTuple):
    """What is shown of the whole.

    Attributes:
        segments: That together show it.
        frames_in: Of the source.
        frames_out: Of the result.
        cuts: Seconds after the beginning at which a new scene begins.
        repeats: Frames that repeat the one before.
    """

    segments: list[Segment]
    frames_in: int
    frames_out: int
    cuts: list[Fraction]
    repeats: int


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


def scan(path: Path, options: VideoOptions, seconds: Fraction) -> Scan:
    """Reads what the file says of itself, and where its key frames are; decodes two frames.

    Args:
        path: A video file.
        options: How it is read.
        seconds: That a part lasts at least.

    Raises:
        VideoError: If there is no video in it, or it is damaged or truncated and `options.strict`.
    """
    with open_source(path, video_stream=options.video_stream, strict=options.strict) as read:
        # Streams and chapters belong to the open file, and parts have neither.
        info = replace(read.info, tracks=(), dropped=(), chapters=[])
    stamps, truncated = key_frames(path, options.video_stream, strict=options.strict)
    notes = () if truncated is None else (truncated,)
    return Scan(info, seams(stamps, info.time_base, seconds), notes)


def seams(stamps: Sequence[int], tick: Fraction, seconds: Fraction) -> list[int]:
    """Of the stamps of key frames, rising, those at which a part begins, the first left out."""
    chosen: list[int] = []
    last = stamps[0] if stamps else 0
    for stamp in stamps[1:]:
        if (stamp - last) * tick >= seconds:
            chosen.append(stamp)
            last = stamp
    return chosen


def parts(found: Scan, options: VideoOptions) -> list[tuple[int | None, int | None]]:
    """The parts that are looked at apart: where each begins and ends, None for the file's own.

    A repeat is judged by the last frame that was none, however long ago: with `dedupe` the whole
    is one part.
    """
    if options.dedupe:
        return [(None, None)]
    edges = [None, *found.seams, None]
    return list(itertools.pairwise(edges))


def look(
    path: Path, found: Scan, options: VideoOptions, begins: int | None, ends: int | None
) -> Look:
    """Decodes a part and judges its frames.

    Raises:
        VideoError: If it cannot be read.
    """
    facts: list[FrameFacts] = []
    beyond: list[FrameFacts] = []
    pictures: dict[int, str] = {}
    marks = set(found.seams)
    detector = detector_for(options)
    with _opened(path, found, options, begins) as read:
        for frame in _frames_from(read, begins):
            seen = frame_facts(frame, detector)
            if frame.pts in marks:
                pictures[frame.pts] = _digest(frame)
            over = ends is not None and frame.pts is not None and frame.pts >= ends
            (beyond if over else facts).append(seen)
            if len(beyond) == _OVERLAP:
                break
        return Look(facts, beyond, pictures, read.damaged)


def decide(found: Scan, looks: Sequence[Look], mode: Mode, time_steps: TimeSteps) -> Decided:
    """Decides for the whole what is shown, and divides it.

    Raises:
        SeamError: If the parts do not fit together: the video must be rendered in one piece.
    """
    facts = _joined_facts(looks)
    script = LiveScript(found.info, mode, time_steps)
    shown = [one for fact in facts for one in script.push(fact)]
    shown += script.finish()
    if script.repaired:
        raise SeamError("it has frames without a time stamp, or with one that does not rise")
    stamps = [fact.pts for fact in facts if fact.pts is not None]
    pictures: dict[int, str] = {}
    for seen in reversed(looks):  # as decoded with what lies before, where there are two
        pictures |= seen.pictures
    segments = _divided(stamps, shown, [s for s in found.seams if s in pictures], pictures)
    return Decided(segments, script.frames, len(shown), script.cuts, script.repeats)


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
    rendering = Rendering(vfi, found.info, FixedScript(segment.shown))
    with (
        _opened(path, found, options, segment.begins) as read,
        open_encoder(like, like=found.info, rate=rate_of(mode, found.info), **_codec(options)) as e,
        written_beside(output) as beside,
        SegmentSink(beside, e) as sink,
    ):
        rendering.run(_frames_of(read, segment), sink)
        sink.finish()
        if sink.written != len(segment.shown):
            raise VideoError(
                f"segment {segment.number} of {path} has {sink.written} frames, "
                f"{len(segment.shown)} were decided: the file changed meanwhile, begin again"
            )
    return Rendered(sink.sha256, sink.written, rendering.frames_new, rendering.notes)


def join(
    path: Path, destination: Path, files: Sequence[Path], mode: Mode, options: VideoOptions
) -> list[str]:
    """Joins segments by copying their packets, and adds sound, subtitles and chapters once.

    Returns:
        What the user should know.

    Raises:
        VideoError: If a file is no segment, they do not fit together, or nothing can be written.
    """
    with (
        open_source(path, video_stream=options.video_stream) as read,
        open_sink(
            destination,
            like=read.info,
            rate=rate_of(mode, read.info),
            audio=options.audio,
            strict=options.strict,
            **_codec(options),
        ) as sink,
    ):
        assert isinstance(sink, FileSink)
        segments = [SegmentFile(file) for file in files]
        for segment in segments:
            segment.check(sink)
        video = deque(_stamped([(s, p) for s in segments for p in s.packets]))
        for packet in read.track_packets():
            moment = moment_of(packet)
            if moment is not None:
                reached = (moment - read.info.origin) / sink.tick
                sink.write_encoded(_until(video, reached, sink.tick))
            sink.write_packet(packet)
        sink.write_encoded(_until(video, None, sink.tick))
        return [*read.notes, *sink.notes]


class PacketIndex(NamedTuple):
    """One packet of a segment file: stamps and duration in ticks, place in bytes."""

    pts: int
    duration: int
    key: bool
    offset: int
    size: int


class SegmentSink:
    """Takes frames, encodes them, and writes the packets to a segment file.

    Packets, then JSON that says where each is, its length, and `_MAGIC`: no container's rounding
    of stamps, none of its limits.

    Attributes:
        notes: See `runtime.video.writing.sink.Sink`, as the next two.
        written: Frames so far.
        partial: Nothing is left after an error.
        sha256: Of the whole file, after `finish`.
    """

    def __init__(self, path: Path, encoder: FileSink) -> None:
        self.notes: list[str] = []
        self.written = 0
        self.partial: Path | None = None
        self.sha256 = ""
        self._encoder = encoder
        self._index: list[PacketIndex] = []
        self._digest = hashlib.sha256()
        self._offset = 0
        self._file = path.open("wb")

    def __enter__(self) -> SegmentSink:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, frame: Any, time: Fraction) -> None:
        """See `runtime.video.writing.sink.Sink`."""
        self._add(self._encoder.encoded(frame, time))
        self.written += 1

    def write_packet(self, packet: Packet[Any]) -> None:
        """Other tracks are joined to the whole, not to a part."""

    def finish(self) -> None:
        """Writes what the encoder holds back, and the index; the file is on disk afterwards."""
        self._add(self._encoder.encoded(None))
        name, header = self._encoder.encoder
        index = {
            "encoder": name,
            "header": header.hex(),
            "tick": str(self._encoder.tick),
            "packets": self._index,
        }
        text = json.dumps(index).encode()
        self._write(text + _LENGTH.pack(len(text)) + _MAGIC)
        self._file.close()
        self.sha256 = self._digest.hexdigest()

    def _add(self, packets: Iterable[Packet[Any]]) -> None:
        for packet in packets:
            content = bytes(packet)
            assert packet.pts is not None
            self._index.append(
                PacketIndex(
                    packet.pts, packet.duration or 0, packet.is_keyframe, self._offset, len(content)
                )
            )
            self._write(content)

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._digest.update(content)
        self._offset += len(content)


class SegmentFile:
    """A segment file to read.

    Attributes:
        packets: In the encoder's order.
    """

    def __init__(self, path: Path) -> None:
        """Reads the index.

        Raises:
            VideoError: If it is no whole segment file.
        """
        self.path = path
        tail = _LENGTH.size + len(_MAGIC)
        try:
            with path.open("rb") as file:
                file.seek(-tail, 2)
                length, magic = _LENGTH.unpack(file.read(_LENGTH.size)), file.read()
                if magic != _MAGIC:
                    raise ValueError("its end is not that of a segment")
                file.seek(-tail - length[0], 2)
                index = json.loads(file.read(length[0]))
            self._encoder = index["encoder"], bytes.fromhex(index["header"])
            self._tick = Fraction(index["tick"])
            self.packets = [PacketIndex(*entry) for entry in index["packets"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise VideoError(
                f"{path} is no whole segment ({error}): remove it and --resume"
            ) from error

    def check(self, sink: FileSink) -> None:
        """Whether the packets may stand in that file.

        Raises:
            VideoError: If they come from another encoder, or one that was set up otherwise.
        """
        if (self._encoder, self._tick) != (sink.encoder, sink.tick):
            raise VideoError(
                f"{self.path.name} was encoded with another {sink.encoder[0]} than this machine "
                "has: use one FFmpeg on all workers, and begin again"
            )

    def packet(self, entry: PacketIndex, dts: int, tick: Fraction) -> Packet[Any]:
        """A packet as the encoder gave it."""
        with self.path.open("rb") as file:
            file.seek(entry.offset)
            packet: Packet[Any] = Packet(file.read(entry.size))
        packet.time_base = tick
        packet.pts, packet.dts, packet.duration = entry.pts, dts, entry.duration
        packet.is_keyframe = entry.key
        return packet


Stamped = tuple[SegmentFile, PacketIndex, int]
"""A packet of a segment with its decoding stamp in the whole."""


def decoding_stamps(stamps: Sequence[int]) -> list[int]:
    """Decoding stamps that rise and are never after the presentation stamps.

    Every encoder counts its own delay back from its first frame; in the whole the stamps of a
    segment would fall behind those of the one before. The n-th packet is decoded when the frame is
    shown that is `delay` frames earlier in the order of presentation.

    Args:
        stamps: Of presentation, all different, in the order of the packets.
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
        raise VideoError("two segments show a frame at the same time: begin again")
    times = decoding_stamps(stamps)
    return [(segment, entry, dts) for (segment, entry), dts in zip(packets, times, strict=True)]


def _until(video: deque[Stamped], moment: Fraction | None, tick: Fraction) -> Iterator[Packet[Any]]:
    """Takes the packets that are decoded up to a moment, in ticks; None: all."""
    while video and (moment is None or video[0][2] <= moment):
        segment, entry, dts = video.popleft()
        yield segment.packet(entry, dts, tick)


def _codec(options: VideoOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("codec", "quality", "preset", "lossless")}


def _opened(path: Path, found: Scan, options: VideoOptions, begins: int | None) -> Any:
    info = found.info
    start = None if begins is None else begins * info.time_base - info.origin
    return open_source(path, video_stream=options.video_stream, strict=options.strict, start=start)


def _frames_from(read: Source, begins: int | None) -> Iterator[Frame]:
    """The frames from a stamp on; the source gives one before it too."""
    for item in read:
        if isinstance(item, Frame) and (
            begins is None or (item.pts is not None and item.pts >= begins)
        ):
            yield item


def _frames_of(read: Source, segment: Segment) -> Iterator[Frame]:
    """Exactly the frames of a segment, the first of them checked."""
    frames = _frames_from(read, segment.begins)
    for number, stamp in enumerate(segment.stamps):
        frame = next(frames, None)
        if frame is None or frame.pts != stamp:
            raise SeamError(f"its frame at tick {stamp} is not found from the key frame on")
        if number == 0 and segment.picture not in (None, _digest(frame)):
            raise SeamError(f"its frame at tick {stamp} needs frames from before the key frame")
        yield frame


def _joined_facts(looks: Sequence[Look]) -> list[FrameFacts]:
    """The facts of all frames; of the first ones of a part what the part before it saw counts."""
    if any(seen.damaged for seen in looks):
        raise SeamError("it has damage")
    facts = list(looks[0].facts)
    for before, seen in itertools.pairwise(looks):
        known = before.beyond
        if len(known) < _OVERLAP and seen is not looks[-1]:
            raise SeamError("it has parts of less than four frames")
        if [fact.pts for fact in known] != [fact.pts for fact in seen.facts[: len(known)]]:
            raise SeamError("its frames around a key frame are not the same from there on")
        if any(
            seen.pictures[s] != before.pictures[s] for s in seen.pictures.keys() & before.pictures
        ):
            raise SeamError("its key frames need frames from before them")
        facts += [*known, *seen.facts[len(known) :]]
    return facts


def _divided(
    stamps: Sequence[int],
    shown: Sequence[Shown],
    at: Sequence[int],
    pictures: dict[int, str],
) -> list[Segment]:
    """What is shown belongs to the part of the frame that it comes from or follows."""
    place = {stamp: number for number, stamp in enumerate(stamps)}
    edges = [0, *(place[stamp] for stamp in at if stamp in place and place[stamp] > 0)]
    waiting = deque(shown)
    segments: list[Segment] = []
    for begin, end in zip(edges, [*edges[1:], len(stamps)], strict=True):
        own: list[Shown] = []
        while waiting and waiting[0].first < end:
            own.append(waiting.popleft())
        if not own:
            continue
        last = max(max(one.first, one.second or 0) for one in own)
        segments.append(
            Segment(
                len(segments),
                tuple(stamps[begin : last + 1]),
                begin == 0,
                pictures.get(stamps[begin]) if begin else None,
                tuple(_moved(one, begin) for one in own),
            )
        )
    return segments


def _moved(one: Shown, begin: int) -> Shown:
    """Counts frames from the first of the part on."""
    second = None if one.second is None else one.second - begin
    return one._replace(first=one.first - begin, second=second)


def _digest(frame: Frame) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for plane in planes_of(frame.picture)[0]:
        digest.update(plane.tobytes())
    return digest.hexdigest()
