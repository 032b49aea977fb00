"""Video frames to RGB and back, so that what comes back is what went in.

Real frames pass a conversion untouched and new ones go YUV -> RGB -> YUV, so a bias of this round
trip is a flicker. swscale does both ways, and three things about it are chosen for that:

- RGB is planar (gbrp, gbrp16le): faster than packed, and rgb48le with linear filters is wrong.
- Chroma is widened and narrowed by filters that undo each other (see `_FILTERS`), with the same
  siting both ways. swscale's own defaults blur it once more on every trip.
- 16-bit RGB is stretched to 65535, for swscale's white is not (see `_stretched`).

What RGB cannot hold is lost: YUV above white, below black, or outside the gamut is clipped.
At an odd size swscale spreads the rounded-up chroma over the width, up to a pixel off at the far
edge, and gathers it the same way. Interlaced frames are taken for progressive ones.
PQ and HLG are not touched: their numbers go through the matrix, and no tone mapping is done.
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
"""Where a chroma sample lies among its luma samples: names of FFmpeg's chroma_location.

"left" on the first column, between the rows (MPEG-2, H.264, HEVC); "center" between both (MPEG-1,
JPEG); "topleft" on the first of both (BT.2020, UHD Blu-ray)."""

_FLAGS = "full_chroma_int+full_chroma_inp+accurate_rnd"
_LINEAR: Any = 2 | 1 << 13 | 1 << 14 | 1 << 18
"""The same flags, bilinear, as numbers of swscale.h: PyAV 17, the last for Python 3.10, takes them
but does not name them."""

_Filter = tuple[float, float]
"""B and C of Mitchell and Netravali's family of cubics (1988), what swscale calls bicubic."""

_FILTERS: dict[Siting, tuple[_Filter | None, _Filter]] = {
    "topleft": (None, (-3 / 2, -1 / 4)),
    "center": (None, (-63 / 22, -35 / 44)),
    "left": ((0.0, 0.5), (-1.60, -0.64)),
}
"""Filters that widen chroma (None: linear) and that narrow it.

Each narrowing undoes its widening. With chroma on every second pixel, (-3/2, -1/4) gives the
weights (-1, 2, 6, 2, -1) / 8, the dual of linear interpolation (Le Gall and Tabatabai 1988). With
chroma between the pixels, (-63/22, -35/44) is the one cubic that undoes it. "left" is one kind
across and the other down, with one filter for both in swscale, and no pair is exact: Catmull and
Rom's cubic, and what a search found to undo it within 2 % at half and 3 % at all of chroma's
bandwidth."""

_GRAY = {8: "yuv420p", **{bits: f"yuv420p{bits}le" for bits in (9, 10, 12, 14, 16)}}
"""By bits: what gray of limited range is converted as."""

_PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le"}

_DEEPER = {
    f"yuv{kind}p{bits}": f"yuv{kind[-3:]}p16le"
    for kind in ("420", "422", "444", "j420", "j422", "j444")
    for bits in ("", "9le", "10le", "12le", "14le")
}
"""For full range swscale makes chroma half a step too low, a half of 8 bits too. So it makes these
formats of 16 bits, where half a step is nothing, and `_rounded` does the rest."""

_MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 7: "smpte240m", 9: "bt2020"}
_UNSAID = (0, 2, 3)
"""AVColorSpace: RGB, which says nothing about a frame of YUV; unspecified; reserved."""

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
    """The frame's matrix, a number of AVColorSpace (PyAV 17 names not all of them).

    Where it is not said, it is what players take: 709 from 720 rows on, otherwise 601.

    Raises:
        VideoError: If the frame has a matrix that swscale does not know.
    """
    said = int(frame.colorspace)
    if said in _MATRICES:
        return said
    if said == 6:  # SMPTE 170M, the same numbers as 601
        return 5
    if said not in _UNSAID:
        raise VideoError(
            f"the video's colour matrix is {_REFUSED.get(said, f'number {said}')}: only 601, 709, "
            "240M, FCC and BT.2020 with non-constant luminance can be converted to RGB; convert "
            "the video first"
        )
    return 1 if frame.height >= 720 else 5


def range_of(frame: VideoFrame) -> ColorRange:
    """The range that YUV of the frame has or, of an RGB frame, shall have: limited unless said."""
    if _is_rgb(frame.format):
        return ColorRange.MPEG
    if frame.format.name.startswith("yuvj"):
        return ColorRange.JPEG
    said = ColorRange(int(frame.color_range))
    return ColorRange.MPEG if said == ColorRange.UNSPECIFIED else said


def siting_of(frame: VideoFrame) -> Siting:
    """Where the frame says that its chroma lies; where it does not, what players take.

    PyAV hides the field but hands it to swscale with the frame's other properties. So a small
    frame with those properties and a step in each plane of chroma is converted, and the step is
    looked for. swscale takes what is not said for "center", which is right for full range (JPEG);
    with limited range it is "left". MPEG-1 alone says "center" with limited range.

    Raises:
        VideoError: If swscale does not know the frame's matrix.
    """
    matrix_of(frame)  # FFmpeg 9 fails on an unknown matrix, and does not name it.
    # Of another size, for what is like the frame already comes back as the frame itself.
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
    """One conversion by libavfilter's `scale`, the way to swscale's filters and sitings."""

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
        # Asks for the format: without it the graph would leave the frame in its own.
        wanted = self._graph.add("format", pix_fmts=pixel_format)
        self._graph.link_nodes(source, scale, wanted, self._graph.add("buffersink")).configure()

    def scaled(self, frame: VideoFrame) -> VideoFrame:
        self._graph.push(frame)
        made = self._graph.pull()
        if not isinstance(made, VideoFrame):
            raise TypeError(f"the filter graph gave a {type(made).__name__}")
        return made


def _is_rgb(form: VideoFormat) -> bool:
    return form.is_rgb or form.has_palette


def _chroma_samples(form: VideoFormat) -> int:
    """Samples of chroma among 64x64 pixels."""
    return form.chroma_width(64) * form.chroma_height(64)


def _tagged(made: VideoFrame, like: VideoFrame) -> VideoFrame:
    """Gives a frame the colour tags of `like`, or those that YUV from it shall have."""
    tagged = not _is_rgb(like.format)
    made.colorspace = like.colorspace if tagged else matrix_of(like)
    made.color_range = like.color_range if tagged else range_of(like)
    made.color_primaries, made.color_trc = like.color_primaries, like.color_trc
    return made


def _is_limited_gray(frame: VideoFrame) -> bool:
    """Whether swscale would take the frame for full range, as it does with all that is gray."""
    gray = frame.format.name in ("gray", *(f"gray{bits}le" for bits in _GRAY))
    return gray and range_of(frame) == ColorRange.MPEG


def _with_chroma(frame: VideoFrame) -> VideoFrame:
    """A gray frame with neutral chroma beside its luma."""
    bits = bits_of(frame)
    made = VideoFrame(frame.width, frame.height, _GRAY[bits])
    luma, *chroma = plane_views(made)
    luma[:] = plane_views(frame)[0]
    for plane in chroma:
        plane[:] = 1 << (bits - 1)
    return _tagged(made, frame)


def _rounded(frame: VideoFrame, pixel_format: str) -> VideoFrame:
    """Planar YUV of 16 bits and full range -> one of fewer bits, rounded to nearest."""
    made = VideoFrame(frame.width, frame.height, pixel_format)
    bits = bits_of(made)
    half = 1 << (15 - bits)
    for number, (plane, deep) in enumerate(zip(plane_views(made), plane_views(frame), strict=True)):
        scaled = deep - (deep >> bits)  # 65535 to the largest number, and a fraction below it
        if number == 0:
            plane[:] = (scaled + half) >> (16 - bits)
        else:  # neutral was shrunk by a half too, so a whole is missing
            plane[:] = np.minimum((scaled >> (16 - bits)) + 1, (1 << bits) - 1)
    return made


def _stretched(picture: NDArray[Any], frame: VideoFrame) -> NDArray[Any]:
    """RGB as swscale makes it of more than 8 bits -> white is 65535, whiter is clipped. In place.

    Limited range is scaled to 8 bits and shifted by 8, full range and RGB are shifted only, so
    white is short of 65536 by that share. On the way back YUV of either range wants it by 8.
    """
    full = _is_rgb(frame.format) or range_of(frame) == ColorRange.JPEG
    bits = bits_of(frame) if full else 8
    np.minimum(picture, 65536 - (65536 >> bits), out=picture)
    picture += picture >> bits
    return picture


def _sixteen_bit(picture: NDArray[Any]) -> NDArray[Any]:
    """uint8 -> uint16, both with white at their largest number."""
    return picture.astype(np.uint16) * np.uint16(257)


def _eight_bit(picture: NDArray[Any]) -> NDArray[Any]:
    """uint16 -> uint8, rounded to nearest: the inverse of `_sixteen_bit`."""
    eight: NDArray[Any] = ((picture - (picture >> 8) + 128) >> 8).astype(np.uint8)
    return eight


def rgb_from_frame(frame: VideoFrame, depth: int) -> NDArray[Any]:
    """Decoded frame -> RGB (H, W, 3); for one frame, see `ColourConverter.rgb_from_frame`."""
    return ColourConverter().rgb_from_frame(frame, depth)


def frame_from_rgb(picture: NDArray[Any], *, like: VideoFrame) -> VideoFrame:
    """RGB (H, W, 3) -> frame; for one frame, see `ColourConverter.frame_from_rgb`."""
    return ColourConverter().frame_from_rgb(picture, like=like)


def reformatted(frame: VideoFrame, pixel_format: str, like: VideoFrame) -> VideoFrame:
    """A frame in another format; for one frame, see `ColourConverter.reformatted`."""
    return ColourConverter().reformatted(frame, pixel_format, like)


class ColourConverter:
    """Converts the frames of one stream; swscale's tables are made once and kept.

    Each method may be called by one thread at a time, different methods by different threads.

    Args:
        siting: Where chroma lies, if the caller knows; by default what `siting_of` says of the
            first frame of each size and format.

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
        """Decoded frame -> RGB.

        Args:
            frame: Any format that swscale reads; never written to. Alpha is dropped.
            depth: Bits of the result: 8 or 16.

        Returns:
            A new array (H, W, 3), uint8 or uint16; white is 255 or 65535.

        Raises:
            VideoError: If the frame's matrix cannot be converted.
        """
        deep = bits_of(frame) > 8
        shown = _with_chroma(frame) if _is_limited_gray(frame) else frame
        planar = self._scaled("rgb", shown, "gbrp16le" if deep else "gbrp", frame)
        picture = np.empty((frame.height, frame.width, 3), np.uint16 if deep else np.uint8)
        for channel, plane in zip((1, 2, 0), plane_views(planar), strict=True):
            picture[..., channel] = plane
        if not deep:
            return picture if depth == 8 else _sixteen_bit(picture)
        picture = _stretched(picture, frame)
        return _eight_bit(picture) if depth == 8 else picture

    def frame_from_rgb(self, picture: NDArray[Any], *, like: VideoFrame) -> VideoFrame:
        """RGB -> a frame that stands beside `like` in one stream.

        Args:
            picture: (H, W, 3), uint8 or uint16, of the size of `like`; never written to.
            like: Gives format, matrix, range, siting and colour tags; never written to.

        Raises:
            VideoError: If the matrix of `like` cannot be converted.
        """
        bits = bits_of(like)
        if bits > 8:
            picture = picture if picture.dtype == np.uint16 else _sixteen_bit(picture)
            picture = picture - (picture >> (bits if _is_rgb(like.format) else 8))
        elif picture.dtype == np.uint16:
            picture = _eight_bit(picture)
        height, width = picture.shape[:2]
        planar = VideoFrame(width, height, "gbrp16le" if bits > 8 else "gbrp")
        for channel, plane in zip((1, 2, 0), plane_views(planar), strict=True):
            plane[:] = picture[..., channel]
        return self._from_rgb(planar, like)

    def reformatted(self, frame: VideoFrame, pixel_format: str, like: VideoFrame) -> VideoFrame:
        """A frame in another pixel format, through the matrix and the range of `like`.

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
        """Planar RGB -> the format of `like`, with a detour where swscale's way is biased."""
        bits = bits_of(like)
        if _is_limited_gray(like):
            made = VideoFrame(like.width, like.height, like.format.name)
            plane_views(made)[0][:] = plane_views(self._scaled("frame", planar, _GRAY[bits], like))[
                0
            ]
            return _tagged(made, like)
        name = like.format.name
        apart = _PLANAR.get(name, name)
        if apart in _DEEPER and range_of(like) == ColorRange.JPEG:
            made = _rounded(self._scaled("frame", planar, _DEEPER[apart], like), apart)
            made = made if apart == name else self._scaled("packed", made, name, like)
            return _tagged(made, like)
        return self._scaled("frame", planar, name, like)

    def _siting_like(self, like: VideoFrame) -> Siting:
        key = like.format.name, like.width, like.height
        if key not in self._sitings:
            self._sitings[key] = "left" if _is_rgb(like.format) else siting_of(like)
        return self._sitings[key]
