"""Which parts a video is cut into, and what is shown of each: decided once for the whole."""

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
from runtime.video.reading.source import key_frames, open_source
from runtime.video.render import frame_facts
from runtime.video.schedule import FrameFacts, OnlineSchedule
from runtime.video.segments.decode import frame_digest, frames_from, open_part
from runtime.video.segments.errors import SeamError
from runtime.video.timeline import Mode, Shown

_OVERLAP = 4
"""Frames that are looked at beyond a part: a cut is judged by the three frames before it, so what
the next part says of its own first ones does not count."""


class Scan(NamedTuple):
    """What is known of a video before its frames are looked at.

    Attributes:
        info: Of the source, without what lives only while the file is open.
        seams: Stamps, in ticks, of the key frames at which parts begin; the first part begins with
            the file.
        notes: What the user should know.
    """

    info: SourceInfo
    seams: list[int]
    notes: tuple[str, ...] = ()


class Look(NamedTuple):
    """What was seen of one part.

    Attributes:
        facts: Of its frames.
        beyond: Of the first frames of the next part, seen with this one's before them.
        pictures: Hashes of the frames at the seams, by their stamps.
        damaged: Packets that could not be decoded.
    """

    facts: list[FrameFacts]
    beyond: list[FrameFacts]
    pictures: dict[int, str]
    damaged: int


@dataclass(frozen=True)
class Segment:
    """One part of a video, as it is rendered.

    Attributes:
        number: From 0 on.
        stamps: Of the frames to decode, in ticks; the last ones may belong to the next part.
        from_beginning: Whether decoding begins with the file.
        picture: Hash of the first frame; None where the file begins with it.
        shown: What is shown, with the numbers of `stamps`.
    """

    number: int
    stamps: tuple[int, ...]
    from_beginning: bool
    picture: str | None
    shown: tuple[Shown, ...]

    @property
    def begins(self) -> int | None:
        """Stamp at which decoding begins; None for the file's own beginning."""
        return None if self.from_beginning else self.stamps[0]

    @property
    def key(self) -> str:
        """The same for segments that show the same."""
        return hashlib.sha256(repr((self.stamps, self.shown)).encode()).hexdigest()


class Decided(NamedTuple):
    """What is shown of the whole.

    Attributes:
        segments: That together show it.
        frames_in: Of the source.
        frames_out: Of the result.
        cuts: Seconds after the beginning at which a new scene begins.
        repeats: Frames that repeat the one before.
    """

    segments: list[Segment]
    frames_in: int
    frames_out: int
    cuts: list[Fraction]
    repeats: int


def scan(path: Path, options: VideoOptions, seconds: Fraction) -> Scan:
    """Reads what the file says of itself, and where its key frames are; decodes two frames.

    Args:
        path: A video file.
        options: How it is read.
        seconds: That a part lasts at least.

    Raises:
        VideoError: If there is no video in it, or it is damaged or truncated and `options.strict`.
    """
    with open_source(path, video_stream=options.video_stream, strict=options.strict) as read:
        # Streams and chapters belong to the open file, and parts have neither.
        info = replace(read.info, tracks=(), dropped=(), chapters=[])
    stamps, truncated = key_frames(path, options.video_stream, strict=options.strict)
    notes = () if truncated is None else (truncated,)
    return Scan(info, seams(stamps, info.time_base, seconds), notes)


def seams(stamps: Sequence[int], tick: Fraction, seconds: Fraction) -> list[int]:
    """Of the stamps of key frames, rising, those at which a part begins, the first left out."""
    chosen: list[int] = []
    last = stamps[0] if stamps else 0
    for stamp in stamps[1:]:
        if (stamp - last) * tick >= seconds:
            chosen.append(stamp)
            last = stamp
    return chosen


def parts(found: Scan, options: VideoOptions) -> list[tuple[int | None, int | None]]:
    """The parts that are looked at apart: where each begins and ends, None for the file's own.

    A repeat is judged by the last frame that was none, however long ago: with `dedupe` the whole
    is one part.
    """
    if options.dedupe:
        return [(None, None)]
    edges = [None, *found.seams, None]
    return list(itertools.pairwise(edges))


def look(
    path: Path, found: Scan, options: VideoOptions, begins: int | None, ends: int | None
) -> Look:
    """Decodes a part and judges its frames.

    Raises:
        VideoError: If it cannot be read.
    """
    facts: list[FrameFacts] = []
    beyond: list[FrameFacts] = []
    pictures: dict[int, str] = {}
    marks = set(found.seams)
    detector = options.detector()
    with open_part(path, found.info, options, begins) as read:
        for frame in frames_from(read, begins):
            seen = frame_facts(frame, detector)
            if frame.pts in marks:
                pictures[frame.pts] = frame_digest(frame)
            over = ends is not None and frame.pts is not None and frame.pts >= ends
            (beyond if over else facts).append(seen)
            if len(beyond) == _OVERLAP:
                break
        return Look(facts, beyond, pictures, read.damaged)


def decide(found: Scan, looks: Sequence[Look], mode: Mode, time_steps: TimeSteps) -> Decided:
    """Decides for the whole what is shown, and divides it.

    Raises:
        SeamError: If the parts do not fit together: the video must be rendered in one piece.
    """
    facts = _joined_facts(looks)
    schedule = OnlineSchedule(found.info, mode, time_steps)
    shown = [one for fact in facts for one in schedule.push(fact)]
    shown += schedule.finish()
    if schedule.repaired:
        raise SeamError("it has frames without a time stamp, or with one that does not rise")
    stamps = [fact.pts for fact in facts if fact.pts is not None]
    pictures: dict[int, str] = {}
    for seen in reversed(looks):  # as decoded with what lies before, where there are two
        pictures |= seen.pictures
    segments = _divided(stamps, shown, [s for s in found.seams if s in pictures], pictures)
    return Decided(segments, schedule.frames, len(shown), schedule.cuts, schedule.repeats)


def _joined_facts(looks: Sequence[Look]) -> list[FrameFacts]:
    """The facts of all frames; of the first ones of a part what the part before it saw counts."""
    if any(seen.damaged for seen in looks):
        raise SeamError("it has damage")
    facts = list(looks[0].facts)
    for before, seen in itertools.pairwise(looks):
        known = before.beyond
        if len(known) < _OVERLAP and seen is not looks[-1]:
            raise SeamError("it has parts of less than four frames")
        if [fact.pts for fact in known] != [fact.pts for fact in seen.facts[: len(known)]]:
            raise SeamError("its frames around a key frame are not the same from there on")
        if any(
            seen.pictures[s] != before.pictures[s] for s in seen.pictures.keys() & before.pictures
        ):
            raise SeamError("its key frames need frames from before them")
        facts += [*known, *seen.facts[len(known) :]]
    return facts


def _divided(
    stamps: Sequence[int],
    shown: Sequence[Shown],
    at: Sequence[int],
    pictures: dict[int, str],
) -> list[Segment]:
    """What is shown belongs to the part of the frame that it comes from or follows."""
    place = {stamp: number for number, stamp in enumerate(stamps)}
    edges = [0, *(place[stamp] for stamp in at if stamp in place and place[stamp] > 0)]
    waiting = deque(shown)
    segments: list[Segment] = []
    for begin, end in zip(edges, [*edges[1:], len(stamps)], strict=True):
        own: list[Shown] = []
        while waiting and waiting[0].first < end:
            own.append(waiting.popleft())
        if not own:
            continue
        last = max(max(one.first, one.second or 0) for one in own)
        segments.append(
            Segment(
                len(segments),
                tuple(stamps[begin : last + 1]),
                begin == 0,
                pictures.get(stamps[begin]) if begin else None,
                tuple(_moved(one, begin) for one in own),
            )
        )
    return segments


def _moved(one: Shown, begin: int) -> Shown:
    """Counts frames from the first of the part on."""
    second = None if one.second is None else one.second - begin
    return one._replace(first=one.first - begin, second=second)
