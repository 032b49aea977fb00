"""Chooses encoder, options and pixel format of animated GIF, APNG and WebP."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from runtime.errors import VideoError
from runtime.video.planes import has_alpha
from runtime.video.reading.info import SourceInfo
from runtime.video.timing.timeline import output_time_base
from runtime.video.writing.destination import animation_of
from runtime.video.writing.encoding import DEFAULT, EncodeOptions, Encoding, encoding_for
from runtime.video.writing.losses import image_notes

_TICKS = {"GIF": 100, "WebP": 1000}
"""Kind -> ticks a second of its durations. Those of APNG are fractions."""

_GIF_RATE = 50
"""Frames a second above which players show GIF slowly: they take 10 ms for 100 ms."""

_WEBP_QUALITY = 90


def encoding_of(
    like: SourceInfo, path: Path, rate: Fraction, encode: EncodeOptions = DEFAULT
) -> Encoding:
    """Chooses encoder, options and pixel format of a video file or an animated image.

    Args:
        like: Properties of the source.
        path: The file to write.
        rate: Nominal frames a second of the output.
        encode: The options of the caller.

    Raises:
        VideoError: If there is no such encoder, or the options or the rate are not possible.
    """
    kind = animation_of(path)
    if kind is None:
        return encoding_for(like, path.suffix.lower(), encode)
    check_choice(kind, encode, ("codec",) if kind == "WebP" else ("codec", "quality", "preset"))
    alpha = encode.alpha and has_alpha(like.pixel_format)
    # Each track has a note of its own.
    notes = image_notes(replace(like, tracks=()), kind, encode.alpha)
    notes += _rate_notes(kind, rate)
    if alpha and kind == "GIF":
        notes.append("GIF has alpha of one bit: pixels below half are transparent, others opaque")
    options: dict[str, str] = {}
    if kind == "GIF":
        encoder, pixel_format = "gif", "pal8"
        if encode.lossless:
            raise VideoError(f"{kind} cannot be lossless: write .apng or .webp")
    elif kind == "APNG":
        names = ("rgba", "rgba64be") if alpha else ("rgb24", "rgb48be")
        encoder, pixel_format = "apng", names[like.bits > 8]
        options["pred"] = "mixed"
    else:
        encoder, pixel_format = "libwebp_anim", "bgra"
        options = _webp_options(encoder, encode)
    if like.bits > 8 and kind != "APNG":
        notes.append(f"{kind} has 8 of the {like.bits} bits of the source: .apng keeps them")
    return Encoding(encoder, options, pixel_format, alpha, notes)


def tick_of(path: Path, rate: Fraction) -> Fraction:
    """The unit, in seconds, to which the times of a file are rounded."""
    ticks = _TICKS.get(animation_of(path) or "")
    return Fraction(1, ticks) if ticks else output_time_base(rate)


def check_choice(
    kind: str, encode: EncodeOptions, names: tuple[str, ...] = ("codec", "quality", "preset")
) -> None:
    """Checks that options are not set which an output of images does not take.

    Args:
        kind: Name of the output, for the message.
        encode: The options of the caller.
        names: The attributes of `encode` that must be None.

    Raises:
        VideoError: If one is set.
    """
    given = [name for name in names if getattr(encode, name) is not None]
    if given:
        raise VideoError(f"{kind} takes no {' or '.join(given)}: leave it out")


def _rate_notes(kind: str, rate: Fraction) -> list[str]:
    """A note on a rate that players show slowly.

    Raises:
        VideoError: If several frames would have the same time.
    """
    if kind in _TICKS and rate > _TICKS[kind]:
        raise VideoError(
            f"{kind} has {_TICKS[kind]} frames a second at most, and the rate is "
            f"{float(rate):.6g}: give a lower rate, or write .apng"
        )
    if kind == "GIF" and rate > _GIF_RATE:
        return [
            f"at {float(rate):.6g} frames a second some frames last 10 ms, which players show for "
            f"100 ms: give --rate {_GIF_RATE} or less, or write .webp or .apng"
        ]
    return []


def _webp_options(encoder: str, encode: EncodeOptions) -> dict[str, str]:
    quality = encode.quality
    if encode.lossless and quality is not None:
        raise VideoError(f"{encoder} cannot be lossless with quality {quality}: leave quality out")
    if quality is not None and not 0 <= quality <= 100:
        raise VideoError(f"quality is {quality:g}: WebP takes 0 to 100")
    options = {"quality": f"{_WEBP_QUALITY if quality is None else quality:g}"}
    if encode.lossless:
        options = {"lossless": "1"}
    if encode.preset is not None:
        if encode.preset not in tuple("0123456"):
            raise VideoError(f"preset is {encode.preset!r}: WebP takes 0 (fast) to 6 (small)")
        options["compression_level"] = encode.preset
    return options
