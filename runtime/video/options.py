"""What is asked of a video and what was done: options, plan and report."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from runtime.video.reading.info import SourceInfo
from runtime.video.reading.source import PICTURE_RATE
from runtime.video.scenes import CUT_THRESHOLD, SceneDetector
from runtime.video.timeline import Mode
from runtime.video.writing.encoding import EncodeOptions


@dataclass(frozen=True)
class VideoOptions:
    """How a video is read, cut and written.

    Attributes:
        video_stream: Index of the track to take where there are several; None for FFmpeg's best.
        start: Seconds after the beginning at which to begin.
        end: Seconds after the beginning at which to stop.
        strict: Refuse a file that is damaged or truncated instead of using what can be read.
        cuts: Score from which on there is a scene cut, 0 to 100, see `SceneDetector`; nothing is
            made across one. None: cuts are not looked for.
        dedupe: See frames that repeat the one before, and interpolate over them.
        picture_rate: Frames a second of a folder of pictures.
        codec: h264, hevc, vp9, av1, ffv1, prores, or an encoder of FFmpeg; None: what suits the
            suffix.
        keep_vfr: With a factor: whether what is variable stays so. Otherwise the output has the
            nominal rate times the factor. Without effect with a rate, which is constant, and
            where pictures alone are written.
        quality: On the encoder's own scale (crf, cq, qp).
        preset: The encoder's own.
        lossless: Write bit by bit what was made.
        audio: "copy", "aac" or "none".
    """

    video_stream: int | None = None
    start: Fraction | None = None
    end: Fraction | None = None
    strict: bool = False
    cuts: float | None = CUT_THRESHOLD
    dedupe: bool = False
    picture_rate: Fraction = PICTURE_RATE
    keep_vfr: bool = True
    codec: str | None = None
    quality: float | None = None
    preset: str | None = None
    lossless: bool = False
    audio: Literal["copy", "aac", "none"] = "copy"

    @property
    def encode(self) -> EncodeOptions:
        """How the frames are encoded."""
        return EncodeOptions(self.codec, self.quality, self.preset, self.lossless)

    def detector(self) -> SceneDetector | None:
        """Looks for cuts and repeats as far as they are asked for; None where neither is."""
        if self.cuts is None and not self.dedupe:
            return None
        return SceneDetector(threshold=self.cuts, dedupe=self.dedupe)


@dataclass(frozen=True)
class VideoReport:
    """What was done.

    Attributes:
        frames_in: Frames decoded.
        frames_out: Frames written, of which `frames_new` were made.
        frames_new: See `frames_out`.
        rate: Nominal frames a second of the output.
        seconds: How long it took.
        idle: Share of that time in which the model waited for frames.
        backend: What ran the model.
        cuts: Seconds after the beginning at which a new scene begins.
        repeats: Frames that repeat the one before.
        damaged: Packets that could not be decoded.
        notes: What the user should know: what was dropped, skipped or changed.
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
    damaged: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """What `interpolate_video` would do.

    Attributes:
        source: What is known of the input.
        mode: Every gap cut evenly, or a constant rate.
        rate: Nominal frames a second of the output.
        frames: How many are expected; None where the duration is not known.
        encoder: FFmpeg's name, or what is written instead of a video file.
        tracks: What becomes of each audio and subtitle track.
        notes: What the user should know.
    """

    source: SourceInfo
    mode: Mode
    rate: Fraction
    frames: int | None
    encoder: str
    tracks: list[str]
    notes: list[str]
