"""Properties of a source: size, colour, times, tracks and metadata."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from av.video.frame import VideoFrame

from runtime.video.colour import Siting, range_of, siting_of
from runtime.video.planes import is_transparent

MAXIMUM_PIXELS = 1 << 27
"""Limit of the pixels of a frame: 16K (15360x8640) fits. A file can declare a billion in a line."""

DECODER_OPTIONS = {"max_pixels": str(MAXIMUM_PIXELS)}
"""Options of every decoder of pictures; one that sets no limit allocates what a file declares."""


class DecodedFrame(NamedTuple):
    """A decoded frame with its stamp from FFmpeg, which may be missing, or lower than the last.

    Attributes:
        frame: The frame in the format of the source.
        pts: Stamp, in ticks; None where the file has none.
        time_base: The tick, in seconds.
    """

    frame: VideoFrame
    pts: int | None
    time_base: Fraction


@dataclass(frozen=True)
class Track:
    """A track other than the video.

    Attributes:
        index: Index of the stream in the file.
        kind: "audio", "subtitle", "data", "attachment" or "video".
        codec: FFmpeg's name of the codec.
        language: ISO 639 code; None where the file does not declare it.
        stream: PyAV's stream; valid while the source is open.
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
        luminance: Minimum and maximum of the mastering display, in cd/m2.
        light: Brightest pixel and brightest frame average (MaxCLL, MaxFALL), in cd/m2.
    """

    primaries: tuple[Fraction, ...] | None
    luminance: tuple[Fraction, Fraction] | None
    light: tuple[int, int] | None


@dataclass(frozen=True)
class SourceInfo:
    """Properties of a source, read when its first frames are decoded.

    Attributes:
        name: Name for messages.
        width: Width of a frame in pixels, before rotation.
        height: Height of a frame in pixels, before rotation.
        pixel_format: FFmpeg's name of the pixel format; bgra for a palette with a colour that is
            not opaque.
        bits: Number of bits of a sample of the first plane.
        rate: Nominal frames a second.
        stored_rate: The same of the frames in the file, before they are deinterlaced.
        regular: Whether the first stamps are those of a constant rate, rounded by the file.
        time_base: The tick of video stamps, in seconds.
        stored_tick: The same of the stamps in the file, before frames are deinterlaced.
        origin: The stamp, in seconds, that is time 0 of the output: the start of the part or,
            without a start, the smallest first stamp of all tracks, so that they stay in step.
        beginning: The smallest first stamp of all tracks, in seconds; `origin` without a start.
        first: The stamp, in seconds, of the first frame of the whole track, as the file declares
            it, else of the first frame that is read.
        duration: Duration of the part to read, in seconds; None where it is not known.
        frames: Number of frames that the container declares; None where it does not, and for a
            part.
        end: The stamp, in seconds, at which to stop; None for the end.
        sample_aspect_ratio: Width over height of a pixel; None where it is not declared.
        rotation: Degrees counter-clockwise by which a frame is rotated for display.
        display_matrix: The 9 numbers of FFmpeg's display matrix, which also has mirroring; None
            where there is none.
        color_primaries: Colour primaries, a number of ITU-T H.273; 2 is unspecified.
        color_trc: Transfer characteristic, a number of ITU-T H.273; 2 is unspecified.
        colorspace: Matrix, a number of ITU-T H.273; 2 is unspecified.
        color_range: FFmpeg's number: 1 limited, 2 full, 0 unspecified.
        siting: Chroma siting; None for RGB and without subsampling.
        hdr: Static HDR metadata; None without.
        metadata: Tags of the container.
        video_metadata: Tags of the video track.
        chapters: Chapters as PyAV returns them, with the stamps of the source.
        tracks: Audio and subtitle tracks, whose packets the source yields.
        dropped: Other tracks, whose packets it does not yield.
    """

    name: str
    width: int
    height: int
    pixel_format: str
    bits: int
    rate: Fraction
    stored_rate: Fraction
    regular: bool
    time_base: Fraction
    stored_tick: Fraction
    origin: Fraction
    beginning: Fraction
    first: Fraction
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
    def rounding(self) -> Fraction:
        """The tick to which the file rounds the stamps of a constant rate, in seconds, else 0."""
        return self.stored_tick if self.regular else Fraction(0)

    @property
    def is_hdr(self) -> bool:
        """Whether the transfer is PQ or HLG."""
        return self.color_trc in (16, 18)

    @property
    def timecode_tracks(self) -> list[Track]:
        """The tracks in `dropped` whose content FFmpeg also reads as a tag of the video."""
        label = self.video_metadata.get("timecode")
        return [
            track
            for track in self.dropped
            if track.kind == "data"
            and label is not None
            and track.stream.metadata.get("timecode") == label
        ]


def frame_properties(frame: VideoFrame) -> dict[str, Any]:
    """The fields of `SourceInfo` that the first frame determines."""
    form = frame.format
    halved = len(form.components) >= 3 and form.components[1].width < form.width
    return pixel_properties(frame) | {
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


def pixel_properties(frame: VideoFrame) -> dict[str, Any]:
    """The fields of `SourceInfo` on the size and the format of the first frame.

    A palette with a colour that is not opaque counts as bgra, to which it is converted.
    """
    form = frame.format
    return {
        "width": frame.width,
        "height": frame.height,
        "pixel_format": "bgra" if is_transparent(frame) and form.has_palette else form.name,
        "bits": form.components[0].bits,
    }


_DYNAMIC = {
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DOVI_METADATA": "Dolby Vision",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
}
"""FFmpeg's name -> display name, of per-frame metadata, which is not passed to encoders."""


INTERLACED = (
    "interlaced, and processed like progressive ones: use --deinterlace frame, --deinterlace field "
    "for twice the frame rate, or --deinterlace film for telecined film"
)
"""End of a note on interlaced frames."""

PULLDOWN = (
    "the frames are those of film, shown for two and three fields in turn: use --deinterlace film "
    "to show them at equal distances"
)
"""Note on film with the times of 3:2 pulldown."""


def frame_notes(frame: VideoFrame) -> list[str]:
    """Notes for the user on properties of the first frame that are not preserved."""
    notes = []
    dynamic = [_DYNAMIC[name] for name in _side_data(frame) if name in _DYNAMIC]
    if dynamic:
        notes.append(f"not carried over: the dynamic metadata of {' and '.join(dynamic)}")
    return notes


def _side_data(frame: VideoFrame) -> dict[str, bytes]:
    """FFmpeg's name of a type -> side data of a frame; of two entries of one type, the last.

    Iterating over PyAV's container yields entries up to version 18 and types from version 19 on.
    Access by type works in all versions.
    """
    container: Any = frame.side_data
    types = [getattr(entry, "type", entry) for entry in container]
    return {kind.name: bytes(container[kind]) for kind in types}


def _display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    data = _side_data(frame).get("DISPLAYMATRIX")
    return None if data is None else struct.unpack("=9i", data[:36])


def _hdr10(frame: VideoFrame) -> HDR10 | None:
    """Parses AVMasteringDisplayMetadata and AVContentLightMetadata of libavutil."""
    data = _side_data(frame)
    mastering, light = (
        data.get(kind) for kind in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")
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
    """The message of an exception of FFmpeg or of the system, without number and path."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
