"""Real frames for int8: some for the ranges of the activations, some held out for the gate."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.gate.windows import Window, read_windows, split_windows
from runtime.model_info import ModelInfo


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


def read_calibration_frames(path: Path, info: ModelInfo) -> CalibrationFrames:
    """Reads windows of a clip for calibration, and others for the gate; see `export.gate.windows`.

    Args:
        path: A video, a folder of images, or a pattern such as %06d.png.
        info: Description of the model.

    Raises:
        ExportError: If there are too few frames, or nothing moves.
        FrameError: If the frames are too small.
        VideoError: If the clip cannot be read.
    """
    held_out, rest = split_windows(read_windows(path, info))
    return CalibrationFrames(path.name, tuple(rest), tuple(held_out))


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
