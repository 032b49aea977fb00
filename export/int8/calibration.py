"""Real frames for int8: some for the ranges of the activations, some held out for the gate."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

from export.errors import ExportError
from export.int8.windows import Window, spread_windows
from runtime.model_info import ModelInfo
from runtime.video.colour import ColourConverter
from runtime.video.planes import plane_views
from runtime.video.reading.source import open_source

_HELD_OUT = 4
"""One of this many windows is held out from calibration, for the gate."""


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

    Frames of another size than the model's are scaled and cropped by `cover`; if the size of the
    model is free, they keep their own.

    Args:
        path: A video, a folder of images, or a pattern such as %06d.png.
        info: Description of the model; between the frames of a pair, a window has as many frames as
            the model interpolates in one call.

    Raises:
        ExportError: If there are too few frames, or nothing moves.
        FrameError: If the frames are too small.
        VideoError: If the clip cannot be read.
    """
    converter = ColourConverter()

    def convert(frame: VideoFrame) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = converter.rgb_from_frame(frame, 8)
        if info.size in (None, info.image_size((frame.height, frame.width))):
            return image
        return cover(image, info.size)

    windows = spread_windows(path, info.steps_per_call + 2, convert)
    if all(np.array_equal(window[0], window[-1]) for window in windows):
        raise ExportError(
            f"nothing moves in {path}: give a clip like those that the model will process"
        )
    held_out = tuple(windows[1::_HELD_OUT])
    rest = tuple(window for n, window in enumerate(windows) if n % _HELD_OUT != 1)
    return CalibrationFrames(path.name, rest, held_out)


def cover(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scales an image, with its aspect ratio, to cover a size, and crops it around its centre.

    Args:
        image: uint8 (H, W, 3).
        size: (height, width) in pixels.
    """
    factor = max(n / m for n, m in zip(size, image.shape[:2], strict=True))
    rows, columns = (max(n, round(m * factor)) for n, m in zip(size, image.shape[:2], strict=True))
    scaler = VideoReformatter()

    def scaled(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # Bicubic, whose support grows as the image shrinks: AREA leaves more aliasing.
        frame = scaler.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(plane), "gray"),
            columns,
            rows,
            "gray",
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.BICUBIC,
        )
        made: NDArray[np.uint8] = plane_views(frame)[0]
        return made.copy()

    top, left = (rows - size[0]) // 2, (columns - size[1]) // 2
    # Each channel by itself: swscale scales RGB by way of YUV.
    planes = [
        scaled(image[..., channel])[top : top + size[0], left : left + size[1]]
        for channel in range(3)
    ]
    return np.stack(planes, -1)


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
