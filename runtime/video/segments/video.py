"""State of one video that is rendered in segments: the jobs for its next steps.

    scan -> look (each span) -> render (each segment) -> join

The jobs are methods of `Steps`; "look" is `analyse`. Between look and render the output of the
whole video is planned.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from runtime.files import read_json, written_beside
from runtime.manifest import file_sha256
from runtime.model_info import TimeSteps
from runtime.video.checks import check_size
from runtime.video.interpolate import mode_for
from runtime.video.options import VideoOptions, VideoReport
from runtime.video.segments.errors import SeamError
from runtime.video.segments.folder import SegmentFolder
from runtime.video.segments.jobs import Done, Job
from runtime.video.segments.plan import Scan, Segment, SpanFacts, plan, spans
from runtime.video.segments.render import Rendered
from runtime.video.timing.timeline import Mode

SEGMENT_SECONDS = Fraction(10)
"""Minimum duration of a segment. Each segment needs a start of the encoder and a key frame, which
is little for some hundred frames; with longer segments more work is lost when a run ends early."""


class BatchOptions(NamedTuple):
    """The options of one run, which apply to all its videos.

    Attributes:
        factor: New frame rate over old.
        rate: Frames a second of the output; None to use `factor`.
        options: How to read, cut and write.
        seconds: Minimum duration of a segment.
        model: Hash of the model file.
        resume: Whether to keep results and segments of an earlier run.
    """

    factor: int
    rate: Fraction | None
    options: VideoOptions
    seconds: Fraction
    model: str
    resume: bool

    @property
    def key(self) -> str:
        """Text that is equal for options which give equal frames and packets; segments store it."""
        # Options with their default are left out, so that a later version, which has further
        # options, recognises the segments. Options without `repr` do not change frames.
        options = {
            field.name: value
            for field in fields(self.options)
            if field.repr and (value := getattr(self.options, field.name)) != field.default
        }
        return repr((self.factor, self.rate, options, self.model))


class Video:
    """State of one video, from which the jobs for its next steps follow.

    Attributes:
        source: Absolute path of the input.
        destination: Absolute path of the output.
        batch: The options of the run.
        error: Why it failed; None where it did not.
        frames_in: Number of source frames; 0 before they are planned.
        frames_out: Number of output frames; 0 before they are planned.
        frames_new: Number of frames that the model computed so far.
        frames_rendered: Number of output frames rendered so far.
        resumed: Number of segments that an earlier run had completed.
        segments: The planned segments; empty where the video is rendered in one piece.
        cuts: Times of the scene cuts, in seconds after the beginning.
        repeats: Number of source frames that repeat the previous one.
        held_gaps: Number of gaps that were too long to interpolate.
        seconds: Step -> its seconds so far, summed over the workers.
        notes: Notes for the user.
        done: Whether all steps have ended, by success or failure.
        folder: The folder of its segments.
    """

    def __init__(self, source: Path, destination: Path, batch: BatchOptions) -> None:
        self.source, self.destination, self.batch = source.absolute(), destination.absolute(), batch
        self.error: str | None = None
        self.frames_in = self.frames_out = self.frames_new = self.frames_rendered = 0
        self.resumed = self.repeats = self.held_gaps = 0
        self.segments: list[Segment] = []
        self.cuts: list[Fraction] = []
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []
        self.done = False
        self._scanned: Scan | None = None
        self._analysed: dict[int, SpanFacts] = {}
        self._span_count = 0
        self._mode: Mode | None = None
        self._left: set[int] = set()
        self._in_one_piece = False
        self.folder = SegmentFolder(self.destination)

    def first(self) -> list[Job]:
        """The first job; none where an earlier run completed the video."""
        if self.batch.resume and self.destination.exists() and not self.folder.path.exists():
            self.notes.append("the output was complete already")
            self.done = True
            return []
        return [
            self._job(
                "scan", path=self.source, options=self.batch.options, seconds=self.batch.seconds
            )
        ]

    def needs(self, job: Job) -> bool:
        """Whether the result of a job is used: not after a failure or a change to one piece."""
        return not self.done and (job.method == "whole") == self._in_one_piece

    def after(self, done: Done, time_steps: TimeSteps) -> list[Job]:
        """Processes the result of a job and returns the jobs that follow.

        Args:
            done: The job that ended.
            time_steps: The time steps that the weights were trained for.

        Raises:
            Exception: The error of the job; pass it to `after_error`.
        """
        if done.error is not None:
            raise done.error
        step, number = done.job.method, done.job.about[1]
        self.seconds[step] = self.seconds.get(step, 0.0) + done.seconds
        if step == "scan":
            return self._analyse_jobs(done.result)
        if step == "look":
            self._analysed[number] = done.result
            return self._render_jobs(time_steps) if len(self._analysed) == self._span_count else []
        if step == "render":
            self._record(self.segments[number], done.result)
            self._left.discard(number)
            return [] if self._left else self._join_jobs()
        if step == "whole":
            self._copy_report(done.result)
        else:
            self._note(done.result)
        self.folder.remove()
        self.done = True
        return []

    def after_error(self, error: Exception) -> list[Job]:
        """Handles an error of a job and returns the jobs that follow.

        After a SeamError the video is rendered in one piece; any other error ends it.
        """
        if isinstance(error, SeamError) and not self._in_one_piece:
            self.notes.append(f"rendered in one piece, because {error}")
            self._in_one_piece = True
            self.segments, self.resumed = [], 0
            self.frames_new = self.frames_rendered = 0
            with suppress(OSError):  # The folder is removed at the end in any case.
                self.folder.clear()
            batch = self.batch
            return [
                self._job(
                    "whole",
                    source=self.source,
                    destination=self.destination,
                    factor=batch.factor if batch.rate is None else None,
                    rate=batch.rate,
                    options=batch.options,
                )
            ]
        self.error = str(error) or type(error).__name__
        self.done = True
        self.folder.leave()
        return []

    def _job(self, step: str, number: int = 0, **arguments: Any) -> Job:
        return Job(step, arguments, (self, number))

    def _analyse_jobs(self, scanned: Scan) -> list[Job]:
        check_size(scanned.info)
        batch = self.batch
        batch.options.mask_for(scanned.info)
        self._mode = mode_for(
            scanned.info, self.destination, batch.factor, batch.rate, batch.options
        )
        self._note(self.folder.claim(keep=self.batch.resume))
        self._scanned = scanned
        self._note(scanned.notes)
        wanted = spans(scanned, self.batch.options)
        self._span_count = len(wanted)
        return [
            self._job(
                "look",
                number,
                path=self.source,
                scanned=scanned,
                options=self.batch.options,
                begins=begins,
                ends=ends,
            )
            for number, (begins, ends) in enumerate(wanted)
        ]

    def _render_jobs(self, time_steps: TimeSteps) -> list[Job]:
        assert self._scanned is not None
        assert self._mode is not None
        batch = self.batch
        analysed = [self._analysed[number] for number in range(self._span_count)]
        render_plan = plan(self._scanned, analysed, self._mode, time_steps, batch.options)
        self.segments = render_plan.segments
        self.frames_in, self.frames_out = render_plan.frames_in, render_plan.frames_out
        self.cuts, self.held_gaps = render_plan.cuts, render_plan.held_gaps
        self.repeats = render_plan.repeats
        self._note(render_plan.notes)
        self._left = {segment.number for segment in self.segments if not self._is_done(segment)}
        self.resumed = len(self.segments) - len(self._left)
        if not self._left:
            return self._join_jobs()
        return [
            self._job(
                "render",
                number,
                path=self.source,
                scanned=self._scanned,
                segment=self.segments[number],
                mode=self._mode,
                options=batch.options,
                like=self.destination,
                output=self.folder.file(number),
            )
            for number in sorted(self._left)
        ]

    def _join_jobs(self) -> list[Job]:
        return [
            self._job(
                "join",
                path=self.source,
                destination=self.destination,
                files=[self.folder.file(segment.number) for segment in self.segments],
                mode=self._mode,
                options=self.batch.options,
            )
        ]

    def _key(self, segment: Segment) -> str:
        """Text that identifies everything on which the content of a segment file depends."""
        stat = self.source.stat()
        return f"{segment.key} {self.batch.key} {stat.st_size} {stat.st_mtime_ns}"

    def _record(self, segment: Segment, rendered: Rendered) -> None:
        """Counts a rendered segment, and writes the JSON file by which `resume` identifies it."""
        self.frames_new += rendered.frames_new
        self.frames_rendered += rendered.frames
        self._note(rendered.notes)
        record = {"key": self._key(segment), **rendered._asdict()}
        with written_beside(self.folder.file(segment.number).with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(record) + "\n")

    def _is_done(self, segment: Segment) -> bool:
        """Whether an earlier run completed this segment; if so, adds its frames to the counts."""
        file = self.folder.file(segment.number)
        try:
            record = read_json(file.with_suffix(".json"))
            if record["key"] != self._key(segment) or record["sha256"] != file_sha256(file):
                return False
            rendered = {name: record[name] for name in Rendered._fields}
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self.frames_new += rendered["frames_new"]
        self.frames_rendered += rendered["frames"]
        self._note(rendered["notes"])
        return True

    def _note(self, notes: Sequence[str]) -> None:
        """Adds the notes that are new; several segments may have the same note."""
        self.notes += [note for note in notes if note not in self.notes]

    def _copy_report(self, report: VideoReport) -> None:
        self.frames_in, self.frames_out = report.frames_in, report.frames_out
        self.frames_new, self.frames_rendered = report.frames_new, report.frames_out
        self.cuts, self.repeats, self.held_gaps = report.cuts, report.repeats, report.held_gaps
        self._note(report.notes)
