"""Videos on a cluster: what each needs next, and what is kept of it.

scan -> look at each part -> decide -> render each part -> join, see `runtime.video.segments`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from runtime.cluster.folder import SegmentFolder
from runtime.cluster.pool import Done, Job, Pool, Share
from runtime.cluster.report import ClusterReport, VideoResult
from runtime.cluster.worker import ModelChoice, VideoWorker
from runtime.errors import InterpolationError, VideoError
from runtime.files import written_beside
from runtime.manifest import file_sha256
from runtime.model_info import TimeSteps
from runtime.video.interpolate import mode_for
from runtime.video.options import VideoOptions, VideoReport
from runtime.video.segments.errors import SeamError
from runtime.video.segments.plan import Look, Scan, Segment, decide, parts
from runtime.video.segments.render import Rendered
from runtime.video.timeline import Mode
from runtime.video.writing.destination import check_destination

SEGMENT_SECONDS = Fraction(10)
"""That a segment lasts at least: some hundred frames against one start of an encoder and one key
frame more, and as much as is lost with a worker."""


Progress = Callable[[int, int], None]
"""Called with the frames that are rendered, and those that are known to be."""


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
    progress: Progress | None = None,
) -> ClusterReport:
    """Interpolates videos on the cluster that this process has joined; see `connected`.

    Each result is that of `interpolate_video`, frame for frame, whatever the number of workers.
    What is rendered lies in DESTINATION.segments until the whole is joined. One video that fails
    does not stop the others.

    Args:
        sources: Each video and where it goes: a video file whose folder exists. All machines see
            these paths.
        model: What the workers open.
        factor: New frame rate over old, 2 or more.
        rate: Frames a second of the output, in place of `factor`.
        options: How to read, cut and write; the whole of each video, without start and end.
        share: Of a machine, for each worker.
        workers: How many; None: as many as fit.
        segment_seconds: That a part lasts at least.
        resume: Keep whole results, and whole segments, of an earlier run with the same arguments.
        progress: Called after each segment.

    Raises:
        ClusterError: If the cluster cannot be used.
        VideoError: If a destination cannot be written, another run writes to it, or two are the
            same.
    """
    options = options or VideoOptions()
    if options.start is not None or options.end is not None:
        raise VideoError("a cluster takes whole videos: leave start and end out")
    if len({destination for _, destination in sources}) < len(sources):
        raise VideoError("two inputs have the same output: rename one of them")
    for source, destination in sources:
        check_destination(destination, source)
        SegmentFolder(destination).check_free()
    started = time.perf_counter()
    how = How(factor, rate, options, segment_seconds, model.sha256, resume)
    videos = [Video(source, to, how) for source, to in sources]
    try:
        with Pool(VideoWorker, (model,), share=share or Share(), workers=workers) as pool:
            _Run(pool, videos, progress).all()
    finally:
        for video in videos:
            video.folder.leave()
    return ClusterReport(
        [video.result() for video in videos],
        pool.said,
        pool.retries,
        sum(video.frames_out for video in videos if video.error is None),
        time.perf_counter() - started,
    )


class How(NamedTuple):
    """What is asked for, of all videos."""

    factor: int
    rate: Fraction | None
    options: VideoOptions
    seconds: Fraction
    model: str
    resume: bool

    @property
    def key(self) -> str:
        """The same where the same frames and packets are asked for."""
        return repr((self.factor, self.rate, self.options, self.model))


class Video:
    """One video on its way through the steps; says what is to be done next, and keeps the rest."""

    def __init__(self, source: Path, destination: Path, how: How) -> None:
        self.source, self.destination, self.how = source.absolute(), destination.absolute(), how
        self.error: str | None = None
        self.frames_in = self.frames_out = self.frames_new = self.frames_rendered = 0
        self.resumed = 0
        self.segments: list[Segment] = []
        self.cuts: list[Fraction] = []
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []
        self.done = False
        self._found: Scan | None = None
        self._looks: dict[int, Look] = {}
        self._looks_wanted = 0
        self._mode: Mode | None = None
        self._left: set[int] = set()
        self._in_one_piece = False
        self.folder = SegmentFolder(self.destination)

    def first(self) -> list[Job]:
        """The first job; none where an earlier run finished."""
        if self.how.resume and self.destination.exists() and not self.folder.path.exists():
            self.notes.append("was there already")
            self.done = True
            return []
        return [
            self._job("scan", path=self.source, options=self.how.options, seconds=self.how.seconds)
        ]

    def waits_for(self, job: Job) -> bool:
        """Whether what comes of it still counts: not of what was given up meanwhile."""
        return not self.done and (job.method == "whole") == self._in_one_piece

    def after(self, done: Done, time_steps: TimeSteps) -> list[Job]:
        """What follows from a step.

        Raises:
            Exception: Whatever the step raised; see `after_error`.
        """
        if done.error is not None:
            raise done.error
        step, number = done.job.method, done.job.about[1]
        self.seconds[step] = self.seconds.get(step, 0.0) + done.seconds
        if step == "scan":
            return self._to_look(done.result)
        if step == "look":
            self._looks[number] = done.result
            return self._to_render(time_steps) if len(self._looks) == self._looks_wanted else []
        if step == "render":
            self._keep(self.segments[number], done.result)
            self._left.discard(number)
            return [] if self._left else self._to_join()
        if step == "whole":
            self._take_report(done.result)
        else:
            self._note(done.result)
        self.folder.remove()
        self.done = True
        return []

    def after_error(self, error: Exception) -> list[Job]:
        """Where parts do not fit the whole it is rendered in one piece; otherwise it failed."""
        if isinstance(error, SeamError) and not self._in_one_piece:
            self.notes.append(f"rendered in one piece, as {error}")
            self._in_one_piece = True
            self.segments, self.resumed = [], 0
            self.frames_new = self.frames_rendered = 0
            with suppress(OSError):  # It is removed in the end.
                self.folder.clear()
            how = self.how
            return [
                self._job(
                    "whole",
                    source=self.source,
                    destination=self.destination,
                    factor=how.factor,
                    rate=how.rate,
                    options=how.options,
                )
            ]
        self.error = str(error) or type(error).__name__
        self.done = True
        self.folder.leave()
        return []

    def result(self) -> VideoResult:
        """For the report."""
        return VideoResult(
            str(self.source),
            str(self.destination),
            self.error,
            self.frames_in,
            self.frames_out,
            self.frames_new,
            max(len(self.segments), int(self.frames_out > 0)),
            self.resumed,
            self.cuts,
            {step: round(seconds, 3) for step, seconds in self.seconds.items()},
            self.notes,
        )

    def _job(self, step: str, number: int = 0, **arguments: Any) -> Job:
        return Job(step, arguments, (self, number))

    def _to_look(self, found: Scan) -> list[Job]:
        self._note(self.folder.claim(keep=self.how.resume))
        self._found = found
        self._note(found.notes)
        wanted = parts(found, self.how.options)
        self._looks_wanted = len(wanted)
        return [
            self._job(
                "look",
                number,
                path=self.source,
                found=found,
                options=self.how.options,
                begins=begins,
                ends=ends,
            )
            for number, (begins, ends) in enumerate(wanted)
        ]

    def _to_render(self, time_steps: TimeSteps) -> list[Job]:
        assert self._found is not None
        how = self.how
        self._mode = mode_for(self._found.info, self.destination, how.factor, how.rate, how.options)
        looks = [self._looks[number] for number in range(self._looks_wanted)]
        decided = decide(self._found, looks, self._mode, time_steps)
        self.segments = decided.segments
        self.frames_in, self.frames_out = decided.frames_in, decided.frames_out
        self.cuts = decided.cuts
        self._left = {segment.number for segment in self.segments if not self._is_whole(segment)}
        self.resumed = len(self.segments) - len(self._left)
        if not self._left:
            return self._to_join()
        return [
            self._job(
                "render",
                number,
                path=self.source,
                found=self._found,
                segment=self.segments[number],
                mode=self._mode,
                options=how.options,
                like=self.destination,
                output=self.folder.file(number),
            )
            for number in sorted(self._left)
        ]

    def _to_join(self) -> list[Job]:
        return [
            self._job(
                "join",
                path=self.source,
                destination=self.destination,
                files=[self.folder.file(segment.number) for segment in self.segments],
                mode=self._mode,
                options=self.how.options,
            )
        ]

    def _key(self, segment: Segment) -> str:
        """Of all that a segment file depends on."""
        stat = self.source.stat()
        return f"{segment.key} {self.how.key} {stat.st_size} {stat.st_mtime_ns}"

    def _keep(self, segment: Segment, rendered: Rendered) -> None:
        """Beside the segment: what says later that it is whole, and the one that is wanted."""
        self.frames_new += rendered.frames_new
        self.frames_rendered += rendered.frames
        self._note(rendered.notes)
        record = {"key": self._key(segment), **rendered._asdict()}
        with written_beside(self.folder.file(segment.number).with_suffix(".json")) as beside:
            beside.write_text(json.dumps(record) + "\n")

    def _is_whole(self, segment: Segment) -> bool:
        """Whether an earlier run left this very segment whole."""
        file = self.folder.file(segment.number)
        try:
            record = json.loads(file.with_suffix(".json").read_text())
            if record["key"] != self._key(segment) or record["sha256"] != file_sha256(file):
                return False
            self.frames_new += record["frames_new"]
            self.frames_rendered += record["frames"]
            self._note(record["notes"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return True

    def _note(self, notes: Sequence[str]) -> None:
        """What every segment says is said once."""
        self.notes += [note for note in notes if note not in self.notes]

    def _take_report(self, report: VideoReport) -> None:
        self.frames_in, self.frames_out = report.frames_in, report.frames_out
        self.frames_new, self.cuts = report.frames_new, report.cuts
        self.frames_rendered = report.frames_out
        self._note(report.notes)


class _Run:
    """All videos on one pool."""

    def __init__(self, pool: Pool, videos: Sequence[Video], progress: Progress | None) -> None:
        self.videos = videos
        self._pool = pool
        self._progress = progress

    def all(self) -> None:
        """Runs until every video is made or has failed."""
        for video in self.videos:
            for job in video.first():
                self._pool.add(job)
        for done in self._pool.results():
            self._take(done)
            if self._progress is not None:
                self._progress(
                    sum(video.frames_rendered for video in self.videos),
                    sum(video.frames_out for video in self.videos),
                )

    def _take(self, done: Done) -> None:
        video: Video = done.job.about[0]
        if not video.waits_for(done.job):
            return
        try:
            following = video.after(done, self._pool.said[0]["time_steps"])
        except (InterpolationError, OSError) as error:
            self._pool.forget(lambda job: job.about[0] is not video)
            following = video.after_error(error)
        # What a video that is begun needs comes before another is: results appear one by one.
        for job in reversed(following):
            self._pool.add(job, first=True)
