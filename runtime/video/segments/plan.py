"""Divides a video into segments; plans the output frames of the whole video at once."""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from runtime.model_info import TimeSteps
from runtime.video.options import VideoOptions
from runtime.video.reading.info import SourceInfo
from runtime.video.reading.levels import is_beyond_limits
from runtime.video.reading.source import key_frames, open_source
from runtime.video.reading.watch import Seen, joined, notes_on
from runtime.video.render import frame_facts
from runtime.video.segments.decode import frame_digest, frames_from, open_span
from runtime.video.segments.errors import SeamError
from runtime.video.timing.schedule import FrameFacts, OnlineSchedule
from runtime.video.timing.timeline import Mode, Shown

_OVERLAP = 4
"""Number of frames that are analysed beyond the end of a span.

The detection of a scene cut needs the three frames before it, which the next span does not have for
its own first frames.
"""


class Scan(NamedTuple):
    """Properties of a video that are read without decoding it.

    Attributes:
        info: Properties of the source, without the streams and chapters of the open file.
        seams: Stamps, in ticks, of the key frames at which spans begin; the first span begins with
            the file and has none.
        notes: Notes for the user.
    """

    info: SourceInfo
    seams: list[int]
    notes: tuple[str, ...] = ()


class SpanFacts(NamedTuple):
    """The result of analysing one span.

    Attributes:
        facts: Facts of its frames, in order.
        beyond: Facts of the first frames of the next span, decoded after those of this one.
        digests: Stamp -> hash, of the frames at the seams.
        damaged: Number of packets that could not be decoded.
        seen: What was seen in the frames, for notes.
    """

    facts: list[FrameFacts]
    beyond: list[FrameFacts]
    digests: dict[int, str]
    damaged: int
    seen: Seen


@dataclass(frozen=True)
class Segment:
    """One segment of a video to render.

    Attributes:
        number: Its position, from 0 on.
        stamps: Stamps of the frames to decode, in ticks; the last frames may belong to the next
            segment.
        from_beginning: Whether decoding begins with the file.
        first_digest: Hash of the first frame; None where the file begins with it.
        shown: The output frames; they number source frames by their position in `stamps`.
        end: When the last output frame ends, in seconds on the clock of the whole video.
    """

    number: int
    stamps: tuple[int, ...]
    from_beginning: bool
    first_digest: str | None
    shown: tuple[Shown, ...]
    end: Fraction | None

    @property
    def begins(self) -> int | None:
        """Stamp at which decoding begins, in ticks; None for the beginning of the file."""
        return None if self.from_beginning else self.stamps[0]

    @property
    def key(self) -> str:
        """Hash that is equal for segments with the same output frames."""
        # Segments on disk store it, and `repr` has the names of `Shown` and of its fields: if these
        # are renamed, --resume does not recognise the segments of earlier versions.
        return hashlib.sha256(repr((self.stamps, self.shown, self.end)).encode()).hexdigest()


class RenderPlan(NamedTuple):
    """The output frames of a whole video, divided into segments.

    Attributes:
        segments: In order.
        frames_in: Number of frames of the source.
        frames_out: Number of frames of the output.
        cuts: Times of the scene cuts, in seconds after the beginning.
        repeats: Number of source frames that repeat the previous one.
        held_gaps: Number of gaps that were too long to interpolate.
        notes: Notes for the user on all frames.
    """

    segments: list[Segment]
    frames_in: int
    frames_out: int
    cuts: list[Fraction]
    repeats: int
    held_gaps: int
    notes: list[str]


def scan(path: Path, options: VideoOptions, seconds: Fraction) -> Scan:
    """Reads the properties of a video and chooses the key frames at which spans begin.

    Decodes two frames and reads the stamps of the whole file. With `deinterlace` the whole video is
    one span.

    Args:
        path: A video file.
        options: How it is read.
        seconds: Minimum duration of a span.

    Raises:
        VideoError: If the file has no video, or it is damaged or truncated and `options.strict`.
    """
    with open_source(
        path,
        video_stream=options.video_stream,
        strict=options.strict,
        deinterlace=options.deinterlace,
    ) as read:
        # Streams and chapters belong to the open file, and are not needed before `join`.
        info = replace(read.info, tracks=(), dropped=(), chapters=[])
    stamps, truncated = key_frames(path, options.video_stream, strict=options.strict)
    if options.deinterlace is not None:
        stamps = []  # A deinterlaced frame depends on the frame before it.
    notes = () if truncated is None else (truncated,)
    return Scan(info, seams(stamps, info.time_base, seconds), notes)


def seams(stamps: Sequence[int], tick: Fraction, seconds: Fraction) -> list[int]:
    """Chooses the key frames at which spans begin.

    Args:
        stamps: Stamps of all key frames, rising, in ticks.
        tick: The unit of the stamps, in seconds.
        seconds: Minimum duration of a span.

    Returns:
        The chosen stamps, without that of the first span.
    """
    chosen: list[int] = []
    last = stamps[0] if stamps else 0
    for stamp in stamps[1:]:
        if (stamp - last) * tick >= seconds:
            chosen.append(stamp)
            last = stamp
    return chosen


def spans(scanned: Scan, options: VideoOptions) -> list[tuple[int | None, int | None]]:
    """The spans to analyse: first stamp and end (exclusive) of each, in ticks.

    None stands for the beginning or the end of the file. With `dedupe` the whole video is one span,
    as the frame that a repeat is compared with may be any number of frames before it.
    """
    if options.dedupe:
        return [(None, None)]
    edges = [None, *scanned.seams, None]
    return list(itertools.pairwise(edges))


def analyse(
    path: Path, scanned: Scan, options: VideoOptions, begins: int | None, ends: int | None
) -> SpanFacts:
    """Decodes a span, and detects scene cuts and repeats in it.

    Args:
        path: The source.
        scanned: The result of `scan`.
        options: How it is read.
        begins: Stamp of the first frame, in ticks; None for the beginning of the file.
        ends: Stamp of the first frame of the next span, in ticks; None for the end of the file.

    Raises:
        VideoError: If the source cannot be read.
    """
    facts: list[FrameFacts] = []
    beyond: list[FrameFacts] = []
    digests: dict[int, str] = {}
    marks = set(scanned.seams)
    interlaced = with_wide_luma = 0
    detector = options.detector()
    with open_span(path, scanned.info, options, begins) as source:
        for frame in frames_from(source, begins):
            fact = frame_facts(frame, detector)
            if frame.pts in marks:
                digests[frame.pts] = frame_digest(frame)
            if ends is not None and frame.pts is not None and frame.pts >= ends:
                beyond.append(fact)
                if len(beyond) == _OVERLAP:
                    break
                continue
            facts.append(fact)
            interlaced += frame.frame.interlaced_frame
            with_wide_luma += is_beyond_limits(frame.frame)
        seen = source.seen
        if (begins, ends) != (None, None):
            # The source has seen frames of the next span too.
            seen = Seen(len(facts), interlaced, with_wide_luma, seen.aspects)
        return SpanFacts(facts, beyond, digests, source.damaged, seen)


def plan(
    scanned: Scan,
    analysed: Sequence[SpanFacts],
    mode: Mode,
    time_steps: TimeSteps,
    options: VideoOptions,
) -> RenderPlan:
    """Plans the output frames of the whole video, and divides them into segments.

    Args:
        scanned: The result of `scan`.
        analysed: The results of `analyse` for all spans, in order.
        mode: How frames are multiplied.
        time_steps: The time steps that the weights were trained for.
        options: How the source is read.

    Raises:
        SeamError: If the spans do not fit together: the video must be rendered in one piece.
    """
    facts = _joined_facts(analysed)
    info = scanned.info
    schedule = OnlineSchedule(
        info,
        mode,
        time_steps,
        known_cuts=options.known_cuts(info),
        longest_gap=options.longest_gap_in(info),
        blend_cuts=options.cut_policy == "blend",
    )
    shown = [one for fact in facts for one in schedule.push(fact)]
    shown += schedule.finish()
    if schedule.repaired:
        raise SeamError("it has frames whose time stamp is missing or does not rise")
    stamps = [fact.pts for fact in facts if fact.pts is not None]
    digests: dict[int, str] = {}
    # Two spans may have a hash of one frame. That of the earlier span counts, since it decodes more
    # frames before it.
    for span in reversed(analysed):
        digests |= span.digests
    seam_stamps = [stamp for stamp in scanned.seams if stamp in digests]
    segments = _divided(stamps, shown, schedule.end, seam_stamps, digests)
    return RenderPlan(
        segments,
        schedule.frames,
        len(shown),
        schedule.cuts,
        schedule.repeats,
        schedule.held_gaps,
        notes_on(joined([span.seen for span in analysed]), info.beginning, options.deinterlace),
    )


def _joined_facts(analysed: Sequence[SpanFacts]) -> list[FrameFacts]:
    """The facts of all frames; for the first frames of a span those that the previous span has."""
    if any(span.damaged for span in analysed):
        raise SeamError("it has damaged packets")
    facts = list(analysed[0].facts)
    for before, span in itertools.pairwise(analysed):
        known = before.beyond
        if len(known) < _OVERLAP and span is not analysed[-1]:
            raise SeamError("it has spans of less than four frames between key frames")
        if [fact.pts for fact in known] != [fact.pts for fact in span.facts[: len(known)]]:
            raise SeamError(
                "decoding from a key frame does not give the same frames as decoding from before it"
            )
        if any(span.digests[s] != before.digests[s] for s in span.digests.keys() & before.digests):
            raise SeamError("frames after a key frame refer to frames before it")
        facts += [*known, *span.facts[len(known) :]]
    return facts


def _divided(
    stamps: Sequence[int],
    shown: Sequence[Shown],
    end_of_all: Fraction | None,
    edges_at: Sequence[int],
    digests: dict[int, str],
) -> list[Segment]:
    """Divides output frames; each belongs to the segment of the source frame at or before it."""
    place = {stamp: number for number, stamp in enumerate(stamps)}
    edges = [0, *(place[stamp] for stamp in edges_at if stamp in place and place[stamp] > 0)]
    remaining = deque(shown)
    segments: list[Segment] = []
    for begin, end in zip(edges, [*edges[1:], len(stamps)], strict=True):
        own: list[Shown] = []
        while remaining and remaining[0].first < end:
            own.append(remaining.popleft())
        if not own:
            continue
        last = max(max(one.first, one.second or 0) for one in own)
        segments.append(
            Segment(
                len(segments),
                tuple(stamps[begin : last + 1]),
                begin == 0,
                digests.get(stamps[begin]) if begin else None,
                tuple(_renumbered(one, begin) for one in own),
                remaining[0].time if remaining else end_of_all,
            )
        )
    return segments


def _renumbered(one: Shown, begin: int) -> Shown:
    """The output frame with source frames numbered from `begin` on."""
    second = None if one.second is None else one.second - begin
    return one._replace(first=one.first - begin, second=second)
