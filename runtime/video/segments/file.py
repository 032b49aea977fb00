"""Segment files: packets of one encoder, a JSON index, the length of the index, and a magic."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, get_args

from av.packet import Packet, PacketSideData, PktSideDataT
from av.video.frame import VideoFrame

from runtime.errors import VideoError
from runtime.files import parse_json
from runtime.video.writing.encoder import Encoder, writing_errors

_MAGIC = b"ifrnet-segment-1"
_TICK = re.compile(r"[0-9]{1,18}(/[0-9]{1,18})?")
_LENGTH = struct.Struct("<Q")
_ALPHA: PktSideDataT = "matroska_block_additional"
"""PyAV's name of the side data in which libvpx's encoders return alpha."""


class PacketIndex(NamedTuple):
    """One packet of a segment file.

    Attributes:
        pts: Presentation stamp, in the encoder's ticks.
        duration: In ticks; 0 where it is unknown.
        key: Whether it is a key frame.
        offset: Position in the file, in bytes.
        size: In bytes.
        side: Size of the alpha channel of VP8 and VP9, which follows the packet, in bytes.
    """

    pts: int
    duration: int
    key: bool
    offset: int
    size: int
    side: int = 0


class SegmentSink:
    """Encodes frames and writes the packets to a segment file.

    The index stores the stamps exactly; a container would round them.

    Attributes:
        notes: Notes for the user.
        written: Number of frames written so far.
        partial: Always None: the caller removes the file after an error.
        sha256: Hash of the file, hexadecimal; "" before `finish`.
    """

    def __init__(self, path: Path, encoder: Encoder, name: str) -> None:
        """Opens the file.

        Args:
            path: The segment file.
            encoder: Encoder of the video to which the segments will be joined.
            name: Name of that video, for errors.

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

    @property
    def alpha(self) -> bool:
        """Whether the alpha channel of frames is written."""
        return self._encoder.alpha

    def __enter__(self) -> SegmentSink:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, frame: VideoFrame, time: Fraction) -> None:
        """Encodes a frame and writes its packets.

        Args:
            frame: Has the size of the source; its stamp is set.
            time: When it is shown, in seconds on the clock of the whole video.

        Raises:
            VideoError: If the encoder fails.
        """
        with writing_errors(self._name):
            packets = self._encoder.encode(frame, time)
        self._add(packets)
        self.written += 1

    def end_at(self, time: Fraction) -> None:
        """Sets when the last frame ends, in seconds on the clock of the whole video."""
        self._encoder.end = time

    def write_packet(self, packet: Packet[Any]) -> None:
        """Ignores a packet of another track; `join` adds these."""

    def finish(self) -> None:
        """Writes the remaining packets of the encoder and the index, and closes the file.

        Raises:
            VideoError: If the encoder fails.
        """
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
            content, side = bytes(packet), bytes(packet.get_sidedata(_ALPHA))
            assert packet.pts is not None
            pts, duration, key = packet.pts, packet.duration or 0, packet.is_keyframe
            self._index.append(
                PacketIndex(pts, duration, key, self._offset, len(content), len(side))
            )
            self._write(content + side)

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._digest.update(content)
        self._offset += len(content)


class SegmentFile:
    """Reads a segment file.

    Attributes:
        path: The file.
        packets: Index of its packets, in decoding order.
    """

    def __init__(self, path: Path) -> None:
        """Reads the index.

        Raises:
            VideoError: If the file is not a complete segment file.
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
                index = parse_json(file.read(length[0]))
            self._encoder = index["encoder"], bytes.fromhex(index["header"])
            if not _TICK.fullmatch(index["tick"]):  # Fraction would compute 1e999999999.
                raise ValueError("its tick is no fraction")
            self._tick = Fraction(index["tick"])
            self.packets = [PacketIndex(*entry) for entry in index["packets"]]
        except (OSError, ArithmeticError, ValueError, KeyError, TypeError) as error:
            raise VideoError(
                f"{path} is not a complete segment ({error}): remove it and use --resume"
            ) from error

    def check(self, encoder: Encoder) -> None:
        """Checks that the packets fit into the track of an encoder.

        Raises:
            VideoError: If they are from another encoder, or from one with other settings.
        """
        if (self._encoder, self._tick) != (encoder.identity, encoder.tick):
            raise VideoError(
                f"{self.path.name} was encoded with another {encoder.identity[0]} than this "
                "machine has: use the same FFmpeg on all workers, and start again"
            )

    def packet(self, entry: PacketIndex, dts: int, tick: Fraction) -> Packet[Any]:
        """Reads a packet.

        Args:
            entry: The packet.
            dts: Its decoding stamp, in ticks.
            tick: The unit of the stamps, in seconds.
        """
        with self.path.open("rb") as file:
            file.seek(entry.offset)
            packet: Packet[Any] = Packet(file.read(entry.size))
            side = file.read(entry.side)
        if side:
            create: Any = PacketSideData  # PyAV's type annotations lack the constructor.
            data = create(get_args(PktSideDataT).index(_ALPHA), len(side))
            data.update(side)
            packet.set_sidedata(data, move=True)
        packet.time_base = tick
        packet.pts, packet.dts, packet.duration = entry.pts, dts, entry.duration
        packet.is_keyframe = entry.key
        return packet
