"""Reads a file in one pass: decodes the video, and yields the packets of other tracks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, Protocol

import av
from av.packet import Packet
from av.video.frame import VideoFrame

from runtime.errors import VideoError
from runtime.video.reading.info import DecodedFrame, reason
from runtime.video.reading.packets import ReadAhead, moment_of, padding_of, track_of
from runtime.video.reading.truncation import PacketCounts

_AUDIO_LATE = Fraction(10)
"""Seconds after the end of the part in which packets of other tracks are still expected."""

READ_ATTEMPTS = 10
"""How often a file is read on after an error."""


class Part:
    """The part of a source to read.

    Attributes:
        start: Where it starts, in seconds from the beginning of the source; a stamp in seconds
            after `convert_to_stamps`. None for the beginning.
        end: Where it ends, like `start`; None for the end.
        zero: The stamp, in seconds, at which the source begins; 0 before `convert_to_stamps`.
    """

    def __init__(self, start: Fraction | None, end: Fraction | None) -> None:
        self.start = start
        self.end = end
        self.zero = Fraction(0)

    @property
    def whole(self) -> bool:
        """Whether the part is the whole source."""
        return self.start is None and self.end is None

    def convert_to_stamps(self, beginning: Fraction) -> None:
        """Converts start and end to stamps, given the stamp, in seconds, of the source's start."""
        self.zero = beginning
        self.start = None if self.start is None else beginning + self.start
        self.end = None if self.end is None else beginning + self.end

    def duration(self, of_all: Fraction | None) -> Fraction | None:
        """Duration of the part in seconds, given that of the whole source; None if unknown."""
        over = None if of_all is None else self.zero + of_all
        ends = [moment for moment in (over, self.end) if moment is not None]
        return min(ends) - (self.start or self.zero) if ends else None


class Stage(Protocol):
    """Processes decoded frames before they are counted and cut to the part."""

    def restart(self) -> None:
        """Starts again after a seek."""

    def passed(self, packet: Packet[Any], frames: Iterable[VideoFrame]) -> Iterable[VideoFrame]:
        """Yields the frames that are complete after those of a packet; an empty packet is last."""


class Demuxer:
    """Converts packets to items: decoded frames, and packets of other tracks.

    Attributes:
        damaged: Number of packets so far that could not be read or decoded.
        counts: Counts of the packets so far, by stream.
        first: The first frame; None before it is decoded.
        probed: Items that `probe` read and `items` will return first.
    """

    def __init__(
        self,
        name: str,
        packets: Callable[[], Iterator[Packet[Any]]],
        decode: Callable[[Packet[Any]], list[VideoFrame]],
        video: int,
        part: Part,
        strict: bool,
        tracks: int = 0,
        describe: Callable[[int], str] = "packet {} of the video".format,
        stage: Stage | None = None,
        flush: Callable[[], None] = lambda: None,
        attempts: int = READ_ATTEMPTS,
    ) -> None:
        """Sets the source; reads nothing.

        Args:
            name: Name of the source, for errors.
            packets: Returns an iterator over the packets, from the current position on.
            decode: Decodes a packet of the video.
            video: Index of the video's stream.
            part: The part to read.
            strict: Whether damage is an error.
            tracks: Number of audio tracks; reading stops when all have reached the part's end.
            describe: Returns a description of the packet with a number, for errors.
            stage: Processes the decoded frames; None: they are not changed.
            flush: Called after a seek, if the decoder is not that of the container.
            attempts: Number of errors of the source after which reading ends.
        """
        self.damaged = 0
        self.counts = PacketCounts()
        self.first: VideoFrame | None = None
        self.probed: list[DecodedFrame | Packet[Any]] = []
        self._name = name
        self._packets = packets
        self._decode = decode
        self._video = video
        self._part = part
        self._strict = strict
        self._tracks = tracks
        self._describe = describe
        self._stage = stage
        self._size: tuple[int, int] | None = None
        self._last: Fraction | None = None
        self._flush = flush
        self._attempts = attempts
        self._after_seek = False
        self._read_on()

    def _read_on(self) -> None:
        """Reads from the current position of the container on."""
        self._ahead = ReadAhead(self._read(), self._video)
        self._iterator = self._items_in_part()

    def first_stamps(self, count: int) -> list[int]:
        """The first stamps of the video; see `ReadAhead.first_stamps`."""
        return self._ahead.first_stamps(count)

    def probe(self) -> int:
        """Reads up to the second frame or to the end; returns the number of frames, 0 to 2."""
        while (frames := sum(isinstance(item, DecodedFrame) for item in self.probed)) < 2:
            item = next(self._iterator, None)
            if item is None:
                break
            self.probed.append(item)
        return frames

    def restart(self) -> None:
        """Starts again after a seek of the container.

        Errors before the first frame do not count as damage: after a seek to a position between two
        key frames, packets cannot be decoded without those before them.
        """
        self._flush()
        self.probed.clear()
        self.damaged, self.first, self._size, self._last = 0, None, None, None
        self._after_seek = True
        if self._stage is not None:
            self._stage.restart()
        self.counts = PacketCounts()
        self._read_on()

    def items(self, *, decoded: bool = True) -> Iterator[DecodedFrame | Packet[Any]]:
        """Yields all items, those of `probe` included; call it once.

        Args:
            decoded: Whether to decode; otherwise there are no frames after those of `probe`.
        """
        if not decoded:
            self._decode = _decode_nothing
        probed, self.probed = self.probed, []
        yield from itertools.chain(probed, self._iterator)

    def _items_in_part(self) -> Iterator[DecodedFrame | Packet[Any]]:
        """Yields the items in the part, and the last frame before its start."""
        start, end = self._part.start, self._part.end
        before: DecodedFrame | None = None
        begun = start is None
        over = False
        done: set[int] = set()
        for item in self._all_items():
            if isinstance(item, DecodedFrame):
                moment = None if item.pts is None else item.pts * item.time_base
                if over:
                    continue
                # Stamps may go back (H.264 in AVI): frames after the first belong to the part.
                if not begun and moment is not None and start is not None and moment < start:
                    before = item
                    continue
                begun = True
                if before is not None:
                    yield before
                    before = None
                yield item
                over = end is not None and moment is not None and moment >= end
            elif track_of(item) == self._video:
                late = moment_of(item)
                if over and end is not None and late is not None and late > end + _AUDIO_LATE:
                    return
            else:
                if (clipped := _clipped(item, start, end)) is not None:
                    yield clipped
                elif _is_over(item, end):
                    done.add(track_of(item))
            if over and len(done) >= self._tracks:
                return
        if before is not None and not over:
            yield before

    def _all_items(self) -> Iterator[DecodedFrame | Packet[Any]]:
        """Yields frames, packets of other tracks, and packets of the video for their position."""
        number = 0
        for packet in self._ahead:
            if packet.has_sidedata("encryption_info"):
                raise VideoError(f"{self._name} is encrypted: give a file without copy protection")
            self.counts.add(packet, track_of(packet))
            if track_of(packet) != self._video:
                if packet.size:
                    yield packet
                continue
            try:
                frames = self._decode(packet)
            except (av.error.FFmpegError, OSError) as error:
                self._damage(self._describe(number), error)
                frames = []
            number += 1
            checked: Iterable[VideoFrame] = self._of_one_size(frames)
            if self._stage is not None:
                checked = self._stage.passed(packet, checked)
            for frame in checked:
                self.first = frame if self.first is None else self.first
                yield DecodedFrame(frame, frame.pts, Fraction(frame.time_base or 1))
            if packet.size:
                yield packet

    def _read(self) -> Iterator[Packet[Any]]:
        """Yields packets; continues after an error, since later packets may be intact."""
        attempts = self._attempts
        packets = self._packets()
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                self._damage("a part of the data", error)
                attempts -= 1
                if not attempts:
                    return
                packets = self._packets()
                continue
            if packet is None:
                return
            yield packet

    def _damage(self, what: str, error: Exception) -> None:
        if self._after_seek:
            return
        self.damaged += 1
        if self._strict:
            raise VideoError(
                f"{what} in {self._name} is damaged ({reason(error)}): repair it, or leave out "
                "--strict to skip it"
            ) from error

    def _of_one_size(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        for frame in frames:
            self._after_seek = False
            size = frame.width, frame.height
            self._size = self._size or size
            moment = None if frame.pts is None else frame.pts * Fraction(frame.time_base or 1)
            if size != self._size:
                # Where stamps begin again, as in joined recordings, they are no times.
                times = moment is not None and (self._last is None or moment > self._last)
                time = float((moment or 0) - self._part.zero)
                place = f"at {time:.3f} s" if times else "where the time stamps begin again"
                raise VideoError(
                    f"the frame size changes from {self._size[0]}x{self._size[1]} to "
                    f"{size[0]}x{size[1]} {place}: cut the file there first"
                )
            self._last = moment
            yield frame


def _decode_nothing(packet: Packet[Any]) -> list[VideoFrame]:
    """Returns no frames: the decoder for `Demuxer.items` without decoding."""
    del packet
    return []


def _is_over(packet: Packet[Any], end: Fraction | None) -> bool:
    moment = moment_of(packet)
    return (
        end is not None and moment is not None and moment >= end and packet.stream.type == "audio"
    )


def _clipped(
    packet: Packet[Any], start: Fraction | None, end: Fraction | None
) -> Packet[Any] | None:
    """Returns the packet if it begins in the part, else None; a subtitle is cut at the start.

    Packets of sound that FFmpeg skips at the beginning are returned too, from before the start.
    """
    moment = moment_of(packet)
    if moment is None:
        return packet
    if end is not None and moment >= end:
        return None
    if start is None or moment >= start - padding_of(packet.stream):
        return packet
    tick = Fraction(packet.time_base)
    over = moment + (packet.duration or 0) * tick
    if packet.stream.type != "subtitle" or over <= start:
        return None
    packet.pts = packet.dts = int(-(-start // tick))
    packet.duration = max(0, int(over / tick) - packet.pts)
    return packet
