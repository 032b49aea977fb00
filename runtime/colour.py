"""Video frames to RGB and back, through the matrix and the range that the frame was coded with."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

_SWS_BICUBIC, _SWS_FULL_CHROMA, _SWS_ACCURATE = 4, 1 << 13, 1 << 18
_EXACT: Any = _SWS_BICUBIC | _SWS_FULL_CHROMA | _SWS_ACCURATE
"""How swscale converts: chroma at full width, exact rounding. Numbers of swscale.h, for PyAV 17,
the last for Python 3.10, takes them but does not name them."""


def matrix_of(frame: VideoFrame) -> Colorspace:
    """The frame's matrix; where it is not said, what players take: 709 from 720 rows on."""
    said = int(frame.colorspace)
    known = {int(space) for space in Colorspace}
    if said in known:
        return Colorspace(said)
    if said == 6:  # SMPTE 170M, the same numbers as 601
        return Colorspace.ITU601
    return Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601


def range_of(frame: VideoFrame) -> ColorRange:
    """The range that YUV of the frame has or, of an RGB frame, shall have: limited unless said."""
    if frame.format.is_rgb:
        return ColorRange.MPEG
    if frame.format.name.startswith("yuvj"):
        return ColorRange.JPEG
    said = ColorRange(int(frame.color_range))
    return ColorRange.MPEG if said == ColorRange.UNSPECIFIED else said


def rgb_from_frame(frame: VideoFrame, depth: int) -> NDArray[Any]:
    """Decoded frame -> RGB (H, W, 3), uint8 or uint16."""
    rgb = frame.reformat(
        format="rgb24" if depth == 8 else "rgb48le",
        src_colorspace=matrix_of(frame),
        dst_colorspace=matrix_of(frame),
        src_color_range=ColorRange.JPEG if frame.format.is_rgb else range_of(frame),
        dst_color_range=ColorRange.JPEG,
        interpolation=_EXACT,
    )
    array: NDArray[Any] = rgb.to_ndarray()
    return array


def frame_from_rgb(picture: NDArray[Any], *, like: VideoFrame) -> VideoFrame:
    """RGB (H, W, 3) -> a frame in the format, matrix and range of `like`."""
    depth = "rgb48le" if picture.dtype == np.uint16 else "rgb24"
    return reformatted(VideoFrame.from_ndarray(picture, format=depth), like.format.name, like)


def reformatted(frame: VideoFrame, pixel_format: str, like: VideoFrame) -> VideoFrame:
    """A frame in another pixel format, through the matrix and the range of `like`."""
    from_rgb = frame.format.is_rgb
    return frame.reformat(
        format=pixel_format,
        src_colorspace=matrix_of(like),
        dst_colorspace=matrix_of(like),
        src_color_range=ColorRange.JPEG if from_rgb else range_of(like),
        dst_color_range=range_of(like),
        interpolation=_EXACT,
    )
