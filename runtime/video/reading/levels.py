"""Detects luma beyond black and white of limited range, which RGB cannot hold."""

from __future__ import annotations

import re

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from runtime.video.colour import range_of
from runtime.video.planes import bits_of

_LUMA = re.compile(r"(yuv4\d\dp|gray|nv\d\d)(9|10|12|14|16)?(le)?")
"""Formats whose first plane has only luma, in whole bytes, with the lowest bits used. Formats with
alpha are left out, as the luma of transparent pixels may be anything."""

_ROWS = 16
"""Every 16th row is examined: 0.1 ms for a frame of 1920x1080."""

_MARGIN = 2
"""Levels of 255 beyond black and white that are not counted: encoders overshoot at edges."""

_SHARE = 0.01
"""Share of the samples from which on a frame counts. On seven real clips the share, with the
margin, is at most 0.0007 in six, and 0.05 in one that has whites beyond white throughout."""


def is_beyond_limits(frame: VideoFrame) -> bool:
    """Whether a frame of limited range has a visible share of luma below black or above white."""
    if not _LUMA.fullmatch(frame.format.name) or range_of(frame) == ColorRange.JPEG:
        return False
    bits = bits_of(frame)
    dtype = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    plane = frame.planes[0]
    strides = (plane.line_size, dtype.itemsize)
    view = np.ndarray((plane.height, plane.width), dtype, memoryview(plane), strides=strides)
    rows = view[min(_ROWS // 2, plane.height - 1) :: _ROWS]
    unit = 1 << (bits - 8)
    beyond = (rows < (16 - _MARGIN) * unit) | (rows > (235 + _MARGIN) * unit)
    return float(beyond.mean()) >= _SHARE
