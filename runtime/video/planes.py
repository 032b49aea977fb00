"""NumPy views of the planes of decoded frames, and their alpha channel."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from numpy.typing import NDArray

_PACKED_ALPHA = {
    "rgba": 3, "bgra": 3, "vuya": 3, "uyva": 3, "ya": 1, "argb": 0, "abgr": 0, "ayuv": 0,
}  # fmt: skip
"""Beginning of the names of formats with one plane -> position of alpha in a pixel."""

_SIDE = 64
"""Side of a picture for which every format has whole chroma samples."""


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
    return _with_planes_of(frame, name.replace("gbrap", "gbrp"))


def with_room_for_alpha(frame: VideoFrame) -> VideoFrame | None:
    """Copies planar RGB or gray to the format with alpha, which is not set; None for others.

    swscale is not used: it loses a part of planar RGB, and changes the range of gray.
    """
    name = frame.format.name
    if name.startswith("gbrp"):
        return _with_planes_of(frame, name.replace("gbrp", "gbrap"))
    if not name.startswith("gray"):
        return None
    result = VideoFrame(frame.width, frame.height, "ya8" if name == "gray" else f"ya{name[4:]}")
    _component_view(result, 0)[:] = _component_view(frame, 0)
    return _with_tags_of(frame, result)


def _with_planes_of(frame: VideoFrame, pixel_format: str) -> VideoFrame:
    """Copies the planes that a frame and another format have in common."""
    result = VideoFrame(frame.width, frame.height, pixel_format)
    for target, plane in zip(result.planes, frame.planes, strict=False):
        width = min(target.line_size, plane.line_size)  # They differ in their padding.
        _bytes_of(target)[:, :width] = _bytes_of(plane)[:, :width]
    return _with_tags_of(frame, result)


def _with_tags_of(frame: VideoFrame, result: VideoFrame) -> VideoFrame:
    result.color_range, result.colorspace = frame.color_range, frame.colorspace
    result.color_primaries, result.color_trc = frame.color_primaries, frame.color_trc
    return result


def _bytes_of(plane: Any) -> NDArray[np.uint8]:
    """The bytes of a plane (H, line size), without a copy."""
    return np.ndarray((plane.height, plane.line_size), np.uint8, memoryview(plane))


def has_alpha(pixel_format: str) -> bool:
    """Whether a pixel format has an alpha channel; False for palettes."""
    return any(component.is_alpha for component in VideoFormat(pixel_format).components)


def is_transparent(frame: VideoFrame) -> bool:
    """Whether a frame has an alpha channel, or a palette with a colour that is not opaque."""
    if frame.format.name == "pal8":
        return bool((_palette(frame)[:, 3] < 255).any())
    return has_alpha(frame.format.name)


def without_palette(frame: VideoFrame) -> VideoFrame:
    """Converts pal8 to bgra, which keeps its colours and their alpha; returns others unchanged."""
    if frame.format.name != "pal8":
        return frame
    result = VideoFrame(frame.width, frame.height, "bgra")
    plane, numbers = result.planes[0], frame.planes[0]
    colours = _palette(frame)[_bytes_of(numbers)[:, : frame.width]]
    _bytes_of(plane)[:, : 4 * frame.width] = colours.reshape(frame.height, -1)
    result.color_primaries, result.color_trc = frame.color_primaries, frame.color_trc
    return result


def alpha_of(frame: VideoFrame, bits: int) -> NDArray[Any]:
    """The alpha channel of a frame; opaque for a frame without one.

    Args:
        frame: A frame of any format.
        bits: Bits of the result, up to 16.

    Returns:
        An array (H, W), uint8 or uint16, in which 2^bits - 1 is opaque; it may share the memory of
        the frame.
    """
    dtype, top = np.dtype(np.uint8 if bits <= 8 else np.uint16), (1 << bits) - 1
    frame = without_palette(frame)
    if not has_alpha(frame.format.name):
        return np.full((frame.height, frame.width), top, dtype)
    samples = _alpha_view(frame)
    if samples.dtype.kind == "f":
        return np.rint(np.clip(samples.astype(np.float32), 0, 1) * top).astype(dtype)
    return _rescaled(samples, _alpha_top(frame), top).astype(dtype, copy=False)


def set_alpha(frame: VideoFrame, alpha: NDArray[Any], bits: int) -> None:
    """Sets the alpha channel of a frame that has one.

    Args:
        frame: The frame; its samples are changed in place.
        alpha: (H, W), uint8 or uint16.
        bits: Bits of `alpha`, in which 2^bits - 1 is opaque.
    """
    samples = _alpha_view(frame)
    if samples.dtype.kind == "f":
        samples[:] = alpha / ((1 << bits) - 1)
    else:
        samples[:] = _rescaled(alpha, (1 << bits) - 1, _alpha_top(frame))


def _palette(frame: VideoFrame) -> NDArray[np.uint8]:
    """The palette of a frame (256, 4), with blue, green, red and alpha of each colour."""
    numbers: NDArray[Any] = np.frombuffer(memoryview(frame.planes[1]), np.uint32)
    return numbers.astype("<u4").view(np.uint8).reshape(256, 4)


def _alpha_top(frame: VideoFrame) -> int:
    return (1 << frame.format.components[-1].bits) - 1


def _alpha_view(frame: VideoFrame) -> NDArray[Any]:
    """The alpha samples of a frame as a view (H, W) of the type of the format."""
    if len(frame.planes) > 1:
        return _component_view(frame, 0, len(frame.planes) - 1)
    name = frame.format.name
    place = next(n for beginning, n in _PACKED_ALPHA.items() if name.startswith(beginning))
    return _component_view(frame, place)


def _component_view(frame: VideoFrame, place: int, plane: int = 0) -> NDArray[Any]:
    """One component of full size as a view (H, W) of the type of the format.

    Args:
        frame: The frame.
        place: Position of the component in a pixel of the plane.
        plane: Number of the plane.
    """
    form, data = frame.format, frame.planes[plane]
    bits = form.components[-1].bits
    size = 1 if bits <= 8 else 2 if bits <= 16 else 4
    kind = "f" if re.search("f(16|32)", form.name) else "u"
    dtype = np.dtype(f"{'>' if form.is_big_endian else '<'}{kind}{size}")
    step = size if len(frame.planes) > 1 else size * len(form.components)
    shape = frame.height, frame.width
    return np.ndarray(shape, dtype, memoryview(data), size * place, (data.line_size, step))


def _rescaled(samples: NDArray[Any], top: int, new_top: int) -> NDArray[Any]:
    """Scales samples whose largest value is `top`, rounded to nearest."""
    if top == new_top:
        return samples
    wide = samples.astype(np.uint32 if max(top, new_top) < 1 << 16 else np.uint64)
    result: NDArray[Any] = (wide * new_top + top // 2) // top
    return result


class SampleView(NamedTuple):
    """The samples of one plane, as a view.

    Attributes:
        samples: (h, w, c), uint8 or uint16: c samples for each place, which may be of several
            components.
        rows: Number of rows of the picture in a place.
        columns: Number of columns of the picture in a place.
    """

    samples: NDArray[Any]
    rows: int
    columns: int


def is_coarse(pixel_format: str) -> bool:
    """Whether a format has a palette, or fewer than 8 bits, so that swscale dithers colours."""
    form = VideoFormat(pixel_format)
    return form.has_palette or min(component.bits for component in form.components) < 8


def has_whole_samples(pixel_format: str) -> bool:
    """Whether each sample of a format has its own bytes, so that `sample_views` can be used.

    False for palettes, for several samples in a byte or a word (monob, rgb565le, x2rgb10le), and
    for floating point.
    """
    form = VideoFormat(pixel_format, _SIDE, _SIDE)
    bits = {component.bits for component in form.components}
    if form.has_palette or len(bits) != 1 or not 8 <= max(bits) <= 16:
        return False
    if len({component.plane for component in form.components}) > 1:
        return True
    size = _sample_size(form)
    samples = sum(component.width * component.height for component in form.components)
    whole = form.padded_bits_per_pixel % (8 * size) == 0
    return whole and 8 * size * samples <= form.padded_bits_per_pixel * _SIDE * _SIDE


def sample_views(frame: VideoFrame) -> list[SampleView]:
    """All samples of a frame, plane by plane; writing to the views changes the frame.

    Args:
        frame: A frame of a format with `has_whole_samples`. In packed YUV (yuyv422) a place is the
            two pixels that share a chroma sample.
    """
    form = VideoFormat(frame.format.name, _SIDE, _SIDE)
    size = _sample_size(form)
    dtype = np.dtype(f"{'>' if form.is_big_endian else '<'}u{size}")
    views = []
    for number, plane in enumerate(frame.planes):
        own = [component for component in form.components if component.plane == number]
        count = len(own)
        rows, columns = (
            _SIDE // min(sides) for sides in ([c.height for c in own], [c.width for c in own])
        )
        if len(frame.planes) == 1:
            count = columns * form.padded_bits_per_pixel // (8 * size)
        shape = -(-frame.height // rows), -(-frame.width // columns), count
        strides = plane.line_size, size * count, size
        samples = np.ndarray(shape, dtype, memoryview(plane), strides=strides)
        views.append(SampleView(samples, rows, columns))
    return views


def _sample_size(form: VideoFormat) -> int:
    """Number of bytes of a sample."""
    return 1 if form.components[0].bits <= 8 else 2
