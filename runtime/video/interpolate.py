"""Interpolates a video: decodes, runs the model and encodes, each in its own thread.

Real frames pass from decoder to encoder unchanged; only new frames go through RGB. Sound, subtitles
and chapters are carried over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from runtime.backends.base import BackendName, PrecisionChoice
from runtime.backends.demo import DEMO
from runtime.errors import VideoError, counted, kind_of
from runtime.interpolator import Interpolator
from runtime.video.checks import check_mode, check_size, checked_options, factor_and_rate
from runtime.video.options import Plan, VideoOptions, VideoReport
from runtime.video.rates import Number, as_rate
from runtime.video.reading.info import SourceInfo
from runtime.video.reading.source import Source, open_source
from runtime.video.render import FrameProgress, Rendering
from runtime.video.timing.schedule import OnlineSchedule
from runtime.video.timing.timeline import ConstantRate, Mode, Multiply, output_frame_count
from runtime.video.writing.animation import encoding_of
from runtime.video.writing.destination import container_of, images_of
from runtime.video.writing.losses import image_notes
from runtime.video.writing.sink import open_sink
from runtime.video.writing.tracks import track_action


def interpolate_video(
    source: str | Path,
    destination: str | Path,
    *,
    model: str | Path | Interpolator = DEMO,
    factor: int | None = None,
    rate: Number | None = None,
    options: VideoOptions | None = None,
    backend: BackendName | None = None,
    device: str | None = None,
    threads: int | None = None,
    streams: int | None = None,
    precision: PrecisionChoice | None = "auto",
    progress: FrameProgress | None = None,
    on_note: Callable[[str], object] | None = None,
) -> VideoReport:
    """Writes `source` to `destination` at a higher frame rate and the same speed.

    With `factor` the new frames divide the time between two real ones evenly, real frames keep
    their times, and a variable rate stays variable (see `VideoOptions.keep_vfr`). With `rate` the
    output has a constant rate. No frame is interpolated across a scene cut, see
    `VideoOptions.cut_policy`. Sound stays in step. Memory use does not depend on the length of the
    video.

        report = interpolate_video("in.mp4", "out.mp4", factor=2)
        print(report.frames_in, report.frames_out)

    Args:
        source: Any video that FFmpeg reads; the address of a network stream (rtsp://, udp://,
            http:// ...); a folder of PNG or JPEG images, or a pattern as %06d.png; "-" for Y4M on
            stdin.
        destination: .mp4, .mkv, .mov, .m4v or .webm, or .gif, .apng or .webp for an animated image,
            written as NAME.partial.EXT and then renamed; a folder or a pattern as %06d.png for PNG;
            "-" for Y4M on stdout.
        model: A model file, "demo" for the shipped one (the default), or an Interpolator, which
            stays open.
        factor: New frame rate over old, 2 to 1000; 2^k with weights that know the midpoint only.
            Without `factor` and `rate` it is 2. With 1 and `VideoOptions.dedupe` only repeated
            frames are replaced.
        rate: Frames a second of the output, 10 000 at most, in place of `factor`: a number, or text
            as "60", "59.94" or "60000/1001". A rounded NTSC rate in decimals stands for the exact
            one: 59.94 is 60000/1001.
        options: How to read, cut and write.
        backend: Argument of `Interpolator.open`, for a model file.
        device: Argument of `Interpolator.open`, for a model file.
        threads: Argument of `Interpolator.open`, for a model file.
        streams: Argument of `Interpolator.open`, for a model file.
        precision: Argument of `Interpolator.open`, for a model file.
        progress: Called after each frame that is written.
        on_note: Called with each note that is known before the first frame is written;
            `VideoReport.notes` has these too.

    Raises:
        VideoError: If the source cannot be read or the destination cannot be written.
        FrameError: If the factor is not possible, or the frames are too small or do not fit the
            model.
        ModelError: If the model cannot be opened.
        BackendError: If the backend is not available or fails.
    """
    options = checked_options(source, destination, options)
    for name, callback in (("progress", progress), ("on_note", on_note)):
        if callback is not None and not callable(callback):
            raise VideoError(f"{name} is {kind_of(callback)}: give a function, or leave it out")
    opening: dict[str, Any] = {
        "backend": backend,
        "device": device,
        "threads": threads,
        "streams": streams,
        "precision": precision,
    }
    started = time.perf_counter()
    with ExitStack() as stack:
        read = stack.enter_context(_open_source(source, options))
        info = read.info
        check_size(info)
        mask = options.mask_for(info)
        factor, rate = factor_and_rate(factor, rate, info)
        mode = mode_for(info, destination, factor, rate, options)
        vfi = opened_model(model, opening, stack)
        if rate is None:
            vfi.steps_for_factor(factor)  # Raises FrameError if the weights do not support it.
        schedule = OnlineSchedule(
            info,
            mode,
            vfi.info.time_steps,
            known_cuts=options.known_cuts(info),
            longest_gap=options.longest_gap_in(info),
            blend_cuts=options.cut_policy == "blend",
            start=options.part.start,
        )
        rendering = Rendering(vfi, info, schedule, options.detector(), options.alpha, mask)
        sink = stack.enter_context(
            open_sink(
                destination,
                like=info,
                rate=rate_of(mode, info),
                encode=options.encode,
                audio=options.audio,
                strict=options.strict,
                overwrite=options.overwrite,
            )
        )
        if on_note is not None:
            for note in [*vfi.notes, *read.notes, *rendering.notes, *sink.notes]:
                on_note(note)
        rendering.run(read, sink, progress, frames_expected(mode, info))
        if not sink.written:
            raise VideoError(
                f"no frame of {info.name} is between start and end: give a longer part"
            )
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
        held_gaps=schedule.held_gaps,
        damaged=read.damaged,
        notes=[
            *vfi.notes,
            *read.notes,
            *rendering.notes,
            *repair_notes(schedule),
            *sink.notes,
        ],
    )


def plan_video(
    source: str | Path,
    destination: str | Path,
    *,
    factor: int | None = None,
    rate: Number | None = None,
    options: VideoOptions | None = None,
) -> Plan:
    """Plans `interpolate_video` without running it; decodes two frames and writes nothing.

    Args:
        source: A video, a folder of images, a pattern as %06d.png, or "-" for Y4M on stdin.
        destination: The video, folder or pattern that would be written, or "-" for Y4M on stdout.
        factor: New frame rate over old, 2 or more. Without `factor` and `rate` it is 2.
        rate: Frames a second of the output, in place of `factor`: a number, or text as "59.94".
        options: How to read, cut and write.

    Raises:
        VideoError: If the source cannot be read, or the destination cannot be written with these
            options.
        FrameError: If the factor is not a whole number above 0, or the frames are too small.
    """
    options = checked_options(source, destination, options)
    with _open_source(source, options) as read:
        info = read.info
        check_size(info)
        options.mask_for(info)
        factor, rate = factor_and_rate(factor, rate, info)
        mode = mode_for(info, destination, factor, rate, options)
        images = images_of(destination)
        if images is not None:
            lost = image_notes(replace(info, tracks=()), images, options.encode.alpha)
            tracks = [f"{track}: not carried over" for track in info.tracks]
        else:
            encoding = encoding_of(info, Path(destination), rate_of(mode, info), options.encode)
            lost = encoding.notes
            kind = container_of(Path(destination))
            tracks = [
                f"{track}: {track_action(kind, track, options.audio)}" for track in info.tracks
            ]
        return Plan(
            info,
            mode,
            rate_of(mode, info),
            frames_expected(mode, info),
            images or encoding.encoder,
            tracks,
            [*read.notes, *lost],
        )


def opened_model(
    model: str | Path | Interpolator, opening: dict[str, Any], stack: ExitStack
) -> Interpolator:
    """Opens a model with the options of `opening` until `stack` closes; an open one is returned.

    Raises:
        VideoError: If the model is open, and an option is not None or "auto".
    """
    if not isinstance(model, Interpolator):
        return stack.enter_context(Interpolator.open(model, **opening))
    if given := [name for name, value in opening.items() if value not in (None, "auto")]:
        raise VideoError(
            f"{', '.join(given)} was given with an open Interpolator: give it to Interpolator.open"
        )
    return model


def _open_source(source: str | Path, options: VideoOptions) -> AbstractContextManager[Source]:
    return open_source(
        source,
        video_stream=options.video_stream,
        strict=options.strict,
        start=options.part.start,
        end=options.part.end,
        picture_rate=as_rate(options.picture_rate),
        deinterlace=options.deinterlace,
    )


def repair_notes(schedule: OnlineSchedule) -> list[str]:
    """A note if stamps were missing or did not rise; an empty list otherwise."""
    if not schedule.repaired:
        return []
    return [
        f"{counted(schedule.repaired, 'frame')} without a time stamp, or with one not after that "
        "of the frame before: the times are estimated"
    ]


def mode_for(
    info: SourceInfo,
    destination: str | Path,
    factor: int,
    rate: Fraction | None,
    options: VideoOptions,
) -> Mode:
    """Chooses how the frames of a source are multiplied.

    Args:
        info: Properties of the source.
        destination: Where the output is written; images and Y4M have a constant rate.
        factor: New frame rate over old, 2 or more; 1 with `options.dedupe`.
        rate: Frames a second of the output; None to use `factor`.
        options: `keep_vfr` and `dedupe` are used.

    Raises:
        VideoError: If the factor changes nothing, or `check_mode` refuses the output.
    """
    if rate is None and factor == 1 and not options.dedupe:
        raise VideoError(
            "factor is 1, which changes nothing: give 2 or more, or 1 with dedupe (--dedupe-only) "
            "to replace repeated frames at the same rate"
        )
    mode: Mode = Multiply(factor)
    # Images and Y4M have no time stamps.
    if rate is not None:
        mode = ConstantRate(rate)
    elif not options.keep_vfr or images_of(destination) is not None:
        mode = ConstantRate(info.rate * factor)
    check_mode(mode, info, factor if rate is None else None, frames_expected(mode, info))
    return mode


def rate_of(mode: Mode, info: SourceInfo) -> Fraction:
    """Nominal frames a second of the output."""
    return info.rate * mode.factor if isinstance(mode, Multiply) else mode.rate


def frames_expected(mode: Mode, info: SourceInfo) -> int | None:
    """Number of frames of the output; None where the duration is not known."""
    duration = info.duration
    if duration is None and info.frames:
        duration = info.frames / info.rate
    return None if not duration else output_frame_count(mode, duration=duration, rate=info.rate)
