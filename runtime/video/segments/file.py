"""Segment files: packets of one encoder, then JSON that says where each is, its length, a mark."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from av.packet import Packet
from av.video.frame import VideoFrame

from runtime.errors import VideoError
from runtime.video.writing.encoder import Encoder, writing_errors

_MAGIC = b"ifrnet-segment-1"


_LENGTH = struct.Struct("<Q")


class PacketIndex(NamedTuple):
    """One packet of a segment file: stamps and duration in ticks, place in bytes."""

    pts: int
    duration: int
    key: bool
    offset: int
    size: int


class SegmentSink:
    """Takes frames, encodes them, and writes the packets to a segment file.

    Stamps stand in the JSON as they are: no container rounds them, and none has its limits here.

    Attributes:
        notes: What the user should know.
        written: Frames so far.
        partial: None: nothing is left after an error.
        sha256: Of the whole file, after `finish`.
    """

    def __init__(self, path: Path, encoder: Encoder, name: str) -> None:
        """Opens the file.

        Args:
            path: Of the segment.
            encoder: Of the video that the segments are joined to.
            name: Of that video, for errors.

        Raises:
            OSError: If the file cannot be written.
        """
        self.notes: list[str] = []
        self.written = 0
        self.partial: Path | None = None
        self.sha256 = ""
        self._encoder = encoder
        self._name = name
        self._index: list[PacketIndex] = []
        self._digest = hashlib.sha256()
        self._offset = 0
        self._file = path.open("wb")

    def __enter__(self) -> SegmentSink:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, frame: VideoFrame, time: Fraction) -> None:
        """Encodes a frame that is shown at `time`, in seconds on the clock of the whole video.

        Raises:
            VideoError: If the encoder fails.
        """
        with writing_errors(self._name):
            packets = self._encoder.encode(frame, time)
        self._add(packets)
        self.written += 1

    def write_packet(self, packet: Packet[Any]) -> None:
        """Other tracks are joined to the whole, not to a part."""

    def finish(self) -> None:
        """Writes what the encoder holds back, and the index; the file is on disk afterwards."""
        with writing_errors(self._name):
            packets = self._encoder.flush()
        self._add(packets)
        name, header = self._encoder.identity
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

    def check(self, encoder: Encoder) -> None:
        """Checks that the packets fit into the track of an encoder.

        Raises:
            VideoError: If they come from another encoder, or one that was set up otherwise.
        """
        if (self._encoder, self._tick) != (encoder.identity, encoder.tick):
            raise VideoError(
                f"{self.path.name} was encoded with another {encoder.identity[0]} than this "
                "machine has: use one FFmpeg on all workers, and begin again"
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
