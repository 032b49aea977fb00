"""Real frames for int8: some for the ranges of the activations, some held out for the gate."""

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
"""Maximum number of windows of a clip. More change the ranges and the PSNR less than
another choice of frames does."""

_HELD_OUT = 4
"""One of this many windows is held out from calibration, for the gate."""

Window = tuple[NDArray[np.uint8], ...]
"""Consecutive uint8 frames (H, W, 3): a pair, and between them the true frames."""


@dataclass(frozen=True)
class CalibrationFrames:
    """Frames of one clip.

    Attributes:
        source: Name of the file or the folder.
        calibration: Windows for calibration.
        held_out: Windows for the gate.
    """

    source: str
    calibration: tuple[Window, ...]
    held_out: tuple[Window, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame in pixels."""
        height, width, _ = self.calibration[0][0].shape
        return height, width

    @property
    def count(self) -> int:
        """Number of frames that calibration uses, two of each window."""
        return 2 * len(self.calibration)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the pixels that calibration uses, in their order."""
        digest = hashlib.sha256()
        for window in self.calibration:
            for frame in (window[0], window[-1]):
                digest.update(np.ascontiguousarray(frame).data)
        return digest.hexdigest()


def check_clip(path: Path) -> None:
    """Checks, before any work, that a clip can be opened; decodes its first frames.

    Args:
        path: A video, a folder of images, or a pattern such as %06d.png.

    Raises:
        VideoError: If it cannot be read.
    """
    with open_source(path):
        pass


def read_calibration_frames(path: Path, info: ModelInfo) -> CalibrationFrames:
    """Reads windows of consecutive frames, evenly spread over a clip; always the same ones.

    Decodes the whole clip; the memory that this needs does not depend on its length.

    Args:
        path: A video, a folder of images, or a pattern such as %06d.png.
        info: Description of the model; between the frames of a pair, a window has as many frames as
            the model interpolates in one call.

    Raises:
        ExportError: If there are too few frames, nothing moves, or the size is not the model's.
        FrameError: If the frames are too small.
        VideoError: If the clip cannot be read.
    """
    length = info.steps_per_call + 2
    windows, frame_count = _evenly_spread(path, length, info)
    if len(windows) < 2:
        raise ExportError(
            f"{path} has {frame_count} frames, int8 needs at least {2 * length}: give a longer clip"
        )
    if all(np.array_equal(window[0], window[-1]) for window in windows):
        raise ExportError(
            f"nothing moves in {path}: give a clip like those that the model will process"
        )
    held_out = tuple(windows[1::_HELD_OUT])
    rest = tuple(window for n, window in enumerate(windows) if n % _HELD_OUT != 1)
    return CalibrationFrames(path.name, rest, held_out)


def _evenly_spread(path: Path, length: int, info: ModelInfo) -> tuple[list[Window], int]:
    """Up to `WINDOWS` windows of `length` frames, and the number of frames of the clip."""
    windows: list[list[DecodedFrame]] = []
    window: list[DecodedFrame] = []
    number, stride = 0, 1
    frame_count = 0
    for frame in _frames(path):
        if frame_count == 0:
            _check_size(path, frame, info)
        frame_count += 1
        window.append(frame)
        if len(window) < length:
            continue
        if number % stride == 0:
            windows.append(window)
        if len(windows) == 2 * WINDOWS:  # Drops every other one, also from here on.
            windows, stride = windows[::2], 2 * stride
        window, number = [], number + 1
    indices = np.linspace(0, len(windows) - 1, min(len(windows), WINDOWS)).round().astype(int)
    converter = ColourConverter()
    return [
        tuple(converter.rgb_from_frame(decoded.frame, 8) for decoded in windows[n]) for n in indices
    ], frame_count


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
            f"{path} has frames of {height}x{width}, the model takes {info.height}x{info.width}: "
            "give frames of that size, or a graph of free size (without --size)"
        )


def with_more_motion(
    frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], motion: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Adds `motion` pixels of motion to a pair, mostly sideways; borders are repeated."""
    step_x, step_y = round(motion * 0.45), round(motion * 0.2)  # Like `moving_frames`.

    def moved(frame: NDArray[np.uint8], direction: int) -> NDArray[np.uint8]:
        rows, columns = (
            np.clip(np.arange(n) + direction * step, 0, n - 1)
            for n, step in zip(frame.shape[:2], (step_y, step_x), strict=True)
        )
        image: NDArray[np.uint8] = frame[rows][:, columns]
        return image

    return moved(frame0, -1), moved(frame1, 1)
