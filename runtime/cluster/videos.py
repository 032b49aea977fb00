"""Interpolates videos on a cluster: workers run the steps of `runtime.video.segments`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from runtime.cluster.checks import check_run
from runtime.cluster.pool import Pool, Share
from runtime.cluster.report import ClusterReport, VideoResult
from runtime.cluster.worker import ModelChoice, VideoWorker
from runtime.errors import InterpolationError
from runtime.video.checks import factor_and_rate
from runtime.video.options import VideoOptions
from runtime.video.segments.jobs import Done
from runtime.video.segments.video import SEGMENT_SECONDS, BatchOptions, Video

BatchProgress = Callable[[int, int], None]
"""Called with the numbers of output frames rendered and planned so far, of all videos."""


def interpolate_many(
    sources: Sequence[tuple[Path, Path]],
    model: ModelChoice,
    *,
    factor: int = 2,
    rate: Fraction | None = None,
    options: VideoOptions | None = None,
    share: Share | None = None,
    workers: int | None = None,
    segment_seconds: Fraction = SEGMENT_SECONDS,
    resume: bool = False,
    progress: BatchProgress | None = None,
) -> ClusterReport:
    """Interpolates videos on the Ray cluster that this process has joined with `connected`.

    Each result equals that of `interpolate_video`, frame for frame, for any number of workers.
    Segments stay in the folder DESTINATION.segments until they are joined. If one video fails,
    the others continue, and the report has its error.

    Args:
        sources: Pairs of source and destination. A destination is a video file in an existing
            folder. All machines share these paths.
        model: The model that the workers open.
        factor: New frame rate over old, 2 or more.
        rate: Frames a second of the output, in place of `factor`.
        options: How to read, cut and write; without `start` and `end`.
        share: The resources that each worker uses.
        workers: Number of workers; None: as many as fit into the cluster.
        segment_seconds: Minimum duration of a segment.
        resume: Keep complete results and segments of an earlier run with the same arguments.
        progress: Called after each step.

    Raises:
        ClusterError: If the cluster cannot be used.
        VideoError: If a destination cannot be written, another run writes to it, two are the
            same, or one exists without `resume` and `VideoOptions.overwrite`.
        FrameError: If the factor is not a whole number above 0.
    """
    options = options or VideoOptions()
    factor, rate = factor_and_rate(None if rate is not None else factor, rate)
    check_run(sources, options, resume=resume)
    # A step that is repeated after its worker died may find its own output.
    options = replace(options, overwrite=True)
    started = time.perf_counter()
    batch = BatchOptions(factor, rate, options, segment_seconds, model.sha256, resume)
    videos = [Video(source, to, batch) for source, to in sources]
    try:
        with Pool(VideoWorker, (model,), share=share or Share(), workers=workers) as pool:
            _Run(pool, videos, progress).all()
    finally:
        for video in videos:
            video.folder.leave()
    return ClusterReport(
        [_result_of(video) for video in videos],
        pool.ready,
        pool.retries,
        sum(video.frames_out for video in videos if video.error is None),
        time.perf_counter() - started,
    )


class _Run:
    """Runs the jobs of all videos on one pool."""

    def __init__(self, pool: Pool, videos: Sequence[Video], progress: BatchProgress | None) -> None:
        self.videos = videos
        self._pool = pool
        self._progress = progress

    def all(self) -> None:
        """Runs until every video has succeeded or failed."""
        for video in self.videos:
            for job in video.first():
                self._pool.add(job)
        for done in self._pool.results():
            self._process(done)
            if self._progress is not None:
                self._progress(
                    sum(video.frames_rendered for video in self.videos),
                    sum(video.frames_out for video in self.videos),
                )

    def _process(self, done: Done) -> None:
        video: Video = done.job.about[0]
        if not video.needs(done.job):
            return
        try:
            following = video.after(done, self._pool.ready[0]["time_steps"])
        except (InterpolationError, OSError) as error:
            self._pool.forget(lambda job: job.about[0] is not video)
            following = video.after_error(error)
        # Jobs of a started video go first, so that videos are completed one after the other.
        for job in reversed(following):
            self._pool.add(job, first=True)


def _result_of(video: Video) -> VideoResult:
    """The result of a video, for the report."""
    return VideoResult(
        str(video.source),
        str(video.destination),
        video.error,
        video.frames_in,
        video.frames_out,
        video.frames_new,
        max(len(video.segments), int(video.frames_out > 0)),
        video.resumed,
        video.cuts,
        video.held_gaps,
        {step: round(seconds, 3) for step, seconds in video.seconds.items()},
        video.notes,
    )
