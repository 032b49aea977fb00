"""Packets: their track and time, and a queue of packets that are read ahead of the decoder."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from av.packet import Packet

_MOST_BYTES = 64 << 20
"""Limit of the bytes that are read ahead."""

_MOST_STAMPS = 256
"""Limit of the stamps that are remembered."""


def track_of(packet: Packet[Any]) -> int:
    """Index of the stream that a packet belongs to; 0 for a packet without a stream.

    `Packet.stream_index` is a field of FFmpeg's packet, which is empty and therefore 0 in a packet
    that flushes a decoder; `Packet.stream` is right in these packets too.
    """
    stream: Any = packet.stream
    return 0 if stream is None else int(stream.index)


def moment_of(packet: Packet[Any]) -> Fraction | None:
    """The presentation stamp of a packet, or else the decoding stamp, in seconds; None without."""
    stamp = packet.dts if packet.pts is None else packet.pts
    return None if stamp is None else stamp * Fraction(packet.time_base)


def padding_of(stream: Any) -> Fraction:
    """Seconds of sound that FFmpeg skips after the first packet of a track, in files it writes too.

    It is the encoder's delay and what an edit list hides. FFmpeg 9 and later skip it for every
    codec; PyAV before 19, which contains earlier releases, does not tell it.

    Returns:
        The duration; 0 for tracks other than audio and with PyAV before 19.
    """
    if stream.type != "audio":
        return Fraction(0)
    context = stream.codec_context
    return Fraction(getattr(context, "initial_padding", 0), context.sample_rate or 1)


class ReadAhead:
    """Yields the packets of an iterator; can read some of them before they are asked for."""

    def __init__(self, packets: Iterator[Packet[Any]], video: int) -> None:
        """Reads nothing yet.

        Args:
            packets: Packets in the order of the file.
            video: Index of the video's stream.
        """
        self._packets = packets
        self._video = video
        self._waiting: deque[Packet[Any]] = deque()
        self._stamps: list[int] = []
        self._decoded_to: int | None = None
        self._unstamped = 0

    def __iter__(self) -> ReadAhead:
        return self

    def __next__(self) -> Packet[Any]:
        return self._waiting.popleft() if self._waiting else self._read()

    def first_stamps(self, count: int) -> list[int]:
        """The first stamps of the video, rising, in ticks; reads up to `count` of its packets.

        Stamps that a later packet may precede are left out. The list is empty if a packet has no
        stamp, as most in MPEG-PS.
        """
        size = sum(packet.size for packet in self._waiting)
        last: int | None = None
        while len(self._stamps) + self._unstamped < count and size < _MOST_BYTES:
            try:
                packet = self._read()
            except StopIteration:
                break
            self._waiting.append(packet)
            size += packet.size
        else:
            last = self._decoded_to
        if self._unstamped:
            return []
        return [stamp for stamp in sorted(set(self._stamps)) if last is None or stamp <= last]

    def _read(self) -> Packet[Any]:
        packet = next(self._packets)
        of_video = packet.size and track_of(packet) == self._video
        if of_video and len(self._stamps) + self._unstamped < _MOST_STAMPS:
            self._unstamped += packet.pts is None
            self._stamps += [] if packet.pts is None else [packet.pts]
            self._decoded_to = packet.dts
        return packet
