"""One pass over packets: frames of the video and packets of the other tracks, or a part of both."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import av
from av.packet import Packet
from av.video.frame import VideoFrame

from runtime.errors import VideoError
from runtime.video.reading.info import DecodedFrame, reason
from runtime.video.reading.truncation import Tally

_AUDIO_LATE = Fraction(10)
"""Seconds after the end up to which packets of other tracks are waited for."""

_READ_TRIES = 10


class Part:
    """What of a source is wanted; both in seconds after its beginning."""

    def __init__(self, start: Fraction | None, end: Fraction | None) -> None:
        self.start = start
        self.end = end
        self.zero = Fraction(0)

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return self.start is None and self.end is None

    def starts_at(self, beginning: Fraction) -> None:
        """From here on, start and end are stamps."""
        self.zero = beginning
        self.start = None if self.start is None else beginning + self.start
        self.end = None if self.end is None else beginning + self.end

    def duration(self, of_all: Fraction | None) -> Fraction | None:
        """Seconds that the part lasts, of those that the source lasts."""
        over = None if of_all is None else self.zero + of_all
        ends = [moment for moment in (over, self.end) if moment is not None]
        return min(ends) - (self.start or self.zero) if ends else None


class Demuxer:
    """Turns packets into items; knows nothing of files.

    Attributes:
        damaged: Packets so far that could not be read or decoded.
        came: Counts of the packets so far.
        first: The first frame.
        probed: Items that `probe` took and `items` gives.
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
    ) -> None:
        self.damaged = 0
        self.came = Tally()
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
        self._landing = False
        self._made = self._within()

    def probe(self) -> int:
        """Goes on to the second frame, or the end; gives the number of frames seen."""
        while (frames := sum(isinstance(item, DecodedFrame) for item in self.probed)) < 2:
            item = next(self._made, None)
            if item is None:
                break
            self.probed.append(item)
        return frames

    def again(self) -> None:
        """Begins anew after a seek.

        Until the first frame nothing counts as damage: a seek may land between two key frames,
        where packets cannot be decoded without those before them.
        """
        self.probed.clear()
        self.damaged, self.first = 0, None
        self._landing = True
        self.came = Tally()
        self._made = self._within()

    def items(self, *, decoded: bool = True) -> Iterator[DecodedFrame | Packet[Any]]:
        """All, those probed included; once. Without `decoded` no frame after those probed."""
        if not decoded:
            self._decode = _nothing
        probed, self.probed = self.probed, []
        yield from itertools.chain(probed, self._made)

    def _within(self) -> Iterator[DecodedFrame | Packet[Any]]:
        """Leaves out what lies outside the part."""
        start, end = self._part.start, self._part.end
        before: DecodedFrame | None = None
        begun = start is None
        over = False
        done: set[int] = set()
        for item in self._all():
            if isinstance(item, DecodedFrame):
                moment = None if item.pts is None else item.pts * item.time_base
                if over:
                    continue
                # Stamps may go back (H.264 in AVI): what follows the first frame belongs to it.
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
                if (kept := _cut(item, start, end)) is not None:
                    yield kept
                elif _is_over(item, end):
                    done.add(track_of(item))
            if over and len(done) >= self._tracks:
                return
        if before is not None and not over:
            yield before

    def _all(self) -> Iterator[DecodedFrame | Packet[Any]]:
        """Frames, packets of other tracks, and packets of the video as a mark of how far it is."""
        number = 0
        for packet in self._read():
            if packet.has_sidedata("encryption_info"):
                raise VideoError(f"{self._name} is encrypted: give a file without copy protection")
            self.came.add(packet, track_of(packet))
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
            for frame in frames:
                yield self._checked(frame)
            if packet.size:
                yield packet

    def _read(self) -> Iterator[Packet[Any]]:
        """Packets; where reading fails it is tried again, as behind the place there may be more."""
        tries = _READ_TRIES
        packets = self._packets()
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                self._damage("what is read of the file", error)
                tries -= 1
                if not tries:
                    return
                packets = self._packets()
                continue
            if packet is None:
                return
            yield packet

    def _damage(self, what: str, error: Exception) -> None:
        if self._landing:
            return
        self.damaged += 1
        if self._strict:
            raise VideoError(
                f"{what} in {self._name} is damaged ({reason(error)}): repair it, or go without "
                "--strict to skip it"
            ) from error

    def _checked(self, frame: VideoFrame) -> DecodedFrame:
        first = self.first = frame if self.first is None else self.first
        self._landing = False
        if (frame.width, frame.height) != (first.width, first.height):
            raise VideoError(
                f"the frame size changes from {first.width}x{first.height} to "
                f"{frame.width}x{frame.height}: cut the file there first"
            )
        return DecodedFrame(frame, frame.pts, Fraction(frame.time_base or 1))


def _nothing(packet: Packet[Any]) -> list[VideoFrame]:
    """In place of decoding."""
    del packet
    return []


def track_of(packet: Packet[Any]) -> int:
    """Index of the stream that a packet belongs to; 0 for a packet without a stream.

    `Packet.stream_index` is that of the data and therefore 0 in each packet that flushes a
    decoder; `Packet.stream` is right in these packets too.
    """
    stream: Any = packet.stream
    return 0 if stream is None else int(stream.index)


def moment_of(packet: Packet[Any]) -> Fraction | None:
    """When a packet is shown, or else decoded, in seconds on its file's clock."""
    stamp = packet.dts if packet.pts is None else packet.pts
    return None if stamp is None else stamp * Fraction(packet.time_base)


def _is_over(packet: Packet[Any], end: Fraction | None) -> bool:
    moment = moment_of(packet)
    return (
        end is not None and moment is not None and moment >= end and packet.stream.type == "audio"
    )


def _cut(packet: Packet[Any], start: Fraction | None, end: Fraction | None) -> Packet[Any] | None:
    """The packet, where it lies in the part."""
    moment = moment_of(packet)
    if moment is None:
        return packet
    if end is not None and moment >= end:
        return None
    if start is None or moment >= start:
        return packet
    tick = Fraction(packet.time_base)
    over = moment + (packet.duration or 0) * tick
    if packet.stream.type != "subtitle" or over <= start:
        return None
    packet.pts = packet.dts = int(-(-start // tick))
    packet.duration = max(0, int(over / tick) - packet.pts)
    return packet
