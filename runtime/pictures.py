"""Folders of numbered pictures, as a source of packets and as a place for frames."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.codec import CodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from runtime.errors import VideoError

DECODERS = {".png": "png", ".jpg": "mjpeg", ".jpeg": "mjpeg"}
_NUMBER = re.compile(r"%(?:0(\d+))?d")


def is_pattern(path: Path) -> bool:
    """Whether the name is one of numbered pictures, as %06d.png."""
    return path.suffix.lower() in DECODERS and _NUMBER.search(path.name) is not None


def pictures_at(path: Path) -> tuple[list[Path], list[str]]:
    """The pictures of a folder in the order of their names, or those of a pattern by number.

    Names are compared as people do: 9 comes before 10.

    Returns:
        The files, and notes on numbers that are missing among them.

    Raises:
        VideoError: If there are fewer than two.
    """
    folder, wanted = (path.parent, _matcher(path.name)) if is_pattern(path) else (path, None)
    if not folder.is_dir():
        raise VideoError(f"{folder} does not exist: give a folder of pictures")
    names = [file for file in folder.iterdir() if file.suffix.lower() in DECODERS]
    found = sorted(
        (file for file in names if wanted is None or wanted.fullmatch(file.name)), key=_natural
    )
    if len(found) < 2:
        raise VideoError(
            f"{path} has {len(found)} PNG or JPEG pictures: at least two are needed for a video"
        )
    return found, [] if wanted is None else _gaps(found, wanted)


def packets_of(files: list[Path], rate: Fraction) -> Iterator[Packet[Any]]:
    """One packet for each picture, `rate` a second."""
    for number, file in enumerate(files):
        packet = Packet(file.read_bytes())
        packet.pts = packet.dts = number
        packet.time_base = 1 / rate
        packet.is_keyframe = True
        yield packet


class PictureDecoder:
    """Decodes PNG and JPEG, told apart by their first bytes."""

    def __init__(self) -> None:
        self._contexts: dict[str, VideoCodecContext] = {}

    def decode(self, packet: Packet[Any]) -> list[VideoFrame]:
        """The one frame of a packet; none for the empty packet that ends a stream."""
        if not packet.size:
            return []
        name = "png" if bytes(packet)[:4] == b"\x89PNG" else "mjpeg"
        if name not in self._contexts:
            context = CodecContext.create(name, "r")
            assert isinstance(context, VideoCodecContext)
            # With frame threads a picture would come out several packets late.
            context.thread_type = "SLICE"
            self._contexts[name] = context
        frames = self._contexts[name].decode(packet)
        for frame in frames:
            frame.pts, frame.time_base = packet.pts, packet.time_base
        return frames


def _matcher(name: str) -> re.Pattern[str]:
    before, width, after = _NUMBER.split(name, maxsplit=1)
    digits = rf"\d{{{width},}}" if width else r"\d+"
    return re.compile(f"{re.escape(before)}({digits}){re.escape(after)}")


def _natural(file: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", file.name)
    return [(int(part) if part.isdigit() else 0, part) for part in parts]


def _gaps(files: list[Path], wanted: re.Pattern[str]) -> list[str]:
    numbers = []
    for file in files:
        match = wanted.fullmatch(file.name)
        assert match is not None
        numbers.append(int(match[1]))
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    if not missing:
        return []
    return [f"{missing} numbers are missing among the pictures: they were taken as consecutive"]
