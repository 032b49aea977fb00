"""Advice for the user where an encoder does not open."""

from __future__ import annotations

from fractions import Fraction

_HARDWARE = {
    "nvenc": "an NVIDIA GPU with its driver",
    "qsv": "an Intel GPU with its driver",
    "amf": "an AMD GPU with its driver",
    "v4l2m2m": "a video encoder of Linux (V4L2)",
    "mf": "Windows",
    "videotoolbox": "a Mac",
}
"""Last part of the names of encoders -> what they need."""

_GPU_FRAMES = ("vaapi", "vulkan")
"""Last part of the names of encoders that take frames in GPU memory only."""

_SOFTWARE = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1", "vp9": "libvpx-vp9"}
"""First part of the names of hardware encoders -> the encoder that needs no hardware."""

_SVT_RATE = 240
"""The most frames a second that SVT-AV1 takes."""


def opening_advice(encoder: str, rate: Fraction) -> str:
    """What to do where an encoder does not open; the end of an error message.

    Args:
        encoder: FFmpeg's name of the encoder.
        rate: Frames a second of the output.
    """
    codec, _, kind = encoder.rpartition("_")
    software = _SOFTWARE.get(codec, "a software encoder")
    if codec and kind in _GPU_FRAMES:
        return f"it takes frames in GPU memory, which is not supported, so choose {software}"
    if codec and kind in _HARDWARE:
        return f"it needs {_HARDWARE[kind]}, so check that and its preset, or choose {software}"
    if encoder == "libsvtav1" and rate > _SVT_RATE:
        return f"it takes {_SVT_RATE} frames a second at most, so choose h264, hevc or a lower rate"
    return "check its preset and quality"
