"""Interpolates one video in segments, so that a run that ended early can be continued."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from runtime.backends.base import BackendName, PrecisionChoice
from runtime.backends.demo import DEMO
from runtime.errors import InterpolationError, VideoError, counted
from runtime.interpolator import Interpolator
from runtime.video.checks import checked_options, factor_and_rate
from runtime.video.interpolate import mode_for, opened_model, rate_of
from runtime.video.options import VideoOptions, VideoReport
from runtime.video.rates import Number
from runtime.video.reading.source import open_source
from runtime.video.render import FrameProgress
from runtime.video.segments.errors import SeamError
from runtime.video.segments.folder import check_is_video
from runtime.video.segments.jobs import Done, Job
from runtime.video.segments.steps import Steps
from runtime.video.segments.video import SEGMENT_SECONDS, BatchOptions, Video


def interpolate_video_resumable(
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
    """Writes a video as `interpolate_video` does; after an early end the same call continues.

    The video is rendered in segments of ten seconds or more, which are kept in the folder
    DESTINATION.segments until they are joined. A call with the same source, model and options uses
    the complete segments of an earlier one. The frames equal those of `interpolate_video`. The
    source is decoded twice: once to plan all output frames, and once to render them. A video that
    cannot be divided is rendered in one piece, and a note gives the reason.

    Args:
        source: A video file.
        destination: .mp4, .mkv, .mov, .m4v or .webm. If it exists and there are no segments, it is
            complete, and nothing is done.
        model: As for `interpolate_video`.
        factor: As for `interpolate_video`.
        rate: As for `interpolate_video`.
        options: How to read, cut and write; without `start`, `end` and `overwrite`.
        backend: As for `interpolate_video`.
        device: As for `interpolate_video`.
        threads: As for `interpolate_video`.
        streams: As for `interpolate_video`.
        precision: As for `interpolate_video`.
        progress: Called after each frame that is rendered, those of earlier calls included.
        on_note: Called with each note when it is known.

    Raises:
        VideoError: If the source cannot be read, the destination cannot be written, or one of them
            is not a video file.
        FrameError: If the factor is not possible or the frames do not fit the model.
        ModelError: If the model cannot be opened.
        BackendError: If the backend is not available or fails.
    """
    if isinstance(options, VideoOptions) and options.overwrite:
        raise VideoError(
            "overwrite was given, but a run with segments keeps an output that exists: remove it, "
            "or leave overwrite out"
        )
    # Without its segments, an output that exists is complete; it is not replaced.
    options = replace(checked_options(source, "-", options), overwrite=True)
    checked_options(source, destination, options)
    factor, rate = factor_and_rate(factor, rate)
    source, destination = Path(source), Path(destination)
    if not source.is_file():
        raise VideoError(f"{source} is not a file, which a run with segments needs: give a video")
    check_is_video(destination)
    if not options.part.whole:
        raise VideoError("a run with segments takes whole videos: leave start and end out")
    opening = {
        "backend": backend,
        "device": device,
        "threads": threads,
        "streams": streams,
        "precision": precision,
    }
    started = time.perf_counter()
    with ExitStack() as stack:
        vfi = opened_model(model, opening, stack)
        if rate is None:
            vfi.steps_for_factor(factor)  # Raises FrameError if the weights do not support it.
        batch = BatchOptions(factor, rate, options, SEGMENT_SECONDS, _key(vfi), resume=True)
        video = Video(source, destination, batch)
        video.folder.check_free()
        stack.callback(video.folder.leave)
        return _Run(video, vfi, progress, on_note).report(started)


def _key(vfi: Interpolator) -> str:
    """Hash of everything about the model that new frames depend on."""
    return hashlib.sha256(f"{vfi.info} {vfi.backend}".encode()).hexdigest()


class _Run:
    """Runs the jobs of one video, one after the other."""

    def __init__(
        self,
        video: Video,
        vfi: Interpolator,
        progress: FrameProgress | None,
        on_note: Callable[[str], object] | None,
    ) -> None:
        self._video = video
        self._vfi = vfi
        self._steps = Steps(vfi)
        self._progress = progress
        self._on_note = on_note
        self._noted = 0
        self._idle_seconds = 0.0

    def report(self, started: float) -> VideoReport:
        """Runs all jobs; `started` is the time of `perf_counter` at which the call began."""
        video = self._video
        video.notes += self._vfi.notes
        jobs = deque(video.first())
        whole: VideoReport | None = None
        while jobs:
            self._give_notes()
            job = jobs.popleft()
            try:
                done = self._done(job)
                following = video.after(done, self._vfi.info.time_steps)
            except SeamError as error:
                jobs.clear()
                following = video.after_error(error)
            except InterpolationError as error:
                if not any(video.folder.path.glob("*.segment")):
                    raise
                raise type(error)(
                    f"{error}; complete segments are kept in {video.folder.path.name}, and the "
                    "same call continues"
                ) from error
            else:
                whole = done.result if job.method == "whole" else None
            jobs.extendleft(reversed(following))
        if video.resumed:
            video.notes.append(
                f"{video.resumed} of {counted(len(video.segments), 'segment')} are of an earlier "
                "run"
            )
        self._give_notes()
        seconds = time.perf_counter() - started
        return VideoReport(
            frames_in=video.frames_in,
            frames_out=video.frames_out,
            frames_new=video.frames_new,
            rate=self._rate(),
            seconds=seconds,
            idle=self._idle_seconds / seconds if whole is None else whole.idle,
            backend=self._vfi.backend,
            cuts=video.cuts,
            repeats=video.repeats,
            held_gaps=video.held_gaps,
            damaged=0 if whole is None else whole.damaged,
            notes=video.notes,
        )

    def _done(self, job: Job) -> Done:
        """Runs a job; its errors are raised."""
        more: dict[str, Any] = {}
        if job.method in ("render", "whole"):
            more["progress"] = self._shown_progress(self._video.frames_rendered)
        started = time.perf_counter()
        result = getattr(self._steps, job.method)(**job.arguments, **more)
        seconds = time.perf_counter() - started
        if job.method == "render":
            self._idle_seconds += result.idle * seconds
        return Done(job, result, None, seconds)

    def _shown_progress(self, before: int) -> FrameProgress:
        """Progress of the whole video, while a segment is rendered after `before` frames."""

        def shown(written: int, total: int | None) -> None:
            if self._progress is not None:
                self._progress(before + written, self._video.frames_out or total)

        return shown

    def _give_notes(self) -> None:
        """Passes on the notes that are new."""
        new, self._noted = self._video.notes[self._noted :], len(self._video.notes)
        if self._on_note is not None:
            for note in new:
                self._on_note(note)

    def _rate(self) -> Fraction:
        """Nominal frames a second of the output."""
        video, batch = self._video, self._video.batch
        with open_source(video.source, video_stream=batch.options.video_stream) as source:
            info = source.info
        mode = mode_for(info, video.destination, batch.factor, batch.rate, batch.options)
        return rate_of(mode, info)
