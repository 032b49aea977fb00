"""A video at another frame rate: decode, interpolate and encode, each in a thread of its own.

Frames that exist pass from decoder to encoder as they are; only new frames go through RGB. Sound,
subtitles and chapters go along.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from fractions import Fraction
from pathlib import Path

from runtime.backends.base import BackendName, InferencePrecision
from runtime.errors import VideoError
from runtime.interpolator import Interpolator
from runtime.video.options import Plan, VideoOptions, VideoReport
from runtime.video.reading.info import SourceInfo
from runtime.video.reading.source import Source, open_source
from runtime.video.render import Progress, Rendering
from runtime.video.schedule import OnlineSchedule
from runtime.video.timeline import ConstantRate, Mode, Multiply, expected
from runtime.video.writing.alpha import alpha_notes
from runtime.video.writing.destination import check_destination, container_of, is_folder
from runtime.video.writing.encoding import encoding_for
from runtime.video.writing.sink import open_sink
from runtime.video.writing.tracks import track_action


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
        streams: See `Interpolator.open`.
        precision: See `Interpolator.open`.
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
        read = stack.enter_context(_open_source(source, options))
        info, mode = read.info, mode_for(read.info, destination, factor, rate, options)
        schedule = OnlineSchedule(info, mode, vfi.info.time_steps, start=options.start)
        rendering = Rendering(vfi, info, schedule, options.detector())
        sink = stack.enter_context(
            open_sink(
                destination,
                like=info,
                rate=rate_of(mode, info),
                encode=options.encode,
                audio=options.audio,
                strict=options.strict,
            )
        )
        if on_note is not None:
            for note in [*read.notes, *rendering.notes, *sink.notes]:
                on_note(note)
        rendering.run(read, sink, progress, frames_expected(mode, info))
        if not sink.written:
            raise VideoError(f"no frame of {info.name} falls in the part: give a longer one")
    seconds = time.perf_counter() - started
    return VideoReport(
        frames_in=schedule.frames,
        frames_out=sink.written,
        frames_new=rendering.frames_new,
        rate=rate_of(mode, info),
        seconds=seconds,
        idle=rendering.idle,
        backend=vfi.backend,
        cuts=schedule.cuts,
        repeats=schedule.repeats,
        damaged=read.damaged,
        notes=[*read.notes, *rendering.notes, *repair_notes(schedule), *sink.notes],
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
    with _open_source(source, options) as read:
        info = read.info
        mode = mode_for(info, destination, factor, rate, options)
        encoder, notes = "PNG", [*read.notes, *alpha_notes(info)]
        tracks = [f"{track}: not carried over" for track in info.tracks]
        if str(destination) == "-":
            encoder = "Y4M"
        elif not is_folder(destination):
            encoding = encoding_for(info, Path(destination).suffix.lower(), options.encode)
            encoder = encoding.encoder
            notes = [*read.notes, *encoding.notes]
            kind = container_of(Path(destination))
            tracks = [
                f"{track}: {track_action(kind, track, options.audio)}" for track in info.tracks
            ]
        return Plan(
            info, mode, rate_of(mode, info), frames_expected(mode, info), encoder, tracks, notes
        )


def _open_source(source: str | Path, options: VideoOptions) -> AbstractContextManager[Source]:
    return open_source(
        source,
        video_stream=options.video_stream,
        strict=options.strict,
        start=options.start,
        end=options.end,
        picture_rate=options.picture_rate,
    )


def repair_notes(schedule: OnlineSchedule) -> list[str]:
    """What is to be said of stamps that were missing or did not rise."""
    if not schedule.repaired:
        return []
    return [
        f"{schedule.repaired} frames had no time stamp, or one that did not rise: their times are "
        "a guess"
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
