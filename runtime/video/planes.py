"""NumPy views of the planes of decoded frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray


def plane_views(frame: VideoFrame) -> list[NDArray[Any]]:
    """The planes of a frame as views (H, W), uint8 or uint16, without their padding.

    Args:
        frame: A frame of a format with one component in each plane.
    """
    dtype = np.dtype(np.uint8 if bits_of(frame) <= 8 else np.uint16)
    return [
        np.ndarray((p.height, p.width), dtype, memoryview(p), strides=(p.line_size, dtype.itemsize))
        for p in frame.planes
    ]


def bits_of(frame: VideoFrame) -> int:
    """Number of bits of a sample of the first component."""
    return frame.format.components[0].bits


def without_alpha_plane(frame: VideoFrame) -> VideoFrame:
    """Copies planar RGB without its alpha plane; returns a frame of another format unchanged.

    swscale is not used: with more than 8 bits it loses the second half of the last row.
    """
    name = frame.format.name
    if not name.startswith("gbrap") or name.startswith("gbrap32"):  # There is no gbrp32.
        return frame
    result = VideoFrame(frame.width, frame.height, name.replace("gbrap", "gbrp"))
    for target, plane in zip(result.planes, frame.planes, strict=False):
        width = min(target.line_size, plane.line_size)  # They differ in their padding.
        _bytes_of(target)[:, :width] = _bytes_of(plane)[:, :width]
    result.color_range, result.colorspace = frame.color_range, frame.colorspace
    result.color_primaries, result.color_trc = frame.color_primaries, frame.color_trc
    return result


def _bytes_of(plane: Any) -> NDArray[np.uint8]:
    """The bytes of a plane (H, line size), without a copy."""
    return np.ndarray((plane.height, plane.line_size), np.uint8, memoryview(plane))
