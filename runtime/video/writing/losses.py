"""Notes on what images, animated ones too, and Y4M do not store."""

from __future__ import annotations

from runtime.errors import counted
from runtime.video.reading.info import SourceInfo
from runtime.video.writing.alpha import alpha_notes
from runtime.video.writing.destination import Animation, Images
from runtime.video.writing.rgb import needs_tags
from runtime.video.writing.tracks import kept_metadata

_TECHNICAL = (
    "alpha_mode", "compatible_brands", "creation_time", "handler_name", "language", "major_brand",
    "minor_version", "timecode", "vendor_id",
)  # fmt: skip
"""Tags, in lower case, that describe the file rather than the video."""


def image_notes(like: SourceInfo, kind: Images | Animation, alpha: bool) -> list[str]:
    """Notes on what images and Y4M do not store of a source, apart from the pixel format.

    Args:
        like: Properties of the source.
        kind: The output.
        alpha: Whether the user wants the alpha channel of a source that has one.
    """
    notes = []
    if not alpha or kind == "Y4M":
        notes += alpha_notes(like, kind if alpha else None)
    if lost := _left_out(like):
        notes.append(f"not carried over by {kind}: {', '.join(lost)}")
    if like.rotation:
        notes.append(
            f"the source is rotated by {like.rotation} degrees, the frames in {kind} are not"
        )
    if like.hdr is not None:
        notes.append(f"{kind} does not carry over the HDR10 metadata")
    if not like.regular and kind in ("PNG", "Y4M"):
        notes.append(f"the frame rate of the source varies, that of {kind} is constant")
    if kind in ("GIF", "WebP") and needs_tags(like):
        notes.append(f"{kind} does not declare primaries and transfer: convert to sRGB first")
    tags = like.colorspace, like.color_primaries, like.color_trc
    if kind == "Y4M" and any(value != 2 for value in tags):
        notes.append("Y4M does not declare matrix, primaries and transfer: set them in the reader")
    # FFmpeg writes that of PNG upside down.
    if like.sample_aspect_ratio not in (None, 1) and kind != "GIF":
        notes.append(
            f"{kind} is written without the pixel aspect ratio, {like.sample_aspect_ratio}: set it "
            "in the reader"
        )
    return notes


def _left_out(like: SourceInfo) -> list[str]:
    """Tracks, chapters and tags of a source."""
    tags = {**kept_metadata(like.metadata), **kept_metadata(like.video_metadata)}
    names = sorted({name for name in tags if name.lower() not in _TECHNICAL})
    timecodes = {value for name, value in tags.items() if name.lower() == "timecode"}
    return [
        *map(str, like.tracks),
        *(f"the timecode {label}" for label in sorted(timecodes)),
        *([counted(len(like.chapters), "chapter")] if like.chapters else []),
        *([f"tags ({', '.join(names)})"] if names else []),
    ]
