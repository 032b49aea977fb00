"""Removes alpha channels, which outputs do not have, from frames, formats and tags."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from runtime.video.colour import ColourConverter
from runtime.video.planes import without_alpha_plane
from runtime.video.reading.info import SourceInfo

_TAG = "alpha_mode"
"""Matroska's tag for alpha in a second VP8 or VP9 stream, which FFmpeg does not decode."""

_WITHOUT = (("yuva", "yuv"), ("gbrap", "gbrp"), ("yaf", "grayf"), ("ya", "gray"))
"""Prefixes of planar and gray formats with alpha, and of their counterparts without."""

_PACKED = {
    "rgba": "rgb24", "argb": "rgb24", "bgra": "bgr24", "abgr": "bgr24",
    "rgba64le": "rgb48le", "rgba64be": "rgb48be", "bgra64le": "bgr48le", "bgra64be": "bgr48be",
    "rgbaf16le": "rgbf16le", "rgbaf16be": "rgbf16be", "rgbaf32le": "rgbf32le",
    "rgbaf32be": "rgbf32be", "ayuv": "yuv444p", "vuya": "yuv444p", "uyva": "yuv444p",
    "ayuv64le": "yuv444p16le", "ayuv64be": "yuv444p16be",
}  # fmt: skip


def has_alpha(pixel_format: str) -> bool:
    """Whether a pixel format has an alpha channel; False for palettes."""
    return any(component.is_alpha for component in VideoFormat(pixel_format).components)


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


def opaque(frame: VideoFrame, converter: ColourConverter) -> VideoFrame:
    """Removes the alpha channel of a frame; returns a frame without alpha unchanged.

    Colour samples are not changed: not multiplied by alpha, and not blended.
    """
    name = frame.format.name
    plain = without_alpha(name)
    if plain == name:
        return frame
    copied = without_alpha_plane(frame)
    return converter.reformatted(frame, plain, frame) if copied is frame else copied


def alpha_notes(like: SourceInfo) -> list[str]:
    """Notes for the user on the source's alpha channel; none where it has none."""
    tags = {name.lower(): value for name, value in like.video_metadata.items()}
    if has_alpha(like.pixel_format) or tags.get(_TAG, "0") != "0":
        return ["the alpha channel is not carried over"]
    if VideoFormat(like.pixel_format).has_palette:
        return ["transparent colours of the palette, if there are any, are written opaque"]
    return []


def without_alpha_tag(metadata: Mapping[str, str]) -> dict[str, str]:
    """The tags of a file or a track without the one that declares an alpha channel."""
    return {name: value for name, value in metadata.items() if name.lower() != _TAG}
