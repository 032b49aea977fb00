"""Detects truncated files, such as incomplete downloads and copies.

A duration alone proves nothing: the last frame may be shown for seconds, which packets do not
declare. Missing bytes are proved by the lengths in bytes that MP4, MOV, Matroska, WebM, AVI, FLV
and ASF declare; durations then show how much is missing. MPEG-TS, raw streams, GIF and Y4M declare
neither: FFmpeg estimates their duration from the bytes that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.packet import Packet

_ROUNDING = Fraction(5, 1000)
"""Seconds by which the end of the last frame may differ from the declared one, since containers
round stamps and durations separately to milliseconds."""

_CODEC_DELAY = Fraction(1, 10)
"""Seconds by which the end of all tracks may differ: muxers count the priming samples of an audio
codec (up to 93 ms in HE-AAC), demuxers subtract them from the stamps."""

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_FLV_TAGS = (8, 9, 18)
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_HEAD = 1 << 16
"""Bytes at the beginning of a file in which the File Properties Object is searched."""


class PacketCounts:
    """Counts the packets of each stream, and finds where the last one ends.

    Attributes:
        packets: Index of a stream -> number of packets.
        ends: Index of a stream -> end of its last packet, in seconds.
    """

    def __init__(self) -> None:
        self.packets: dict[int, int] = {}
        self.ends: dict[int, Fraction] = {}

    def add(self, packet: Packet[Any], index: int) -> None:
        """Counts a packet of the stream with that index, unless it only flushes a decoder."""
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None and not packet.size:
            return
        self.packets[index] = self.packets.get(index, 0) + 1
        if stamp is not None:
            end = (stamp + (packet.duration or 0)) * Fraction(packet.time_base)
            self.ends[index] = max(end, self.ends.get(index, end))


def truncation(
    path: Path,
    container: Any,
    video: Any,
    tracks: Iterable[Any],
    read: PacketCounts,
    complete: bool,
) -> str | None:
    """Detects whether a file that was read to its end is truncated.

    Args:
        path: The file.
        container: The file, opened by PyAV.
        video: The stream whose frames were read.
        tracks: The other streams that were read.
        read: Counts of the packets of the video and these streams.
        complete: Whether the file has no other streams with a duration.

    Returns:
        One sentence with what the file declares and what was read; None if nothing is known to be
        missing.
    """
    format_name = container.format.name
    if "mp4" in format_name and (missing := _missing_packets(path, video, tracks, read)):
        return missing
    if not _is_too_short(path, format_name):
        return None
    frames = read.packets.get(video.index, 0)
    declared, end = _declared_end(format_name, video), read.ends.get(video.index, Fraction(0))
    if declared is not None and end < declared - _ROUNDING:
        return _sentence(f"{float(declared):.3f} s of video", end, frames)
    if complete and container.duration:
        over = Fraction(container.duration, av.time_base)
        end = max(read.ends.values(), default=Fraction(0))
        return _sentence(f"{float(over):.3f} s", end, frames) if end < over - _CODEC_DELAY else None
    return (
        None if declared is not None else "the file ends in the middle of its data: it is truncated"
    )


def _sentence(declared: str, end: Fraction, frames: int) -> str:
    return (
        f"the file declares {declared}, but contains {float(end):.3f} s ({frames} frames): it is "
        "truncated"
    )


def _missing_packets(
    path: Path, video: Any, tracks: Iterable[Any], read: PacketCounts
) -> str | None:
    """Compares the packets with the index of an MP4 or MOV file; returns a sentence if some miss.

    The index has the samples that remain after edit lists; in a fragmented file, those of the
    fragments that were read. Fewer packets than entries alone do not prove truncation, since
    FFmpeg's parsers join some.
    """
    size = path.stat().st_size
    for stream in (video, *tracks):
        index, packets = stream.index_entries, read.packets.get(stream.index, 0)
        if packets >= len(index) or all(entry.pos + entry.size <= size for entry in index):
            continue
        if stream is not video:
            what = f"{len(index)} packets of {stream.type} track {stream.index}"
            return f"the file declares {what}, but contains {packets}: it is truncated"
        tick = Fraction(video.time_base)
        over, end = (video.duration or 0) * tick, read.ends.get(video.index, Fraction(0))
        return (
            f"the file declares {len(index)} frames ({float(over):.3f} s), but contains {packets} "
            f"({float(end):.3f} s): it is truncated"
        )
    return None


def _declared_end(format_name: str, video: Any) -> Fraction | None:
    """The declared end of the last frame, in seconds; None where the file declares none."""
    tick = Fraction(video.time_base)
    if format_name == "avi":
        # FFmpeg shortens the duration of an AVI file that is too small, but not this number.
        return video.frames * tick if video.frames else None
    if "mp4" in format_name:
        return ((video.start_time or 0) + video.duration) * tick if video.duration else None
    tags = {name.upper(): value for name, value in video.metadata.items()}
    try:
        hours, minutes, seconds = tags["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except (KeyError, ValueError):
        return None


def _is_too_short(path: Path, format_name: str) -> bool:
    """Whether the file is shorter than it declares; False where it declares no length."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        if format_name == "flv":
            return not _ends_with_a_tag(file, size)
        for name, declared in _DECLARED_SIZES.items():
            if name in format_name:
                return declared(file) > size
    return False


def _size_of_mp4(file: BinaryIO) -> int:
    """Position of the end of the last box with a size, in bytes."""
    over = 0
    while len(head := file.read(8)) == 8:
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
        if size < 8:
            break
        over = file.seek(over + size)
    return over


def _size_of_asf(file: BinaryIO) -> int:
    """The size in the File Properties Object, in bytes; 0 where the file is a broadcast."""
    head = file.read(_ASF_HEAD)
    at = head.find(_ASF_PROPERTIES)
    if at < 0 or len(head) < at + 92 or head[at + 88] & 1:
        return 0
    return int.from_bytes(head[at + 40 : at + 48], "little")


def _size_of_matroska(file: BinaryIO) -> int:
    """Position of the end of the first segment, in bytes; 0 where its size is unknown."""
    while True:
        name, size = _vint(file, keep_marker=True), _vint(file)
        if name is None or size is None or name not in (_EBML, _SEGMENT):
            return 0
        if name == _SEGMENT:
            return file.tell() + size
        file.seek(size, 1)


def _vint(file: BinaryIO, keep_marker: bool = False) -> int | None:
    """Reads a number of variable length (RFC 8794, section 4); None if it is unknown or missing."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    number = int.from_bytes(first + file.read(length - 1), "big")
    if keep_marker:
        return number
    number -= 1 << 7 * length
    return None if number == (1 << 7 * length) - 1 else number


def _size_of_avi(file: BinaryIO) -> int:
    """Position of the end of the last RIFF chunk, in bytes; 0 where its size was never written."""
    over = 0
    while (head := file.read(8))[:4] == b"RIFF" and len(head) == 8:
        size = int.from_bytes(head[4:], "little")
        if size in (0, 0xFFFFFFFF):
            return 0
        over = file.seek(size, 1)
    return over


def _ends_with_a_tag(file: BinaryIO, size: int) -> bool:
    """Whether the last 4 bytes of an FLV file are the length of the tag before them."""
    file.seek(max(0, size - 4))
    length = int.from_bytes(file.read(4), "big")
    if not 11 <= length <= size - 4:
        return False
    file.seek(size - 4 - length)
    head = file.read(4)
    return head[0] & 0x1F in _FLV_TAGS and int.from_bytes(head[1:], "big") == length - 11


_DECLARED_SIZES: dict[str, Callable[[BinaryIO], int]] = {
    "mp4": _size_of_mp4,
    "matroska": _size_of_matroska,
    "avi": _size_of_avi,
    "asf": _size_of_asf,
}
"""Part of FFmpeg's name of a format -> function that returns the declared size, in bytes."""
