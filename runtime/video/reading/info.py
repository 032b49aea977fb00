"""What is known of a video before its frames are used: size, colour, times, tracks."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from av.video.frame import VideoFrame

from runtime.video.colour import Siting, range_of, siting_of


class DecodedFrame(NamedTuple):
    """A decoded frame with its stamp as FFmpeg gives it, see `runtime.video.clock.Clock`.

    Attributes:
        picture: As decoded.
        pts: In ticks; None where the file does not say.
        time_base: The tick, in seconds.
    """

    picture: VideoFrame
    pts: int | None
    time_base: Fraction


@dataclass(frozen=True)
class Track:
    """A track beside the video.

    Attributes:
        index: Of the stream in the file.
        kind: "audio", "subtitle", "data", "attachment" or "video".
        codec: FFmpeg's name of it.
        language: ISO 639 where it is said.
        stream: PyAV's stream; good for as long as the source is open.
    """

    index: int
    kind: str
    codec: str
    language: str | None
    stream: Any

    def __str__(self) -> str:
        language = f", {self.language}" if self.language else ""
        return f"{self.kind} track {self.index} ({self.codec}{language})"


@dataclass(frozen=True)
class HDR10:
    """Static HDR metadata (SMPTE ST 2086 and CTA-861.3).

    Attributes:
        primaries: x and y of red, green, blue and the white point of the mastering display.
        luminance: Its darkest and brightest, in cd/m2.
        light: Brightest pixel and brightest frame average (MaxCLL, MaxFALL), in cd/m2.
    """

    primaries: tuple[Fraction, ...] | None
    luminance: tuple[Fraction, Fraction] | None
    light: tuple[int, int] | None


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source once its first frames are decoded.

    Attributes:
        name: For messages.
        width: Of a frame, before rotation.
        height: Of a frame, before rotation.
        pixel_format: FFmpeg's name.
        bits: A sample of the first plane.
        rate: Nominal frames a second.
        time_base: The tick of video stamps, in seconds.
        origin: The stamp, in seconds, that is the output's 0: the smallest start among the
            tracks, so that they stay in step; with `start`, that much after it.
        duration: Seconds, where it is known, of the part between start and end.
        frames: How many the container says there are; None where it does not or in a part.
        end: The stamp, in seconds, at which to stop; None for all.
        sample_aspect_ratio: Width over height of a pixel; None where it is not said.
        rotation: Degrees counter-clockwise at which to show a frame.
        display_matrix: The 9 numbers behind `rotation` (mirroring included), as FFmpeg has them.
        color_primaries: Numbers of ITU-T H.273, as those of the transfer and the matrix; 2 is
            unspecified.
        color_trc: The transfer characteristic.
        colorspace: The matrix.
        color_range: FFmpeg's number: 1 limited, 2 full, 0 unspecified.
        siting: Where chroma lies; None for RGB and without subsampling.
        hdr: None where there is nothing.
        metadata: Of the container.
        video_metadata: Of the video track.
        chapters: As PyAV gives them; their stamps are those of the source.
        tracks: Audio and subtitle tracks whose packets the source gives.
        dropped: Tracks that it does not.
    """

    name: str
    width: int
    height: int
    pixel_format: str
    bits: int
    rate: Fraction
    time_base: Fraction
    origin: Fraction
    duration: Fraction | None
    frames: int | None
    end: Fraction | None
    sample_aspect_ratio: Fraction | None
    rotation: int
    display_matrix: tuple[int, ...] | None
    color_primaries: int
    color_trc: int
    colorspace: int
    color_range: int
    siting: Siting | None
    hdr: HDR10 | None
    metadata: dict[str, str]
    video_metadata: dict[str, str]
    chapters: list[dict[str, Any]]
    tracks: tuple[Track, ...]
    dropped: tuple[Track, ...]

    @property
    def is_hdr(self) -> bool:
        """Whether the transfer is PQ or HLG."""
        return self.color_trc in (16, 18)


def picture_facts(frame: VideoFrame) -> dict[str, Any]:
    """What the first frame says of all: the fields of `SourceInfo` from width to hdr."""
    form = frame.format
    halved = len(form.components) >= 3 and form.components[1].width < form.width
    return {
        "width": frame.width,
        "height": frame.height,
        "pixel_format": form.name,
        "bits": form.components[0].bits,
        "rotation": frame.rotation,
        "display_matrix": _display_matrix(frame),
        "color_primaries": int(frame.color_primaries),
        "color_trc": int(frame.color_trc),
        "colorspace": int(frame.colorspace),
        "color_range": int(range_of(frame))
        if form.name.startswith("yuvj")
        else int(frame.color_range),
        "siting": siting_of(frame) if halved and not form.is_rgb else None,
        "hdr": _hdr10(frame),
    }


_DYNAMIC = {
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DOVI_METADATA": "Dolby Vision",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
}
"""By FFmpeg's name: metadata that differs from frame to frame, which no encoder is handed."""


def picture_notes(frame: VideoFrame) -> list[str]:
    """What of the first frame is not kept, or not understood."""
    notes = []
    dynamic = [_DYNAMIC[name] for name in _side_data(frame) if name in _DYNAMIC]
    if dynamic:
        notes.append(f"not carried over: the dynamic metadata of {' and '.join(dynamic)}")
    if frame.interlaced_frame:
        notes.append("interlaced frames are taken for progressive ones: deinterlace them first")
    return notes


def _side_data(frame: VideoFrame) -> dict[str, bytes]:
    """The side data of a frame by FFmpeg's name of its type; of two of one type, the last.

    Iterating over PyAV's container gives the entries up to version 18, and their types from 19 on.
    Looking one up by its type works in all of them.
    """
    held: Any = frame.side_data
    types = [getattr(entry, "type", entry) for entry in held]
    return {kind.name: bytes(held[kind]) for kind in types}


def _display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    data = _side_data(frame).get("DISPLAYMATRIX")
    return None if data is None else struct.unpack("=9i", data[:36])


def _hdr10(frame: VideoFrame) -> HDR10 | None:
    """Reads AVMasteringDisplayMetadata (libavutil) and AVContentLightMetadata."""
    held = _side_data(frame)
    mastering, light = (
        held.get(kind) for kind in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")
    )
    if mastering is None and light is None:
        return None
    primaries = luminance = None
    if mastering is not None:
        *numbers, has_primaries, has_luminance = struct.unpack("=22i", mastering[:88])
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        values = tuple(Fraction(top, bottom or 1) for top, bottom in pairs)
        primaries = values[:8] if has_primaries else None
        luminance = (values[8], values[9]) if has_luminance else None
    levels = None if light is None else struct.unpack("=2I", light[:8])
    return HDR10(primaries, luminance, levels)


def reason(error: Exception) -> str:
    """What the system or FFmpeg says of an error."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
