"""Converts frames to packed RGB for images, and to palettes for GIF."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from runtime.video.colour import ColourConverter
from runtime.video.planes import alpha_of, has_alpha
from runtime.video.reading.info import SourceInfo
from runtime.video.transparency import AlphaConverter

_SD_AND_HD = (1, 5, 6)
"""Primaries of BT.709 and BT.601, numbers of ITU-T H.273."""

_SDR = (1, 6, 13, 14, 15)
"""Transfer characteristics of BT.709, BT.601, sRGB and BT.2020 without HDR, as numbers of it."""


def needs_tags(like: SourceInfo) -> bool:
    """Whether the colours of a source are HDR or wide gamut; images without tags are sRGB."""
    # The primaries of sRGB are those of BT.709.
    return like.color_primaries not in (*_SD_AND_HD, 2) or like.color_trc not in (*_SDR, 2)


class RGBConverter:
    """Converts the frames of one stream to packed RGB of full range.

    Args:
        pixel_format: rgb24, rgba, bgra, rgb48be or rgba64be. With alpha, a frame that has none
            becomes opaque.
        like: Properties of the source. Frames of HDR and wide gamut are tagged with primaries and
            transfer.
    """

    def __init__(self, pixel_format: str, like: SourceInfo) -> None:
        self._colours = (like.color_primaries, like.color_trc) if needs_tags(like) else None
        self._format = pixel_format
        self._depth = VideoFormat(pixel_format).components[0].bits
        self._converter, self._alpha = ColourConverter(), AlphaConverter()

    def converted(self, frame: VideoFrame) -> VideoFrame:
        """Converts a decoded frame of any format that swscale reads; it is not changed.

        Raises:
            VideoError: If the frame's matrix cannot be converted.
        """
        pixels = self._converter.rgb_from_frame(self._alpha.without_alpha(frame), self._depth)
        if self._format.startswith("bgr"):
            pixels = pixels[..., ::-1]
        if has_alpha(self._format):
            pixels = np.dstack([pixels, alpha_of(frame, self._depth)])
        result = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=self._format)
        if self._colours is not None:
            result.color_primaries, result.color_trc = self._colours
        return result


class PaletteConverter:
    """Converts the frames of one stream to palettes of up to 255 colours and a transparent one.

    Each frame has its own palette, so that memory does not grow with the video, as it would with
    one palette for all. The error is diffused; pixels whose alpha is below half are transparent.
    """

    def __init__(self, like: SourceInfo) -> None:
        """Prepares for frames of the size of `like`."""
        self._rgb = RGBConverter("bgra", like)
        self._graph = _palette_graph(like.width, like.height)
        self._count = 0

    def converted(self, frame: VideoFrame) -> VideoFrame:
        """Converts a decoded frame of any format that swscale reads to pal8; it is not changed.

        Raises:
            VideoError: If the frame's matrix cannot be converted.
        """
        pixels = self._rgb.converted(frame)
        # The two inputs of paletteuse are matched by stamp.
        pixels.pts, pixels.time_base = self._count, Fraction(1)
        self._count += 1
        self._graph.push(pixels)
        result = self._graph.pull()
        if not isinstance(result, VideoFrame):
            raise TypeError(f"the filter graph gave a {type(result).__name__}")
        return result


def _palette_graph(width: int, height: int) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=width, height=height, format=VideoFormat("bgra"), time_base=Fraction(1)
    )
    split, sink = graph.add("split"), graph.add("buffersink")
    palette = graph.add("palettegen", stats_mode="single")
    mapped = graph.add("paletteuse", new="1", dither="sierra2_4a")
    source.link_to(split)
    split.link_to(palette, 0, 0)
    split.link_to(mapped, 1, 0)
    palette.link_to(mapped, 0, 1)
    mapped.link_to(sink)
    graph.configure()
    return graph
