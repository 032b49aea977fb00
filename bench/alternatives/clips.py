"""A clip without every second frame, and the frames that were dropped."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from bench.environment import MeasurementError
from runtime.video.colour import ColourConverter
from runtime.video.reading.info import DecodedFrame
from runtime.video.reading.source import open_source


@dataclass(frozen=True, eq=False)
class HalvedClip:
    """A clip at half its frame rate, and the frames that were dropped.

    Attributes:
        name: Name of the file.
        rate: Frame rate of the remaining frames, in frames per second.
        decoded: The remaining frames as decoded.
        given: The remaining frames, uint8 RGB (H, W, 3): the input of each method.
        true: The dropped frames, uint8 RGB (H, W, 3), one between each two of `given`.
    """

    name: str
    rate: Fraction
    decoded: list[VideoFrame]
    given: list[NDArray[np.uint8]]
    true: list[NDArray[np.uint8]]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width, _ = self.given[0].shape
        return height, width


def read_halved(path: Path, pairs: int | None) -> HalvedClip:
    """Decodes a clip into memory.

    Args:
        path: A video.
        pairs: Number of pairs, from the beginning; None for all.

    Raises:
        VideoError: If it cannot be read.
        MeasurementError: If it has fewer than three frames.
    """
    converter = ColourConverter()
    frames: list[VideoFrame] = []
    with open_source(path) as source:
        rate = source.info.rate
        for item in source:
            if isinstance(item, DecodedFrame):
                frames.append(item.frame)
            if pairs is not None and len(frames) == 2 * pairs + 1:
                break
    frames = frames[: len(frames) - (len(frames) + 1) % 2]
    if len(frames) < 3:
        raise MeasurementError(f"{path} has fewer than 3 frames: give a longer clip")
    images = [converter.rgb_from_frame(frame, 8) for frame in frames]
    return HalvedClip(path.name, rate / 2, frames[::2], images[::2], images[1::2])


def blend(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of two uint8 images of one shape, rounded to the nearest level, halves up."""
    return ((image.astype(np.uint16) + other + 1) // 2).astype(np.uint8)
