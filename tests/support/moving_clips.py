"""Writes clips of a scene with known motion, and decodes clips."""

from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame

from export.gate.cases import moving_frames

RATE = Fraction(30000, 1001)


def write_clip(
    path,
    count=5,
    *,
    size=(64, 80),
    rate=RATE,
    stamps=None,
    audio=False,
    pix_fmt="yuv420p",
    tags=(),
    rotation=0,
    codec=None,
    options=None,
):
    """Writes a clip of a scene that moves 4 pixels a frame; returns its path.

    `stamps` are the times of the frames, in units of 1 / `rate`; 0, 1, 2 ... if left out.
    """
    height, width = size
    ground, _ = moving_frames(height, width + 4 * count, 2.0)
    codec = codec or ("libvpx-vp9" if path.suffix == ".webm" else "libx264")
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = pix_fmt
        for name, value in dict(tags).items():
            setattr(stream.codec_context, name, value)
        stream.codec_context.time_base = 1 / rate
        if rotation:
            stream.set_display_rotation(rotation)
        sound = out.add_stream("aac", rate=48000) if audio else None
        for k in range(count):
            picture = np.ascontiguousarray(ground[:, 4 * k : 4 * k + width])
            frame = VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = k if stamps is None else stamps[k]
            frame.time_base = 1 / rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(
                np.zeros((2, 1024), np.float32), format="fltp", layout="stereo"
            )
            silence.sample_rate = 48000
            out.mux(sound.encode(silence))
            out.mux(sound.encode(None))
    return path


def read_clip(path):
    with av.open(str(path)) as clip:
        stream = clip.streams.video[0]
        frames = list(clip.decode(stream))
        times = [frame.pts * Fraction(stream.time_base) for frame in frames]
        return frames, times, Fraction(stream.guessed_rate)
