"""Checks of frames, and their conversion to and from the model's float32 planes."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from runtime.errors import FrameError, kind_of

Frame = NDArray[Any]
"""(H, W, 3) RGB or BGR: uint8 in 0..255, uint16 in 0..65535 or float32 in [0, 1].

The byte order is that of the machine or the other one.
"""

Channels = Literal["rgb", "bgr"]
"""Order of the channels of frames."""

MINIMUM_SIDE = 16
"""Smallest height and width of a frame in pixels: one pixel of the coarsest pyramid level."""

_PEAK = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}


def check_channels(channels: object) -> None:
    """Checks that a value names an order of channels.

    Raises:
        FrameError: If it does not.
    """
    if channels not in get_args(Channels):
        raise FrameError(f"channels is {channels!r}: use 'rgb', or 'bgr' for frames of OpenCV")


def check_frame(frame: object, name: str) -> None:
    """Checks that an array is a frame: (H, W, 3), of a supported type, size and range.

    Args:
        frame: The array.
        name: Its name in error messages.

    Raises:
        FrameError: If it is not.
    """
    if not isinstance(frame, np.ndarray):
        how = ", as numpy.asarray makes of it" if hasattr(frame, "__array_interface__") else ""
        how = ", as frame.cpu().numpy()" if hasattr(frame, "cpu") else how
        raise FrameError(f"{name} is {kind_of(frame)}: give a NumPy array of shape (H, W, 3){how}")
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise FrameError(
            f"{name} has shape {frame.shape}, frames are RGB (H, W, 3): {_shape_remedy(frame)}"
        )
    if frame.dtype.name not in _PEAK:
        raise FrameError(
            f"{name} is {frame.dtype}: frames are {', '.join(_PEAK)} in [0, 1], convert it"
        )
    check_sides(frame.shape[0], frame.shape[1], name)
    # NaN fails too, as every comparison with it is false.
    if _is_float(frame) and not (frame.min() >= 0.0 and frame.max() <= 1.0):
        raise FrameError(
            f"{name} holds float32 values outside [0, 1], or NaN: scale it to [0, 1] and clip it"
        )


def check_sides(height: int, width: int, name: str) -> None:
    """Checks that a frame is not too small for the network.

    Args:
        height: Height of the frame in pixels.
        width: Width of the frame in pixels.
        name: Its name in error messages.

    Raises:
        FrameError: If a side is below `MINIMUM_SIDE`.
    """
    if min(height, width) < MINIMUM_SIDE:
        raise FrameError(
            f"{name} is {height}x{width}: frames are at least {MINIMUM_SIDE}x{MINIMUM_SIDE}"
        )


def _shape_remedy(frame: NDArray[Any]) -> str:
    """How to convert an array of another shape to a frame, judged by its shape."""
    if frame.ndim == 3 and frame.shape[2] == 4:
        return "leave the alpha channel out, frame[..., :3]"
    if frame.ndim == 3 and frame.shape[0] == 3:
        return "move the channels to the end, frame.transpose(1, 2, 0)"
    if frame.ndim == 4:
        return "give one frame at a time"
    return "convert it to three channels"


def check_pair(frame0: Frame, frame1: Frame) -> None:
    """Checks that two arrays are frames of one size and type.

    Raises:
        FrameError: If they are not.
    """
    check_frame(frame0, "frame0")
    check_frame(frame1, "frame1")
    if frame0.shape != frame1.shape or frame0.dtype.name != frame1.dtype.name:
        raise FrameError(
            f"frame0 is {_describe(frame0)} and frame1 {_describe(frame1)}: "
            "both frames of a pair have one size and one type"
        )


def swapped_channels(frame: NDArray[Any]) -> NDArray[Any]:
    """A C-contiguous copy with the first and the last channel swapped: RGB to BGR and back.

    1.1 ms for 1920x1080 uint8 on an AMD EPYC; `ascontiguousarray(frame[..., ::-1])` takes 5.1 ms,
    `take` 2.7 ms and one assignment for each channel 1.5 ms.
    """
    copy = np.array(frame, order="C")
    copy[..., 0] = frame[..., 2]
    copy[..., 2] = frame[..., 0]
    return copy


def padding(size: int, divisor: int) -> tuple[int, int]:
    """Pixels to add before and after `size` to reach a multiple of `divisor`.

    The frame is centred, as in the authors' code.
    """
    missing = -size % divisor
    return missing // 2, missing - missing // 2


def to_planes(frame: Frame, divisor: int) -> NDArray[np.float32]:
    """Converts a frame (H, W, 3) to float32 planes (1, 3, H', W') in [0, 1].

    H' and W' are the next multiples of `divisor`; the padding repeats the border pixels.
    """
    rows, columns = (padding(size, divisor) for size in frame.shape[:2])
    planes = frame.transpose(2, 0, 1).astype(np.float32, order="C")
    if not _is_float(frame):
        planes /= _PEAK[frame.dtype.name]
    if any(rows + columns):
        planes = np.pad(planes, ((0, 0), rows, columns), mode="edge")
    return planes[None]


def from_planes(planes: NDArray[np.float32], like: Frame, divisor: int) -> Frame:
    """Converts float32 planes (3, H', W') in [0, 1] to a frame of the size and type of `like`.

    The byte order is that of `like` too. Padding to multiples of `divisor` is cut off; integers are
    rounded to nearest.
    """
    height, width = like.shape[:2]
    top, left = padding(height, divisor)[0], padding(width, divisor)[0]
    image = planes[:, top : top + height, left : left + width].transpose(1, 2, 0)
    if _is_float(like):
        return np.ascontiguousarray(image, like.dtype)
    scaled = np.rint(image * np.float32(_PEAK[like.dtype.name]))
    frame: Frame = scaled.astype(like.dtype, order="C")
    return frame


def _is_float(frame: Frame) -> bool:
    # The name has no byte order: ">f4" and "<f4" are both "float32", but not equal.
    return frame.dtype.name == "float32"


def _describe(frame: Frame) -> str:
    return f"{frame.shape[0]}x{frame.shape[1]} {frame.dtype}"
