"""Reads folders of numbered PNG and JPEG images."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec import CodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from runtime.errors import VideoError
from runtime.files import natural_key
from runtime.video.reading.info import DECODER_OPTIONS, reason

DECODERS = {".png": "png", ".jpg": "mjpeg", ".jpeg": "mjpeg"}
_LARGEST = (1 << 31) - 1
"""Limit of the size of an image file in bytes, that of FFmpeg's packets."""

_NUMBER = re.compile(r"%(?:0(\d+))?d")


def is_pattern(path: Path) -> bool:
    """Whether a path is a pattern of numbered images, as %06d.png."""
    return path.suffix.lower() in DECODERS and _NUMBER.search(path.name) is not None


def is_of_images(path: Path) -> bool:
    """Whether a source is a folder of images, or a pattern as %06d.png."""
    return path.is_dir() or is_pattern(path)


def images_at(path: Path) -> tuple[list[Path], list[str]]:
    """Lists the images of a folder or of a pattern.

    Args:
        path: A folder, or a pattern as %06d.png.

    Returns:
        The files in natural order (9 before 10), and notes on numbers that are missing.

    Raises:
        VideoError: If there are fewer than two images, or the folder cannot be read.
    """
    folder, wanted = (path.parent, matcher_of(path.name)) if is_pattern(path) else (path, None)
    if not folder.is_dir():
        raise VideoError(f"{folder} does not exist: give a folder of images")
    try:
        names = [file for file in folder.iterdir() if file.suffix.lower() in DECODERS]
    except OSError as error:
        raise VideoError(
            f"{folder} cannot be read ({reason(error)}): check its permissions"
        ) from error
    found = sorted(
        (file for file in names if wanted is None or wanted.fullmatch(file.name)), key=natural_key
    )
    if len(found) < 2:
        raise VideoError(
            f"{path} has {len(found)} PNG or JPEG images: give a folder with at least two"
        )
    return found, [] if wanted is None else _gaps(found, wanted)


class ImageReader:
    """Reads and decodes images one by one; distinguishes PNG and JPEG by their first bytes.

    An image that cannot be read or decoded is left out. The others keep their times, so that the
    gap is interpolated like that of a frame which a camera dropped.

    Attributes:
        failed: Names of the images so far that could not be read or decoded.
    """

    def __init__(self, files: list[Path], rate: Fraction) -> None:
        """Sets the images to read; opens no file.

        Args:
            files: The images, in order.
            rate: Images a second.
        """
        self.failed: list[str] = []
        self._files = files
        self._tick = 1 / rate
        self._contexts: dict[str, VideoCodecContext] = {}
        self._size: tuple[int, int] | None = None

    def packets(self) -> Iterator[Packet[Any]]:
        """Yields a packet without data for each image, with the image's number as its stamp."""
        for number in range(len(self._files)):
            packet: Packet[Any] = Packet()
            packet.pts = packet.dts = number
            packet.time_base = self._tick
            yield packet

    def describe(self, number: int) -> str:
        """The file name of the image with that number, for errors."""
        return self._files[number].name

    def decode(self, packet: Packet[Any]) -> list[VideoFrame]:
        """Reads and decodes the image of a packet.

        Raises:
            OSError: If the file cannot be read, or has no image.
            av.error.FFmpegError: If the image is damaged or too large.
            VideoError: If its size differs from that of the images before it.
        """
        assert packet.pts is not None
        file = self._files[packet.pts]
        try:
            frames = self._decoded(_content(file))
        except (av.error.FFmpegError, OSError):
            self.failed.append(file.name)
            raise
        for frame in frames:
            size = frame.width, frame.height
            self._size = self._size or size
            if size != self._size:
                raise VideoError(
                    f"{file.name} is {size[0]}x{size[1]}, the images before it are "
                    f"{self._size[0]}x{self._size[1]}: give images of one size"
                )
            frame.pts, frame.time_base = packet.pts, self._tick
        return frames

    def _decoded(self, content: bytes) -> list[VideoFrame]:
        name = "png" if content[:4] == b"\x89PNG" else "mjpeg"
        if name not in self._contexts:
            context = CodecContext.create(name, "r")
            assert isinstance(context, VideoCodecContext)
            # With frame threads the decoder would return an image several packets late.
            context.thread_type = "SLICE"
            context.options = DECODER_OPTIONS
            self._contexts[name] = context
        packet: Packet[Any] = Packet(content)
        packet.is_keyframe = True  # Otherwise the PNG decoder adds the previous image.
        # An empty packet would end the decoder for good.
        frames = self._contexts[name].decode(packet) if content else []
        if not frames:
            raise OSError("the file contains no image")
        return frames


def _content(file: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: If it cannot be read, is too large, or is a pipe or a device, which might never
            end.
    """

    def at_once(name: str, flags: int) -> int:
        # Without the flag, opening a pipe waits for a writer.
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    with open(file, "rb", opener=at_once) as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a regular file")
        if status.st_size > _LARGEST:
            raise OSError(f"it has more than {_LARGEST} bytes")
        return opened.read()


def matcher_of(name: str) -> re.Pattern[str]:
    """Matches the names of a pattern as %06d.png; longer numbers have more digits."""
    before, width, after = _NUMBER.split(name, maxsplit=1)
    digits = rf"\d{{{width},}}" if width else r"\d+"
    return re.compile(f"{re.escape(before)}({digits}){re.escape(after)}")


def _gaps(files: list[Path], wanted: re.Pattern[str]) -> list[str]:
    numbers = []
    for file in files:
        match = wanted.fullmatch(file.name)
        assert match is not None
        numbers.append(int(match[1]))
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    if not missing:
        return []
    return [f"numbers missing in the file names: {missing}; the images are treated as consecutive"]
