"""A video at another frame rate: decode, interpolate and encode, each in a thread of its own.

Frames that exist pass from decoder to encoder as they are; only new frames go through RGB. Sound,
subtitles and chapters go along.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from runtime.backends.base import BackendName, InferencePrecision
from runtime.batching import PairRequest
from runtime.errors import VideoError
from runtime.interpolator import Interpolator
from runtime.video.colour import ColourConverter
from runtime.video.prefetch import Stage, in_thread
from runtime.video.reading.info import Frame, SourceInfo
from runtime.video.reading.source import PICTURE_RATE, open_source
from runtime.video.scenes import CUT_THRESHOLD, SceneDetector
from runtime.video.schedule import FrameFacts, LiveScript, Script
from runtime.video.timeline import ConstantRate, Mode, Multiply, Shown, expected
from runtime.video.writing.alpha import alpha_notes, opaque
from runtime.video.writing.destination import check_destination, container_of, is_folder
from runtime.video.writing.encoder import encoding_for
from runtime.video.writing.sink import Sink, open_sink
from runtime.video.writing.tracks import fate

_AHEAD = 4
"""Frames that wait between two threads, at most."""

Progress = Callable[[int, int | None], None]
"""Called with the frames written and, where it is known, how many there will be."""


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


def interpolate_video(
    source: str | Path,
    destination: str | Path,
    *,
    model: str | Path | Interpolator,
    factor: int = 2,
    rate: Fraction | None = None,
    options: VideoOptions | None = None,
    backend: BackendName | None = None,
    device: str | None = None,
    threads: int | None = None,
    streams: int | None = None,
    precision: InferencePrecision | None = None,
    progress: Progress | None = None,
    on_note: Callable[[str], object] | None = None,
) -> VideoReport:
    """Writes `source` to `destination` at a higher frame rate and the same speed.

    With `factor` every gap between two frames is cut evenly, so that real frames keep their own
    times and what is variable stays so (see `VideoOptions.keep_vfr`); with `rate` the output is
    constant. At a scene cut the last frame stands. Sound stays in step. Memory does not grow with
    the clip.

    Args:
        source: Any video that FFmpeg reads, a folder of pictures, %06d.png, or "-" for Y4M.
        destination: .mp4, .mkv, .mov, .m4v or .webm, written as NAME.partial.EXT and renamed; a
            folder or %06d.png for PNG; "-" for Y4M on stdout.
        model: A model file, or an Interpolator that stays open.
        factor: New frame rate over old, 2 or more; 2^k with weights that know the midpoint only.
        rate: Frames a second of the output, in place of `factor`.
        options: How to read, cut and write.
        backend: See `Interpolator.open`.
        device: See `Interpolator.open`.
        threads: See `Interpolator.open`.
        streams: See there.
        precision: See there.
        progress: Called after each frame that is written.
        on_note: Called before the first frame is written with each note that is known by then;
            `VideoReport.notes` has these too.

    Raises:
        VideoError: If the source cannot be used or the destination cannot be written.
        FrameError: If the factor is not possible or the frames do not fit the model.
        ModelError: If the model cannot be opened.
        BackendError: If the backend is not available or fails.
    """
    options = options or VideoOptions()
    if str(destination) != "-":
        check_destination(destination, source)
    started = time.perf_counter()
    with ExitStack() as stack:
        if isinstance(model, Interpolator):
            vfi = model
        else:
            opened = Interpolator.open(
                model,
                backend=backend,
                device=device,
                threads=threads,
                streams=streams,
                precision=precision,
            )
            vfi = stack.enter_context(opened)
        if rate is None:
            vfi.steps_for_factor(factor)  # Or says which factors these weights know.
        read = stack.enter_context(_open(source, options))
        info, mode = read.info, mode_for(read.info, destination, factor, rate, options)
        script = LiveScript(info, mode, vfi.info.time_steps, start=options.start)
        rendering = Rendering(vfi, info, script, detector_for(options))
        sink = stack.enter_context(_open_sink(destination, info, rate_of(mode, info), options))
        if on_note is not None:
            for note in [*read.notes, *rendering.notes, *sink.notes]:
                on_note(note)
        rendering.run(read, sink, progress, frames_expected(mode, info))
        if not sink.written:
            raise VideoError(f"no frame of {info.name} falls in the part: give a longer one")
    seconds = time.perf_counter() - started
    return VideoReport(
        frames_in=script.frames,
        frames_out=sink.written,
        frames_new=rendering.frames_new,
        rate=rate_of(mode, info),
        seconds=seconds,
        idle=rendering.idle,
        backend=vfi.backend,
        cuts=script.cuts,
        repeats=script.repeats,
        damaged=read.damaged,
        notes=[*read.notes, *rendering.notes, *repair_notes(script), *sink.notes],
    )


def plan_video(
    source: str | Path,
    destination: str | Path,
    *,
    factor: int = 2,
    rate: Fraction | None = None,
    options: VideoOptions | None = None,
) -> Plan:
    """What `interpolate_video` would do; decodes two frames and writes nothing.

    Raises:
        VideoError: If the source cannot be used, or the destination cannot be written like that.
    """
    options = options or VideoOptions()
    if str(destination) != "-":
        check_destination(destination, source)
    with _open(source, options) as read:
        info = read.info
        mode = mode_for(info, destination, factor, rate, options)
        encoder, notes = "PNG", [*read.notes, *alpha_notes(info)]
        tracks = [f"{track}: not carried over" for track in info.tracks]
        if str(destination) == "-":
            encoder = "Y4M"
        elif not is_folder(destination):
            encoding = encoding_for(
                info,
                Path(destination).suffix.lower(),
                codec=options.codec,
                quality=options.quality,
                preset=options.preset,
                lossless=options.lossless,
            )
            encoder = encoding.encoder
            notes = [*read.notes, *encoding.notes]
            kind = container_of(Path(destination))
            tracks = [f"{track}: {fate(kind, track, options.audio)}" for track in info.tracks]
        return Plan(
            info, mode, rate_of(mode, info), frames_expected(mode, info), encoder, tracks, notes
        )


def _open(source: str | Path, options: VideoOptions) -> Any:
    return open_source(
        source,
        video_stream=options.video_stream,
        strict=options.strict,
        start=options.start,
        end=options.end,
        picture_rate=options.picture_rate,
    )


def _open_sink(
    destination: str | Path, info: SourceInfo, rate: Fraction, options: VideoOptions
) -> Any:
    return open_sink(
        destination,
        like=info,
        rate=rate,
        codec=options.codec,
        quality=options.quality,
        preset=options.preset,
        lossless=options.lossless,
        audio=options.audio,
        strict=options.strict,
    )


def repair_notes(script: LiveScript) -> list[str]:
    """What is to be said of stamps that were missing or did not rise."""
    if not script.repaired:
        return []
    return [
        f"{script.repaired} frames had no time stamp, or one that did not rise: their times are a "
        "guess"
    ]


def mode_for(
    info: SourceInfo,
    destination: str | Path,
    factor: int,
    rate: Fraction | None,
    options: VideoOptions,
) -> Mode:
    """How the frames of a source are multiplied.

    Raises:
        VideoError: If the factor or the rate is not possible.
    """
    if rate is not None:
        if rate <= 0:
            raise VideoError(f"the rate is {rate} frames a second: it is above 0")
        return ConstantRate(rate)
    if factor < 2:
        raise VideoError(f"factor is {factor}: it is 2 or more")
    # Pictures in a row have no times of their own.
    if not options.keep_vfr or str(destination) == "-" or is_folder(destination):
        return ConstantRate(info.rate * factor)
    return Multiply(factor)


def rate_of(mode: Mode, info: SourceInfo) -> Fraction:
    """Nominal frames a second of the output."""
    return info.rate * mode.factor if isinstance(mode, Multiply) else mode.rate


def frames_expected(mode: Mode, info: SourceInfo) -> int | None:
    """Frames of the output, where the duration is known."""
    duration = info.duration
    if duration is None and info.frames:
        duration = info.frames / info.rate
    return None if not duration else expected(mode, duration=duration, rate=info.rate)


class _Seen(NamedTuple):
    """A decoded frame with what is known of it before it is used."""

    frame: VideoFrame
    facts: FrameFacts
    picture: NDArray[Any]


class _Known(NamedTuple):
    """A real frame for as long as the script may ask for it."""

    frame: VideoFrame
    picture: NDArray[Any]


class _Request(NamedTuple):
    """What goes to the encoder next: new frames, a real one, or a packet of another track."""

    times: list[Fraction]
    like: VideoFrame | None
    between: PairRequest | None
    packet: Packet[Any] | None = None


class Rendering:
    """Frames on their way from a source through the model to a sink, as a script says.

    Attributes:
        frames_new: Made so far.
        idle: Share of the time in which the model waited for frames.
        notes: What the user should know.
    """

    def __init__(
        self,
        vfi: Interpolator,
        info: SourceInfo,
        script: Script,
        detector: SceneDetector | None = None,
    ) -> None:
        """Prepares.

        Args:
            vfi: What makes the new frames.
            info: Of the source.
            script: Says what is shown; it is used up.
            detector: Looks for the cuts and repeats that the script is told; None: for none.

        Raises:
            FrameError: If the frames do not fit the model.
        """
        self.vfi = vfi
        self.info = info
        self.frames_new = 0
        self.idle = 0.0
        self.notes: list[str] = []
        self._script = script
        self._detector = detector
        self._converter = ColourConverter()
        self._depth = self._depth_of_pictures()
        vfi.check_takes(
            info.height, info.width, np.dtype(np.uint8 if self._depth == 8 else np.uint16)
        )

    def run(
        self,
        items: Iterable[Frame | Packet[Any]],
        sink: Sink,
        progress: Progress | None = None,
        total: int | None = None,
    ) -> None:
        """Everything, from the first packet to the last.

        Args:
            items: Of the source: its frames, and the packets of its other tracks.
            sink: Takes both.
            progress: Called after each frame that is written, with `total`.
            total: How many are expected.
        """
        started = time.perf_counter()
        with in_thread(self._seen(items), ahead=_AHEAD, name="decode", weight=_weight) as seen:
            made = self._made(seen)
            with in_thread(made, ahead=_AHEAD, name="interpolate", weight=_weight) as shown:
                for item in shown:
                    if isinstance(item, Packet):
                        sink.write_packet(item)
                        continue
                    moment, frame, picture = item
                    if picture is not None:
                        frame = self._converter.frame_from_rgb(picture, like=frame)
                    sink.write(frame, moment)
                    if progress is not None:
                        progress(sink.written, total)
            self.idle = seen.waited / (time.perf_counter() - started)

    def _seen(self, items: Iterable[Frame | Packet[Any]]) -> Iterator[_Seen | Packet[Any]]:
        """Decodes, looks for cuts, and converts: the work of the first thread."""
        for item in items:
            if isinstance(item, Frame):
                shown = opaque(item.picture, self._converter)
                picture = self._converter.rgb_from_frame(shown, self._depth)
                yield _Seen(shown, frame_facts(item, self._detector), picture)
            else:
                yield item

    def _made(
        self, seen: Stage[_Seen | Packet[Any]]
    ) -> Iterator[tuple[Fraction, VideoFrame, NDArray[Any] | None] | Packet[Any]]:
        """Runs the model: the work of the second thread."""
        requests = ((request, request.between) for request in self._requests(seen))
        for request, pictures in self.vfi.interpolate_tagged(requests):
            if request.packet is not None:
                yield request.packet
                continue
            assert request.like is not None
            if request.between is None:
                yield request.times[0], request.like, None
                continue
            for moment, picture in zip(request.times, pictures, strict=True):
                self.frames_new += 1
                yield moment, request.like, picture

    def _requests(self, seen: Stage[_Seen | Packet[Any]]) -> Iterator[_Request]:
        """What is shown when, in order; frames are held for as long as they may be asked for."""
        known: dict[int, _Known] = {}
        number = 0
        for item in seen:
            if isinstance(item, Packet):
                yield _Request([], None, None, item)
                continue
            known[number] = _Known(item.frame, item.picture)
            number += 1
            yield from _asked(self._script.push(item.facts), known)
            for old in [n for n in known if n < self._script.oldest]:
                del known[old]
        yield from _asked(self._script.finish(), known)

    def _depth_of_pictures(self) -> int:
        """Bits of the RGB that the model sees: 16 where source and model have more than 8."""
        if self.info.bits <= 8:
            return 8
        if self.vfi.info.io == "float":
            return 16
        self.notes.append(
            f"the new frames were made from 8 of {self.info.bits} bits: use a model exported with "
            "--io float to keep them all"
        )
        return 8


def frame_facts(frame: Frame, detector: SceneDetector | None) -> FrameFacts:
    """What a script is told of a frame; the detector sees the frames in order, each once."""
    flags = None if detector is None else detector.flags(frame.picture)
    return FrameFacts(
        frame.pts,
        frame.time_base,
        _duration(frame),
        cut=flags is not None and flags.cut,
        repeat=flags is not None and flags.repeat,
    )


def detector_for(options: VideoOptions) -> SceneDetector | None:
    """Looks for what is asked for; None where that is nothing."""
    if options.cuts is None and not options.dedupe:
        return None
    return SceneDetector(threshold=options.cuts, dedupe=options.dedupe)


def _asked(shown: list[Shown], known: dict[int, _Known]) -> Iterator[_Request]:
    """Neighbours between the same two frames become one request."""
    request: _Request | None = None
    pair: tuple[int, int] | None = None
    steps: list[float] = []
    for one in shown:
        if one.second is not None and pair == (one.first, one.second) and request is not None:
            request.times.append(one.time)
            steps.append(float(one.t))
            continue
        if request is not None:
            yield request
        first = known[one.first]
        if one.second is None:
            pair, request = None, _Request([one.time], first.frame, None)
        else:
            pair, steps = (one.first, one.second), [float(one.t)]
            between = PairRequest(first.picture, known[one.second].picture, steps)
            request = _Request([one.time], first.frame, between)
    if request is not None:
        yield request


def _weight(item: object) -> int:
    """Packets of other tracks are small and wait for nobody."""
    return 0 if isinstance(item, Packet) else 1


def _duration(frame: Frame) -> Fraction | None:
    """Of a decoded frame, in seconds, where the file says it."""
    ticks = getattr(frame.picture, "duration", None)
    return ticks * frame.time_base if ticks else None
