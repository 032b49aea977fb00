"""Chooses encoder, encoder options and pixel format."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec.codec import find_best_pix_fmt_of_list
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from runtime.errors import VideoError
from runtime.video.colour import matrix_of, range_of
from runtime.video.planes import has_alpha
from runtime.video.reading.info import HDR10, SourceInfo
from runtime.video.transparency import without_alpha
from runtime.video.writing.alpha import alpha_notes, keeps_alpha
from runtime.video.writing.destination import container_of

_NAMES = {
    "h264": ("libx264",),
    "hevc": ("libx265",),
    "vp9": ("libvpx-vp9",),
    "av1": ("libsvtav1", "libaom-av1"),
    "ffv1": ("ffv1",),
    "prores": ("prores_ks",),
}
"""Codec -> its encoders; the first one that this FFmpeg has is used."""

_SITINGS = {"left": 0, "center": 1, "topleft": 2}
"""chroma_sample_loc_type of H.264 and HEVC."""


@dataclass(frozen=True)
class EncodeOptions:
    """How frames are encoded; None stands for a default that depends on source and file.

    Attributes:
        codec: h264, hevc, vp9, av1, ffv1, prores, or an encoder of FFmpeg. By default libx264,
            libx265 for PQ and HLG (players expect HDR in HEVC), libvpx-vp9 for .webm.
        quality: On the encoder's own scale: crf, cq, qp or global_quality.
        preset: A preset of the encoder: a name as "slow", or a number (cpu-used) for VP9 and AV1;
            for ProRes a profile.
        lossless: Whether to encode without loss.
        alpha: Whether to write the alpha channel of a source that has one, if encoder and container
            can store it.
    """

    codec: str | None = None
    quality: float | None = None
    preset: str | None = None
    lossless: bool = False
    alpha: bool = True


DEFAULT = EncodeOptions()


@dataclass(frozen=True)
class _Kind:
    """The options of an encoder, or of all hardware encoders of one vendor.

    Attributes:
        quality: Name of the option for a constant quality; None if there is none.
        default: Default value of that option.
        preset: Name of the option that trades speed for size; None if there is none.
        lossless: Options for lossless encoding; None if it is not supported.
        always: Options that are always set.
        even: Whether formats with halved chroma need an even size.
        most: Highest value for a constant quality; the lowest is 0.
    """

    quality: str | None = None
    default: str | None = None
    preset: str | None = None
    lossless: dict[str, str] | None = None
    always: dict[str, str] = field(default_factory=dict)
    even: bool = True
    most: int = 51


_KINDS = {
    "libx264": _Kind("crf", "16", "preset", {"qp": "0"}),
    "libx265": _Kind("crf", "16", "preset", {}),
    "libvpx-vp9": _Kind("crf", "16", "cpu-used", {"lossless": "1"}, {"row-mt": "1"}, False, 63),
    "libsvtav1": _Kind("crf", "20", "preset", even=False, most=63),
    "libaom-av1": _Kind(
        "crf", "16", "cpu-used", {"aom-params": "lossless=1"}, {"row-mt": "1"}, False, 63
    ),
    "ffv1": _Kind(lossless={}, always={"level": "3"}, even=False),
    "prores_ks": _Kind(preset="profile"),
    "_nvenc": _Kind("cq", "19", "preset", {"tune": "lossless"}, {"rc": "vbr"}),
    "_qsv": _Kind("global_quality", "19", "preset"),
    "_amf": _Kind("qp_i", "19", "quality", always={"rc": "cqp"}),
    "_videotoolbox": _Kind("global_quality", "65", most=100),
}
"""Name of an encoder, or suffix of the names of one vendor's hardware encoders -> its options."""

_ALPHA_OPTIONS = {name: {"auto-alt-ref": "0"} for name in ("libvpx", "libvpx-vp9")}
"""Options of encoders for frames with alpha. libvpx's hidden frames have none."""

_LAYOUTS = {
    "nv12": "yuv420p", "nv16": "yuv422p", "p010le": "yuv420p10le",
    **dict.fromkeys(("argb", "bgra", "abgr", "gbrap"), "rgba"),
    **dict.fromkeys(("rgba64be", "bgra64le", "bgra64be", "gbrap16le"), "rgba64le"),
}  # fmt: skip
"""Format -> another one that stores the same samples in another order."""

_QP2LAMBDA = 118
"""FF_QP2LAMBDA, FFmpeg's factor between qscale and global_quality."""


@dataclass(frozen=True)
class Encoding:
    """An encoder with its options.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        options: Options of the encoder, by name.
        pixel_format: FFmpeg's name of the format of the frames to encode.
        alpha: Whether alpha is encoded. Without, a format that has it is filled opaque.
        notes: Notes for the user on properties that are changed or lost.
    """

    encoder: str
    options: dict[str, str]
    pixel_format: str
    alpha: bool
    notes: list[str]


def encoding_for(like: SourceInfo, suffix: str, encode: EncodeOptions = DEFAULT) -> Encoding:
    """Chooses encoder, options and pixel format.

    Args:
        like: Properties of the source; depth, subsampling, colour and HDR metadata are preserved.
        suffix: Suffix of the file to write, as ".mp4".
        encode: The options of the caller.

    Raises:
        VideoError: If this FFmpeg has no such encoder, or the encoder does not support the options.
    """
    quality, preset, lossless = encode.quality, encode.preset, encode.lossless
    name = _encoder(encode.codec or _default(like, suffix))
    kind = _kind(name)
    options = dict(kind.always)
    if lossless:
        if kind.lossless is None or quality is not None:
            raise VideoError(
                f"{name} cannot be lossless with quality {quality}: leave quality out"
                if kind.lossless is not None
                else f"{name} cannot be lossless: choose libx264, libx265, libvpx-vp9 or ffv1"
            )
        options |= kind.lossless
    elif quality is not None and kind.quality is None:
        raise VideoError(f"{name} takes no quality: leave it out")
    elif quality is not None and not 0 <= quality <= kind.most:
        raise VideoError(f"quality is {quality:g}: {name} takes 0 to {kind.most}")
    elif kind.quality is not None:
        options |= _quality(name, kind, kind.default if quality is None else f"{quality:g}")
    if preset is not None:
        if kind.preset is None:
            raise VideoError(f"{name} takes no preset: leave it out")
        options[kind.preset] = preset
    options |= _parameters(name, like, lossless)
    notes: list[str] = []
    kept = without_alpha(like.pixel_format)
    found = None
    if encode.alpha and has_alpha(like.pixel_format):
        in_alpha = options | _ALPHA_OPTIONS.get(name, {})
        found = _format_with_alpha(name, kind, like, lossless, in_alpha, suffix)
    if found is not None:
        pixel_format, options, kept = found, in_alpha, like.pixel_format
    else:
        pixel_format = _pixel_format(name, kind, like, lossless)
        notes = alpha_notes(like, f"{name} in {suffix}" if encode.alpha else None)
    if not _same(pixel_format, kept):
        notes.append(
            f"pixel format: {pixel_format} in the output, {like.pixel_format} in the source"
        )
    if like.hdr is not None and not _carries_hdr(name):
        notes.append(f"{name} does not carry over the HDR10 metadata")
    elif like.hdr is not None and (like.hdr.primaries is None) != (like.hdr.luminance is None):
        lacks = "primaries" if like.hdr.primaries is None else "luminance"
        notes.append(f"the mastering display is not carried over, as its {lacks} is not declared")
    return Encoding(name, options, pixel_format, found is not None, notes)


def tag(context: Any, like: SourceInfo, pixel_format: str) -> None:
    """Sets the colour tags of a codec.

    Args:
        context: PyAV's codec context.
        like: Properties of the source.
        pixel_format: The format that is encoded; RGB sources that become YUV get the matrix and
            range of `runtime.video.colour`.
    """
    from_rgb = VideoFormat(like.pixel_format).is_rgb or VideoFormat(like.pixel_format).has_palette
    if from_rgb and not VideoFormat(pixel_format).is_rgb:
        sample = VideoFrame(like.width, like.height, "rgb24")
        context.colorspace, context.color_range = matrix_of(sample), range_of(sample)
    elif from_rgb:
        context.colorspace, context.color_range = 0, ColorRange.JPEG
    else:
        context.colorspace, context.color_range = like.colorspace, like.color_range
    context.color_primaries, context.color_trc = like.color_primaries, like.color_trc


def available() -> list[str]:
    """The encoders in `_KINDS` that this FFmpeg has; the hardware of some may still be missing."""
    vendors = [key for key in _KINDS if key[0] == "_"]
    hardware = [name + vendor for vendor in vendors for name in ("h264", "hevc", "av1")]
    return [name for name in [*_KINDS, *hardware] if name[0] != "_" and _is_encoder(name)]


def _default(like: SourceInfo, suffix: str) -> str:
    if suffix == ".webm":
        return "vp9"
    return "hevc" if like.is_hdr else "h264"


def _encoder(codec: str) -> str:
    found = next((name for name in _NAMES.get(codec, (codec,)) if _is_encoder(name)), None)
    if found is None:
        raise VideoError(
            f"there is no encoder {codec!r} in this FFmpeg: choose one of {', '.join(available())}"
        )
    return found


def _is_encoder(name: str) -> bool:
    try:
        return av.Codec(name, "w").type == "video"
    except av.codec.codec.UnknownCodecError:
        return False


def _kind(name: str) -> _Kind:
    return _KINDS.get(name) or _KINDS.get(f"_{name.rpartition('_')[2]}") or _Kind()


def _quality(name: str, kind: _Kind, value: str | None) -> dict[str, str]:
    if kind.quality is None or value is None:
        return {}
    if name.endswith("_videotoolbox"):
        return {"flags": "+qscale", kind.quality: f"{float(value) * _QP2LAMBDA:.0f}"}
    if name.endswith("_amf"):
        return {"qp_i": value, "qp_p": value}
    return {kind.quality: value}


def _carries_hdr(name: str) -> bool:
    return name in ("libx264", "libx265", "libsvtav1")


def _parameters(name: str, like: SourceInfo, lossless: bool) -> dict[str, str]:
    """Options of the library behind an encoder, which PyAV can only set as one string."""
    pairs: dict[str, str] = {}
    siting = None if like.siting is None else str(_SITINGS[like.siting])
    if name == "libx264":
        if siting not in (None, "0"):
            pairs["chromaloc"] = siting or ""
        pairs |= _hdr_pairs(like.hdr, "mastering-display", "cll")
        return _joined("x264-params", pairs)
    if name == "libx265":
        pairs["log-level"] = "error"
        if lossless:
            pairs["lossless"] = "1"
        if siting not in (None, "0"):
            pairs["chromaloc"] = siting or ""
        pairs |= _hdr_pairs(like.hdr, "master-display", "max-cll")
        if like.hdr is not None:
            pairs |= {"hdr10": "1", "repeat-headers": "1"}
        return _joined("x265-params", pairs)
    if name == "libsvtav1":
        return _joined("svtav1-params", _hdr_pairs(like.hdr, "mastering-display", "content-light"))
    return {}


def _joined(option: str, pairs: dict[str, str]) -> dict[str, str]:
    return {option: ":".join(f"{k}={v}" for k, v in pairs.items())} if pairs else {}


def _hdr_pairs(hdr: HDR10 | None, mastering: str, light: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    if hdr is None:
        return pairs
    if hdr.primaries is not None and hdr.luminance is not None:
        # In the units of the bitstream, 1/50000 and 1/10000 cd/m2; SVT-AV1 expects plain numbers.
        plain = light == "content-light"
        xy = [_unit(value, 1 if plain else 50_000) for value in hdr.primaries]
        dark, bright = (_unit(value, 1 if plain else 10_000) for value in hdr.luminance)
        red, green, blue, white = (f"({x},{y})" for x, y in zip(xy[::2], xy[1::2], strict=True))
        pairs[mastering] = f"G{green}B{blue}R{red}WP{white}L({bright},{dark})"
    if hdr.light is not None:
        pairs[light] = f"{hdr.light[0]},{hdr.light[1]}"
    return pairs


def _unit(value: Fraction, unit: int) -> str:
    return f"{float(value):.6f}" if unit == 1 else str(round(value * unit))


def _pixel_format(name: str, kind: _Kind, like: SourceInfo, lossless: bool) -> str:
    """The pixel format nearest to the source's without alpha, of those that the encoder accepts."""
    offered = _offered(name)
    if not offered:
        return without_alpha(like.pixel_format)
    # If all have alpha, frames are written opaque.
    names = [n for n in offered if not has_alpha(n)] or offered
    return _nearest(names, kind, like, _wanted(like, lossless, names, alpha=False))


def _format_with_alpha(
    name: str, kind: _Kind, like: SourceInfo, lossless: bool, options: dict[str, str], suffix: str
) -> str | None:
    """The nearest pixel format with which alpha is kept; None where it is not kept."""
    container = container_of(Path(f"output{suffix}"))
    least = min(len(VideoFormat(like.pixel_format).components), 4)
    names = [n for n in _offered(name) or [like.pixel_format] if has_alpha(n)]
    names = [n for n in names if len(VideoFormat(n).components) >= least]
    while names:
        best = _nearest(names, kind, like, _wanted(like, lossless, names, alpha=True))
        if keeps_alpha(name, tuple(options.items()), best, container):
            return best
        names.remove(best)
    return None


def _offered(name: str) -> list[str]:
    """The pixel formats that an encoder accepts; an empty list where it accepts all.

    Without the mosaics of camera sensors, which FFV1 of FFmpeg 9 accepts but not for video.
    """
    formats = av.Codec(name, "w").video_formats or []
    return [f.name for f in formats if f.components and not f.name.startswith("bayer")]


def _nearest(names: list[str], kind: _Kind, like: SourceInfo, wanted: str) -> str:
    """The one of several pixel formats that is nearest to the wanted one."""
    if kind.even and _is_odd(like, wanted):
        names = [n for n in names if not _is_odd(like, n)] or names
        wanted = _without_subsampling(wanted)
    if wanted in names:
        return wanted
    if wanted.startswith("yuvj") and wanted.replace("yuvj", "yuv") in names:
        return wanted.replace("yuvj", "yuv")
    best, _ = find_best_pix_fmt_of_list(names, wanted, has_alpha(wanted))
    assert best is not None
    return best.name


def _wanted(like: SourceInfo, lossless: bool, offered: list[str], *, alpha: bool) -> str:
    """The source's format, with or without alpha; for RGB, YUV with halved chroma unless lossless.

    Many players show no other YUV format.
    """
    form = VideoFormat(like.pixel_format)
    if not (form.is_rgb or form.has_palette):
        return like.pixel_format if alpha else without_alpha(like.pixel_format)
    yuv, deep = "yuva" if alpha else "yuv", "10le" if like.bits > 8 else ""
    if not lossless:
        return f"{yuv}420p{deep}"
    same = [n for n in offered if VideoFormat(n).is_rgb and _bits(n) == max(like.bits, 8)]
    return same[0] if same else f"{yuv}444p{deep}"


def _bits(name: str) -> int:
    return VideoFormat(name).components[0].bits


def _is_odd(like: SourceInfo, name: str) -> bool:
    form = VideoFormat(name, like.width, like.height)
    if form.is_rgb or len(form.components) < 3:
        return False
    halves = form.components[1]
    return (like.width % 2 == 1 and halves.width < like.width) or (
        like.height % 2 == 1 and halves.height < like.height
    )


def _without_subsampling(name: str) -> str:
    """The name of the format with chroma of full size."""
    for halved in ("420", "422"):
        name = name.replace(halved, "444")
    return name


def _same(one: str, other: str) -> bool:
    """Whether two formats store the same samples; plane layout and range may differ."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    return _LAYOUTS.get(name, name).replace("yuvj", "yuv")
