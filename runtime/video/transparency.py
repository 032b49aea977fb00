"""Removes and adds the alpha channel of frames."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from runtime.video.colour import ColourConverter
from runtime.video.planes import (
    alpha_of,
    has_alpha,
    set_alpha,
    with_room_for_alpha,
    without_alpha_plane,
    without_palette,
)

AlphaMode = Literal["interpolate", "blend", "none"]
"""Alpha of new frames: computed by the model, or a linear mix; or no alpha in the output."""

_WITHOUT = (("yuva", "yuv"), ("gbrap", "gbrp"), ("yaf", "grayf"), ("ya", "gray"))
"""Prefixes of planar and gray formats with alpha, and of their counterparts without."""

_PACKED = {
    "rgba": "rgb24", "argb": "rgb24", "bgra": "bgr24", "abgr": "bgr24",
    "rgba64le": "rgb48le", "rgba64be": "rgb48be", "bgra64le": "bgr48le", "bgra64be": "bgr48be",
    "rgbaf16le": "rgbf16le", "rgbaf16be": "rgbf16be", "rgbaf32le": "rgbf32le",
    "rgbaf32be": "rgbf32be", "ayuv": "yuv444p", "vuya": "yuv444p", "uyva": "yuv444p",
    "ayuv64le": "yuv444p16le", "ayuv64be": "yuv444p16be",
}  # fmt: skip


def without_alpha(pixel_format: str) -> str:
    """The pixel format without alpha that has the same colour samples, or the same depth."""
    if not has_alpha(pixel_format):
        return pixel_format
    if pixel_format in _PACKED:
        return _PACKED[pixel_format]
    for beginning, plain in _WITHOUT:
        if pixel_format.startswith(beginning):
            with suppress(ValueError):  # Not every format has a counterpart without alpha.
                return VideoFormat(plain + pixel_format[len(beginning) :]).name
    return "gbrp16le" if VideoFormat(pixel_format).is_rgb else "yuv444p16le"


class AlphaConverter:
    """Removes and adds the alpha channel of the frames of one stream; colour is not changed by it.

    One thread at a time may call a method; different threads may call different methods.
    """

    def __init__(self) -> None:
        self._removing, self._adding, self._changing = (ColourConverter() for _ in range(3))

    def without_alpha(self, frame: VideoFrame) -> VideoFrame:
        """Removes the alpha channel of a frame; returns a frame without alpha unchanged."""
        plain = without_alpha(frame.format.name)
        if plain == frame.format.name:
            return frame
        copied = without_alpha_plane(frame)
        return self._removing.reformatted(frame, plain, frame) if copied is frame else copied

    def with_alpha(
        self, frame: VideoFrame, alpha: NDArray[Any], bits: int, pixel_format: str
    ) -> VideoFrame:
        """Adds an alpha channel to a frame that has none.

        Args:
            frame: The frame; it is converted if its format is not `without_alpha(pixel_format)`.
            alpha: (H, W), uint8 or uint16, in which 2^bits - 1 is opaque.
            bits: Bits of `alpha`, up to 16.
            pixel_format: The format of the result; it has an alpha channel.
        """
        plain = without_alpha(pixel_format)
        if frame.format.name != plain:
            frame = self._changing.reformatted(frame, plain, frame)
        result = with_room_for_alpha(frame)
        if result is None or result.format.name != pixel_format:
            result = self._adding.reformatted(frame, pixel_format, frame)
        set_alpha(result, alpha, bits)
        return result

    def fitted(self, frame: VideoFrame, pixel_format: str) -> VideoFrame:
        """Converts a frame to a format with alpha; a frame without alpha becomes opaque."""
        if frame.format.name == pixel_format:
            return frame
        frame = without_palette(frame)
        bits = min(VideoFormat(pixel_format).components[-1].bits, 16)
        alpha = alpha_of(frame, bits)
        return self.with_alpha(self.without_alpha(frame), alpha, bits, pixel_format)
