"""Converts video frames to RGB and back, without bias.

New frames are converted YUV -> RGB -> YUV and real frames are not, so that a bias of the round trip
would be visible as flicker. swscale converts in both directions, with three choices that avoid it:

- RGB is planar (gbrp, gbrp16le): faster than packed, and rgb48le with linear filters is wrong.
- Chroma is widened and narrowed by filters that undo each other (see `_FILTERS`), with the same
  siting in both directions. swscale's own defaults blur it once more on every trip.
- 16-bit RGB is scaled so that white is 65535, which it is not in swscale (see `_stretched`).

YUV above white, below black, or outside the RGB gamut is clipped.
At an odd size swscale stretches chroma, whose size is rounded up, over the frame, up to a pixel off
at the far edge, in both directions. Interlaced frames are treated as progressive.
PQ and HLG are converted by their matrix alone, without tone mapping.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from runtime.errors import VideoError
from runtime.video.planes import bits_of, plane_views, without_alpha_plane

Siting = Literal["left", "center", "topleft"]
"""Position of a chroma sample among its luma samples: names of FFmpeg's chroma_location.

"left" on the first column, between the rows (MPEG-2, H.264, HEVC); "center" between both (MPEG-1,
JPEG); "topleft" on the first of both (BT.2020, UHD Blu-ray)."""

_FLAGS = "full_chroma_int+full_chroma_inp+accurate_rnd"
_LINEAR: Any = 2 | 1 << 13 | 1 << 14 | 1 << 18
"""`_FLAGS` and bilinear, as numbers of swscale.h, which PyAV 17 (for Python 3.10) does not name."""

_Filter = tuple[float, float]
"""B and C of a cubic filter of Mitchell and Netravali (1988), which swscale calls bicubic."""

_FILTERS: dict[Siting, tuple[_Filter | None, _Filter]] = {
    "topleft": (None, (-3 / 2, -1 / 4)),
    "center": (None, (-63 / 22, -35 / 44)),
    "left": ((0.0, 0.5), (-1.60, -0.64)),
}
"""Siting -> filters that upsample chroma (None: linear) and that downsample it.

Each downsampling inverts its upsampling. With chroma on every second pixel, (-3/2, -1/4) has the
weights (-1, 2, 6, 2, -1) / 8, the dual of linear interpolation (Le Gall and Tabatabai 1988). With
chroma between the pixels, (-63/22, -35/44) is the only cubic that inverts it. "left" is the first
case across and the second down, with one filter for both in swscale, so that no pair is exact: its
downsampling filter, found by a search, inverts Catmull and Rom's cubic within 2 % up to half of
chroma's bandwidth and within 3 % over all of it."""

_GRAY = {8: "yuv420p", **{bits: f"yuv420p{bits}le" for bits in (9, 10, 12, 14, 16)}}
"""Bits -> the YUV format in which gray of limited range is converted."""

_PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le"}

_DEEPER = {
    f"yuv{kind}p{bits}": f"yuv{kind[-3:]}p16le"
    for kind in ("420", "422", "444", "j420", "j422", "j444")
    for bits in ("", "9le", "10le", "12le", "14le")
}
"""Format -> its 16-bit counterpart. In full range swscale's chroma is half a step too low, which
does not matter at 16 bits: frames are converted to 16 bits, and `_rounded` reduces the depth."""

_MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 7: "smpte240m", 9: "bt2020"}
_UNDECLARED = (0, 2, 3)
"""Numbers of AVColorSpace that declare no matrix of YUV: RGB, unspecified, reserved."""

_REFUSED = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "SMPTE 2085",
    12: "chromaticity-derived",
    13: "chromaticity-derived with constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}


def matrix_of(frame: VideoFrame) -> int:
    """The frame's matrix, as a number of AVColorSpace (PyAV 17 does not name all of them).

    Where the frame does not declare one, the choice is that of players: 709 from 720 rows on,
    otherwise 601.

    Raises:
        VideoError: If the frame has a matrix that swscale does not know.
    """
    number = int(frame.colorspace)
    if number in _MATRICES:
        return number
    if number == 6:  # SMPTE 170M, the same numbers as 601
        return 5
    if number not in _UNDECLARED:
        raise VideoError(
            f"the video's colour matrix is {_REFUSED.get(number, f'number {number}')}: only 601, "
            "709, 240M, FCC and BT.2020 with non-constant luminance can be converted to RGB; "
            "convert the video first"
        )
    return 1 if frame.height >= 720 else 5


def range_of(frame: VideoFrame) -> ColorRange:
    """The range of a YUV frame, or of the YUV of an RGB frame; limited if it is not declared."""
    if _is_rgb(frame.format):
        return ColorRange.MPEG
    if frame.format.name.startswith("yuvj"):
        return ColorRange.JPEG
    declared = ColorRange(int(frame.color_range))
    return ColorRange.MPEG if declared == ColorRange.UNSPECIFIED else declared


def siting_of(frame: VideoFrame) -> Siting:
    """The chroma siting that the frame declares, or that players assume where it declares none.

    PyAV does not expose the field, but passes it to swscale with the frame's other properties. So
    this function converts a small frame with these properties and a step in each plane of chroma:
    the position of the step in the result shows the siting. Where none is declared, swscale assumes
    "center", which is right for full range (JPEG); for limited range this function then returns
    "left", since only MPEG-1 declares "center" with limited range.

    Raises:
        VideoError: If swscale does not know the frame's matrix.
    """
    matrix_of(frame)  # FFmpeg 9 fails on an unknown matrix, and does not name it.
    # Another size, as `reformat` to the same size and format returns the frame itself.
    side = 16 if frame.width != 16 else 32
    probe = frame.reformat(width=side, height=side, format="yuv420p")
    for plane, rows, columns in zip(
        plane_views(probe), (side, 4, side), (side, side, 4), strict=True
    ):
        plane[:] = 128
        plane[rows:] = plane[:, columns:] = 160
    rgb = probe.reformat(
        format="gbrp",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=_LINEAR,
    )
    _, blue, red = plane_views(rgb)
    if red[0, 8] < red[0, 15]:
        return "center" if range_of(frame) == ColorRange.JPEG else "left"
    return "left" if blue[8, 0] < blue[15, 0] else "topleft"


class _Scaler:
    """One conversion by libavfilter's `scale`, which can set swscale's filters and sitings."""

    def __init__(
        self, frame: VideoFrame, pixel_format: str, like: VideoFrame, siting: Siting
    ) -> None:
        target = VideoFormat(pixel_format, frame.width, frame.height)
        narrowed = _chroma_samples(target) < _chroma_samples(frame.format)
        coarse = target if narrowed else frame.format
        halved_across_only = coarse.chroma_height(64) == 64
        widen, narrow = _FILTERS["topleft" if siting == "left" and halved_across_only else siting]
        cubic = narrow if narrowed else widen
        matrix = _MATRICES[matrix_of(like)]
        limits = "full" if range_of(like) == ColorRange.JPEG else "limited"
        options = {
            "flags": f"{'bicubic' if cubic else 'bilinear'}+{_FLAGS}",
            "in_color_matrix": matrix,
            "out_color_matrix": matrix,
            "in_range": "full" if _is_rgb(frame.format) else limits,
            "out_range": "full" if _is_rgb(target) else limits,
            "in_chroma_loc": siting,
            "out_chroma_loc": siting,
        }
        if cubic:
            options |= {"param0": str(cubic[0]), "param1": str(cubic[1])}
        self._graph = Graph()
        self._graph.threads = 1
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
        )
        scale = self._graph.add("scale", **options)
        # Sets the output format; without it the graph would keep that of the input.
        wanted = self._graph.add("format", pix_fmts=pixel_format)
        self._graph.link_nodes(source, scale, wanted, self._graph.add("buffersink")).configure()

    def scaled(self, frame: VideoFrame) -> VideoFrame:
        self._graph.push(frame)
        result = self._graph.pull()
        if not isinstance(result, VideoFrame):
            raise TypeError(f"the filter graph gave a {type(result).__name__}")
        return result


def _is_rgb(form: VideoFormat) -> bool:
    return form.is_rgb or form.has_palette


def _chroma_samples(form: VideoFormat) -> int:
    """Number of samples in a chroma plane of 64x64 pixels."""
    return form.chroma_width(64) * form.chroma_height(64)


def _tagged(frame: VideoFrame, like: VideoFrame) -> VideoFrame:
    """Sets the colour tags of `like` on a frame; for an RGB `like` those of its YUV conversion."""
    is_yuv = not _is_rgb(like.format)
    frame.colorspace = like.colorspace if is_yuv else matrix_of(like)
    frame.color_range = like.color_range if is_yuv else range_of(like)
    frame.color_primaries, frame.color_trc = like.color_primaries, like.color_trc
    return frame


def _is_limited_gray(frame: VideoFrame) -> bool:
    """Whether the frame is gray of limited range; swscale treats all gray as full range."""
    gray = frame.format.name in ("gray", *(f"gray{bits}le" for bits in _GRAY))
    return gray and range_of(frame) == ColorRange.MPEG


def _with_chroma(frame: VideoFrame) -> VideoFrame:
    """Converts a gray frame to YUV with neutral chroma."""
    bits = bits_of(frame)
    yuv = VideoFrame(frame.width, frame.height, _GRAY[bits])
    luma, *chroma = plane_views(yuv)
    luma[:] = plane_views(frame)[0]
    for plane in chroma:
        plane[:] = 1 << (bits - 1)
    return _tagged(yuv, frame)


def _rounded(frame: VideoFrame, pixel_format: str) -> VideoFrame:
    """Reduces planar YUV of 16 bits and full range to fewer bits, rounded to nearest."""
    result = VideoFrame(frame.width, frame.height, pixel_format)
    bits = bits_of(result)
    half = 1 << (15 - bits)
    views = zip(plane_views(result), plane_views(frame), strict=True)
    for number, (plane, deep) in enumerate(views):
        scaled = deep - (deep >> bits)  # 65535 -> 2^bits - 1, with fraction bits.
        if number == 0:
            plane[:] = (scaled + half) >> (16 - bits)
        else:  # The scaling lowers neutral chroma by another half step, so add a whole one.
            plane[:] = np.minimum((scaled >> (16 - bits)) + 1, (1 << bits) - 1)
    return result


def _stretched(image: NDArray[Any], frame: VideoFrame) -> NDArray[Any]:
    """Scales swscale's 16-bit RGB in place, so that white is 65535; values above it are clipped.

    swscale scales limited range to 8 bits and shifts it by 8; full range and RGB it only shifts.
    White is therefore 1/2^bits below 65536, with 8 or the source's bits; back from RGB always 8.
    """
    full = _is_rgb(frame.format) or range_of(frame) == ColorRange.JPEG
    bits = bits_of(frame) if full else 8
    np.minimum(image, 65536 - (65536 >> bits), out=image)
    image += image >> bits
    return image


def _sixteen_bit(image: NDArray[Any]) -> NDArray[Any]:
    """uint8 -> uint16; 255 becomes 65535."""
    return image.astype(np.uint16) * np.uint16(257)


def _eight_bit(image: NDArray[Any]) -> NDArray[Any]:
    """uint16 -> uint8, rounded to nearest: the inverse of `_sixteen_bit`."""
    eight: NDArray[Any] = ((image - (image >> 8) + 128) >> 8).astype(np.uint8)
    return eight


def rgb_from_frame(frame: VideoFrame, depth: int) -> NDArray[Any]:
    """Converts one frame to RGB (H, W, 3), as `ColourConverter.rgb_from_frame` does in streams."""
    return ColourConverter().rgb_from_frame(frame, depth)


def frame_from_rgb(image: NDArray[Any], *, like: VideoFrame) -> VideoFrame:
    """Converts one RGB image to a frame, as `ColourConverter.frame_from_rgb` does for a stream."""
    return ColourConverter().frame_from_rgb(image, like=like)


def reformatted(frame: VideoFrame, pixel_format: str, like: VideoFrame) -> VideoFrame:
    """Converts the format of one frame, as `ColourConverter.reformatted` does for a stream."""
    return ColourConverter().reformatted(frame, pixel_format, like)


class ColourConverter:
    """Converts the frames of one stream; keeps swscale's tables between calls.

    One thread at a time may call a method; different threads may call different methods.

    Args:
        siting: Chroma siting of all frames; by default that of the first frame of each size and
            format, by `siting_of`.

    Raises:
        VideoError: If the siting is not one of `Siting`.
    """

    def __init__(self, *, siting: Siting | None = None) -> None:
        if siting is not None and siting not in get_args(Siting):
            raise VideoError(
                f"the chroma siting is {siting!r}: give one of {', '.join(get_args(Siting))}"
            )
        self._siting = siting
        self._sitings: dict[tuple[str, int, int], Siting] = {}
        self._scalers: dict[str, tuple[tuple[Any, ...], _Scaler]] = {}

    def rgb_from_frame(self, frame: VideoFrame, depth: int) -> NDArray[Any]:
        """Converts a decoded frame to RGB.

        Args:
            frame: A frame of any format that swscale reads; not changed. Alpha is dropped.
            depth: Bits of the result, 8 or 16.

        Returns:
            A new array (H, W, 3), uint8 or uint16; white is 255 or 65535.

        Raises:
            VideoError: If the frame's matrix cannot be converted.
        """
        deep = bits_of(frame) > 8
        shown = _with_chroma(frame) if _is_limited_gray(frame) else frame
        planar = self._scaled("rgb", shown, "gbrp16le" if deep else "gbrp", frame)
        image = np.empty((frame.height, frame.width, 3), np.uint16 if deep else np.uint8)
        for channel, plane in zip((1, 2, 0), plane_views(planar), strict=True):
            image[..., channel] = plane
        if not deep:
            return image if depth == 8 else _sixteen_bit(image)
        image = _stretched(image, frame)
        return _eight_bit(image) if depth == 8 else image

    def frame_from_rgb(self, image: NDArray[Any], *, like: VideoFrame) -> VideoFrame:
        """Converts an RGB image to a frame of the same stream as `like`.

        Args:
            image: RGB (H, W, 3), uint8 or uint16, of the size of `like`; not changed.
            like: Determines pixel format, matrix, range, siting and colour tags; not changed.

        Raises:
            VideoError: If the matrix of `like` cannot be converted.
        """
        bits = bits_of(like)
        if bits > 8:
            image = image if image.dtype == np.uint16 else _sixteen_bit(image)
            image = image - (image >> (bits if _is_rgb(like.format) else 8))
        elif image.dtype == np.uint16:
            image = _eight_bit(image)
        height, width = image.shape[:2]
        planar = VideoFrame(width, height, "gbrp16le" if bits > 8 else "gbrp")
        for channel, plane in zip((1, 2, 0), plane_views(planar), strict=True):
            plane[:] = image[..., channel]
        return self._from_rgb(planar, like)

    def reformatted(self, frame: VideoFrame, pixel_format: str, like: VideoFrame) -> VideoFrame:
        """Converts a frame to another pixel format, with the matrix and the range of `like`.

        Raises:
            VideoError: If the matrix of `like` cannot be converted.
        """
        shown = _with_chroma(frame) if _is_limited_gray(frame) else frame
        return self._scaled("reformatted", shown, pixel_format, like)

    def _scaled(
        self, use: str, frame: VideoFrame, pixel_format: str, like: VideoFrame
    ) -> VideoFrame:
        siting = self._siting or self._siting_like(like)
        frame = without_alpha_plane(frame)
        formats = frame.format.name, pixel_format
        size = frame.width, frame.height
        key = (*formats, *size, matrix_of(like), range_of(like), siting)
        known = self._scalers.get(use)
        if known is None or known[0] != key:
            known = key, _Scaler(frame, pixel_format, like, siting)
            self._scalers[use] = known
        return _tagged(known[1].scaled(frame), like)

    def _from_rgb(self, planar: VideoFrame, like: VideoFrame) -> VideoFrame:
        """Converts planar RGB to the format of `like`; in several steps where swscale is biased."""
        bits = bits_of(like)
        if _is_limited_gray(like):
            gray = VideoFrame(like.width, like.height, like.format.name)
            yuv = self._scaled("frame", planar, _GRAY[bits], like)
            plane_views(gray)[0][:] = plane_views(yuv)[0]
            return _tagged(gray, like)
        name = like.format.name
        plain = _PLANAR.get(name, name)
        if plain in _DEEPER and range_of(like) == ColorRange.JPEG:
            result = _rounded(self._scaled("frame", planar, _DEEPER[plain], like), plain)
            result = result if plain == name else self._scaled("packed", result, name, like)
            return _tagged(result, like)
        return self._scaled("frame", planar, name, like)

    def _siting_like(self, like: VideoFrame) -> Siting:
        key = like.format.name, like.width, like.height
        if key not in self._sitings:
            self._sitings[key] = "left" if _is_rgb(like.format) else siting_of(like)
        return self._sitings[key]
