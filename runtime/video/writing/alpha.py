"""Which outputs have an alpha channel, and the notes and tags for those that have none."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame

from runtime.video.planes import alpha_of, has_alpha, set_alpha
from runtime.video.reading.decoder import Decoder
from runtime.video.reading.info import SourceInfo

_TAG = "alpha_mode"
"""Matroska's tag for alpha in a second stream of VP8 or VP9, inside the packets of the first."""

_SIDE = 64
"""Width and height of the frame with which an encoder is tried."""

_OPAQUE = ("h264", "hevc", "av1")
"""Codecs whose alpha, where an encoder accepts it, most players do not show."""


@lru_cache
def keeps_alpha(
    encoder: str, options: tuple[tuple[str, str], ...], pixel_format: str, container: str
) -> bool:
    """Whether an encoder, in a container, keeps the alpha channel of frames.

    This function encodes and decodes a small frame to find out. Encoders also offer formats whose
    alpha they drop (NVENC's rgba), or with which they do not open; and in MP4, VP9 loses its alpha.

    Args:
        encoder: FFmpeg's name of the encoder.
        options: Names and values of its options.
        pixel_format: A format with alpha.
        container: FFmpeg's name of the container.
    """
    if av.Codec(encoder, "w").canonical_name in _OPAQUE:
        return False
    file = io.BytesIO()
    frame = VideoFrame(_SIDE, _SIDE, pixel_format)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    wanted = np.zeros((_SIDE, _SIDE), np.uint8)
    wanted[:, _SIDE // 2 :] = 255
    set_alpha(frame, wanted, 8)
    try:
        with av.open(file, "w", format=container) as output:
            stream: Any = output.add_stream(encoder, rate=25, options=dict(options))
            stream.width, stream.height, stream.pix_fmt = _SIDE, _SIDE, pixel_format
            output.mux([*stream.encode(frame), *stream.encode(None)])
        file.seek(0)
        with av.open(file, "r") as read:
            video = read.streams.video[0]
            decoder = Decoder(video)
            shown = [one for packet in read.demux(video) for one in decoder.decode(packet)]
    except (av.error.FFmpegError, OSError, ValueError, IndexError):
        return False
    difference = np.abs(alpha_of(shown[0], 8).astype(int) - wanted) if shown else 255
    return bool(np.mean(difference) < _SIDE)


def alpha_notes(like: SourceInfo, output: str | None = None) -> list[str]:
    """Notes for the user on an alpha channel that is lost; none if the source has none.

    Args:
        like: Properties of the source.
        output: What cannot store it; None if the user does not want it.
    """
    if not has_alpha(like.pixel_format):
        return []
    if output is None:
        return ["the alpha channel is not carried over"]
    return [
        f"the alpha channel is not carried over by {output}: choose codec vp9 (.webm, .mkv), ffv1 "
        "(.mkv) or prores (.mov, .mkv), or a folder of PNG images"
    ]


def without_alpha_tag(metadata: Mapping[str, str]) -> dict[str, str]:
    """The tags of a file or a track without the one that declares an alpha channel."""
    return {name: value for name, value in metadata.items() if name.lower() != _TAG}
