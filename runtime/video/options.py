"""`VideoOptions`, `Plan` and `VideoReport`: how a video is interpolated, and the result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Literal, get_args

from runtime.errors import VideoError, kind_of
from runtime.timesteps import as_float
from runtime.video.mask import Mask, MaskSource, as_mask, check_mask
from runtime.video.rates import MAXIMUM_RATE, Number, as_rate, as_seconds
from runtime.video.reading.demux import Part
from runtime.video.reading.filters import Deinterlace
from runtime.video.reading.info import SourceInfo
from runtime.video.reading.rate import DEFAULT_RATE
from runtime.video.scenes import CUT_THRESHOLD, SceneDetector, check_threshold, read_cut_list
from runtime.video.timing.timeline import Mode
from runtime.video.transparency import AlphaMode
from runtime.video.writing.encoding import EncodeOptions
from runtime.video.writing.tracks import AudioMode

CutPolicy = Literal["hold", "blend"]
"""What is shown between the frames before and after a cut: the first of them, or a mix of both."""

_LONGEST_GAP = Fraction(1)
_LONGEST_GAP_FRAMES = 3
"""The longest gap by default: seconds, or frames of the nominal rate if these are longer."""


@dataclass(frozen=True)
class VideoOptions:
    """How a video is read, cut and written.

    Attributes:
        video_stream: Index of the video track; None for FFmpeg's choice.
        start: Where to begin, in seconds after the beginning, as a number or as text ("90.5",
            "1:30.5"); None for the beginning. Stored as a Fraction.
        end: Where to stop, in the same form; None for the end.
        strict: Whether a damaged or truncated file is an error; otherwise damage is skipped.
        cuts: Lowest score of a scene cut, above 0 and up to 100 (percent of full scale), by default
            6. No frame is interpolated across a cut. None: cuts are not detected.
        cut_list: Cuts that are known, in place of detection: times in seconds after the first frame
            of the video, or a file with them (the CSV of PySceneDetect's list-scenes, or a time in
            each line). Stored as a tuple of Fractions.
        cut_policy: What is shown between the frames before and after a cut: "hold" for the first of
            them, "blend" for a linear mix.
        dedupe: Whether to replace frames that repeat the previous one by new frames.
        longest_gap: In a longer gap between two frames, in seconds, the first one is held, since
            the screen was still or the recording stood. "auto": 1 second, or three frames of the
            nominal rate if that is longer. None: every gap is interpolated. A number or text is
            stored as a Fraction.
        mask: Where new frames show the nearest real frame: an image file, white for the real frame
            and black for the new one, or an array (H, W), uint8 or bool, of the size at which the
            video is shown. Stored as a Mask. None: nowhere.
        deinterlace: "frame" for one frame for each interlaced one, "field" for one for each of its
            fields, at twice the rate; progressive frames pass unchanged. "film" restores telecined
            film: four progressive frames for five. None: interlaced frames are processed like
            progressive ones.
        picture_rate: Frames a second of a folder of images, by default 25; a number, or text as
            "59.94" or "60000/1001". Stored as a Fraction.
        codec: h264, hevc, vp9, av1, ffv1, prores, or the name of an encoder of FFmpeg. None: hevc
            for HDR, vp9 for .webm, otherwise h264. Animated images (.gif, .apng, .webp) take none.
        keep_vfr: Whether a variable rate stays variable if a factor is given; otherwise the output
            has the constant rate of the nominal rate times the factor. Without effect if a rate is
            given, and for images and Y4M, which are constant.
        quality: Quality on the encoder's own scale (crf, cq, qp); None for the default.
        preset: Preset of the encoder; None for the default.
        lossless: Whether to encode without loss.
        audio: "copy" for copied packets, "aac" to encode, "none" for no audio.
        alpha: The alpha channel of new frames, where source and output have one: "interpolate" by
            the model, "blend" for a linear mix, "none" for an output without alpha.
        overwrite: Whether an output that exists is replaced when the new one is complete; otherwise
            it is an error. A folder is replaced only if it has images with the names of the output
            and nothing else.

    Raises:
        VideoError: If a value is of another type, or `cuts` is out of range.
    """

    video_stream: int | None = None
    start: Number | None = None
    end: Number | None = None
    strict: bool = False
    cuts: float | None = CUT_THRESHOLD
    cut_list: str | Path | Sequence[Number] | None = None
    cut_policy: CutPolicy = "hold"
    dedupe: bool = False
    longest_gap: Number | Literal["auto"] | None = "auto"
    mask: MaskSource | None = None
    deinterlace: Deinterlace | None = None
    picture_rate: Number = DEFAULT_RATE
    keep_vfr: bool = True
    codec: str | None = None
    quality: float | None = None
    preset: str | None = None
    lossless: bool = False
    audio: AudioMode = "copy"
    alpha: AlphaMode = "interpolate"
    overwrite: bool = field(default=False, repr=False)  # The repr identifies equal frames.

    def __post_init__(self) -> None:
        _check_types(self)
        for name in ("start", "end"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, as_seconds(value, name))
        if self.cut_list is not None:
            object.__setattr__(self, "cut_list", _cut_times(self.cut_list))
        if self.mask is not None:
            object.__setattr__(self, "mask", as_mask(self.mask))
        if self.longest_gap not in ("auto", None):
            gap = as_seconds(self.longest_gap, "longest_gap")
            if gap <= 0:
                raise VideoError(f"longest_gap is {gap}: give seconds above 0, or None")
            object.__setattr__(self, "longest_gap", gap)
        rate = as_rate(self.picture_rate, "picture_rate", MAXIMUM_RATE)
        object.__setattr__(self, "picture_rate", rate)

    @property
    def part(self) -> Part:
        """The part to read, from `start` to `end`."""
        start, end = self.start, self.end
        return Part(
            None if start is None else as_seconds(start, "start"),
            None if end is None else as_seconds(end, "end"),
        )

    @property
    def encode(self) -> EncodeOptions:
        """How the frames are encoded."""
        return EncodeOptions(
            self.codec, self.quality, self.preset, self.lossless, self.alpha != "none"
        )

    def mask_for(self, info: SourceInfo) -> Mask | None:
        """The mask, for the frames of a source.

        Raises:
            VideoError: If it does not fit them.
        """
        if self.mask is None:
            return None
        mask = as_mask(self.mask)
        check_mask(mask, info)
        return mask

    def longest_gap_in(self, info: SourceInfo) -> Fraction | None:
        """The longest gap of a source that is interpolated, in seconds; None: there is no limit."""
        if self.longest_gap is None:
            return None
        if self.longest_gap == "auto":
            return max(_LONGEST_GAP, _LONGEST_GAP_FRAMES / info.rate)
        return as_seconds(self.longest_gap, "longest_gap")

    def detector(self) -> SceneDetector | None:
        """A detector for cuts and repeats; None if the options turn both off."""
        threshold = self.cuts if self.cut_list is None else None
        if threshold is None and not self.dedupe:
            return None
        return SceneDetector(threshold=threshold, dedupe=self.dedupe)

    def known_cuts(self, info: SourceInfo) -> tuple[Fraction, ...]:
        """The times of `cut_list`, in seconds after `info.origin`."""
        times = () if self.cut_list is None else _cut_times(self.cut_list)
        return tuple(time + info.first - info.origin for time in times)


def _cut_times(given: str | Path | Sequence[Number]) -> tuple[Fraction, ...]:
    if isinstance(given, str | os.PathLike):
        return read_cut_list(Path(given))
    if not isinstance(given, Sequence):
        raise VideoError(f"cut_list is {kind_of(given)}: give a file, or a sequence of times")
    return tuple(sorted(as_seconds(time, "a time of cut_list") for time in given))


def _is_number(value: object, kind: type) -> bool:
    """Whether a value is None or a number of a kind; True and False are not numbers here."""
    return value is None or (isinstance(value, kind) and not isinstance(value, bool))


def _check_types(options: VideoOptions) -> None:
    """Checks the types of all options but times and rates, and the range of `cuts`.

    Raises:
        VideoError: If one is wrong.
    """
    if not _is_number(options.video_stream, Integral):
        raise VideoError(
            f"video_stream is {options.video_stream!r}: give the index of a track, or None"
        )
    for name in ("strict", "dedupe", "keep_vfr", "lossless", "overwrite"):
        if not isinstance(value := getattr(options, name), bool):
            raise VideoError(f"{name} is {value!r}: give True or False")
    for name in ("cuts", "quality"):
        value = getattr(options, name)
        is_valid = _is_number(value, Real)
        if is_valid and name == "quality":
            is_valid = isfinite(as_float(value or 0))
        if not is_valid:
            raise VideoError(f"{name} is {value!r}: give a number, or None")
    for name in ("codec", "preset"):
        value = getattr(options, name)
        is_name = isinstance(value, str) and value.isascii() and value.isprintable()
        if value is not None and not (is_name and value):
            raise VideoError(f"{name} is {value!r}: give a name, or None for the default")
    if options.audio not in get_args(AudioMode):
        raise VideoError(f"audio is {options.audio!r}: use one of {', '.join(get_args(AudioMode))}")
    if options.deinterlace not in (None, *get_args(Deinterlace)):
        raise VideoError(
            f"deinterlace is {options.deinterlace!r}: use frame, field or film, or None to leave it"
        )
    if options.cut_policy not in get_args(CutPolicy):
        raise VideoError(f"cut_policy is {options.cut_policy!r}: use hold or blend")
    if options.alpha not in get_args(AlphaMode):
        raise VideoError(f"alpha is {options.alpha!r}: use one of {', '.join(get_args(AlphaMode))}")
    check_threshold(options.cuts)


@dataclass(frozen=True)
class VideoReport:
    """The result of `interpolate_video`.

    Attributes:
        frames_in: Number of frames decoded.
        frames_out: Number of frames written.
        frames_new: Number of written frames that the model computed.
        rate: Nominal frames a second of the output.
        seconds: Duration of the call.
        idle: Share of that time, in [0, 1], in which the model waited for frames.
        backend: Name of the backend and its device, for example "onnxruntime cpu".
        cuts: Times of the scene cuts, in seconds after the beginning.
        repeats: Number of frames that repeat the previous one.
        held_gaps: Number of gaps that were too long to interpolate, in which a frame is held.
        damaged: Number of packets that could not be decoded.
        notes: Notes for the user: what was dropped, skipped or changed.
    """

    frames_in: int
    frames_out: int
    frames_new: int
    rate: Fraction
    seconds: float
    idle: float
    backend: str
    cuts: list[Fraction] = field(default_factory=list)
    repeats: int = 0
    held_gaps: int = 0
    damaged: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """The output of `interpolate_video` as planned by `plan_video`.

    Attributes:
        source: Properties of the input.
        mode: How frames are multiplied: `Multiply` with a `factor`, or `ConstantRate` with a
            `rate`.
        rate: Nominal frames a second of the output.
        frames: Number of output frames expected; None where the duration is not known.
        encoder: FFmpeg's name of the encoder; "PNG" or "Y4M" where no video file is written.
        tracks: What happens to each audio and subtitle track, as text.
        notes: Notes for the user.
    """

    source: SourceInfo
    mode: Mode
    rate: Fraction
    frames: int | None
    encoder: str
    tracks: list[str]
    notes: list[str]
