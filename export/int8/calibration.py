"""Real frames for int8: some to find the ranges of the activations, some to prove the result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from runtime.frames import check_frame
from runtime.model_info import ModelInfo
from runtime.video.colour import ColourConverter
from runtime.video.reading.info import DecodedFrame
from runtime.video.reading.source import open_source

WINDOWS = 16
"""Taken of a clip. With 16 the ranges, and the dB, no longer change by more than the choice of
frames does."""

_HELD_OUT = 4
"""One window in so many is kept from calibration, for the gate."""

Window = tuple[NDArray[np.uint8], ...]
"""Consecutive frames (H, W, 3): the first and the last are a pair, the others the truth."""


@dataclass(frozen=True)
class CalibrationFrames:
    """Frames of one clip.

    Attributes:
        source: Name of the file or the folder.
        calibration: Windows to calibrate with.
        held_out: Windows that calibration has not seen.
    """

    source: str
    calibration: tuple[Window, ...]
    held_out: tuple[Window, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame."""
        height, width, _ = self.calibration[0][0].shape
        return height, width

    @property
    def count(self) -> int:
        """Frames that calibration uses: two a window."""
        return 2 * len(self.calibration)

    @property
    def sha256(self) -> str:
        """Hash of the pixels of the frames that calibration uses, in their order."""
        digest = hashlib.sha256()
        for window in self.calibration:
            for frame in (window[0], window[-1]):
                digest.update(np.ascontiguousarray(frame).data)
        return digest.hexdigest()


def read_calibration_frames(path: Path, info: ModelInfo) -> CalibrationFrames:
    """Reads windows of consecutive frames, spread evenly over a clip; always the same ones.

    The whole clip is decoded; what is held at a time does not grow with it.

    Args:
        path: A video, a folder of pictures, or a pattern as %06d.png.
        info: Of the model; a window has as many true frames as a call of it makes of one pair.

    Raises:
        ExportError: If there are too few frames, nothing moves, or their size is not the model's.
        FrameError: If they are too small.
        VideoError: If the clip cannot be read.
    """
    length = info.steps_per_call + 2
    windows, seen = _spread(path, length, info)
    if len(windows) < 2:
        raise ExportError(
            f"{path} has {seen} frames: int8 is calibrated and proved with at least {2 * length}, "
            "give a longer clip"
        )
    if all(np.array_equal(window[0], window[-1]) for window in windows):
        raise ExportError(f"nothing moves in {path}: give a clip of what the model will see")
    held_out = tuple(windows[1::_HELD_OUT])
    rest = tuple(window for n, window in enumerate(windows) if n % _HELD_OUT != 1)
    return CalibrationFrames(path.name, rest, held_out)


def _spread(path: Path, length: int, info: ModelInfo) -> tuple[list[Window], int]:
    """Up to `WINDOWS` windows, and how many frames there are."""
    kept: list[list[DecodedFrame]] = []
    window: list[DecodedFrame] = []
    number, stride = 0, 1
    seen = 0
    for frame in _frames(path):
        if seen == 0:
            _check_size(path, frame, info)
        seen += 1
        window.append(frame)
        if len(window) < length:
            continue
        if number % stride == 0:
            kept.append(window)
        if len(kept) == 2 * WINDOWS:  # Every other one goes, and from here on too.
            kept, stride = kept[::2], 2 * stride
        window, number = [], number + 1
    chosen = np.linspace(0, len(kept) - 1, min(len(kept), WINDOWS)).round().astype(int)
    converter = ColourConverter()
    return [
        tuple(converter.rgb_from_frame(decoded.frame, 8) for decoded in kept[n]) for n in chosen
    ], seen


def _frames(path: Path) -> Iterator[DecodedFrame]:
    with open_source(path) as source:
        for item in source:
            if isinstance(item, DecodedFrame):
                yield item


def _check_size(path: Path, decoded: DecodedFrame, info: ModelInfo) -> None:
    height, width = decoded.frame.height, decoded.frame.width
    check_frame(np.empty((height, width, 3), np.uint8), f"a frame of {path}")
    if info.size not in (None, info.image_size((height, width))):
        raise ExportError(
            f"{path} has frames of {height}x{width}, the model takes {info.height}x{info.width}:"
            " give frames of that size, or leave the model's size free (--dynamic)"
        )


def with_more_motion(
    frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], motion: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The pair with so many pixels of motion more, to the side mostly; borders are repeated."""
    step_x, step_y = round(motion * 0.45), round(motion * 0.2)  # As of `moving_frames`.

    def moved(frame: NDArray[np.uint8], direction: int) -> NDArray[np.uint8]:
        rows, columns = (
            np.clip(np.arange(n) + direction * step, 0, n - 1)
            for n, step in zip(frame.shape[:2], (step_y, step_x), strict=True)
        )
        picture: NDArray[np.uint8] = frame[rows][:, columns]
        return picture

    return moved(frame0, -1), moved(frame1, 1)
