"""Chooses the output frames of a video from the facts of its frames: stamps, cuts and repeats.

No images are needed. A run on one machine chooses while it decodes (`OnlineSchedule`). A cluster
collects the facts of all frames, chooses once for the whole video, and gives each segment its part
(`PrecomputedSchedule`), so that the output is the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple, Protocol

from runtime.model_info import TimeSteps
from runtime.timesteps import MAXIMUM_DEPTH
from runtime.video.reading.info import SourceInfo
from runtime.video.timing.clock import Clock
from runtime.video.timing.timeline import Mode, Shown, Timeline

_HALF = Fraction(1, 2)


class FrameFacts(NamedTuple):
    """The facts of a decoded frame that a schedule needs.

    Attributes:
        pts: Stamp, in ticks; None where the file has none.
        time_base: The tick, in seconds.
        duration: In seconds; None where the file does not declare it.
        cut: Whether a new scene begins with the frame.
        repeat: Whether the frame repeats the previous one.
    """

    pts: int | None
    time_base: Fraction
    duration: Fraction | None
    cut: bool
    repeat: bool


class Schedule(Protocol):
    """Receives the facts of frames in order and returns the output frames.

    Frames are numbered from 0 in the order of `push`. Times of output frames are in seconds on the
    source's clock, 0 at its origin.
    """

    @property
    def oldest(self) -> int:
        """The lowest frame number that later output frames may refer to."""

    @property
    def end(self) -> Fraction | None:
        """When the last output frame ends; None before `finish`, and without output frames."""

    def push(self, facts: FrameFacts) -> list[Shown]:
        """Adds the next frame; returns the output frames that are certain now, often none."""

    def finish(self) -> list[Shown]:
        """Ends the input; returns the remaining output frames."""


class OnlineSchedule:
    """A schedule that chooses output frames while frames are pushed.

    Attributes:
        frames: Number of frames pushed so far.
        repeats: Number of those that repeat the previous one.
        cuts: Times of the scene cuts, in seconds after the source's origin.
        held_gaps: Number of gaps so far that were too long to interpolate.
    """

    def __init__(
        self,
        info: SourceInfo,
        mode: Mode,
        time_steps: TimeSteps,
        *,
        known_cuts: Sequence[Fraction] = (),
        longest_gap: Fraction | None = None,
        blend_cuts: bool = False,
        start: Fraction | None = None,
    ) -> None:
        """Starts before the first frame.

        Args:
            info: Properties of the source.
            mode: How frames are multiplied.
            time_steps: The time steps that the weights were trained for.
            known_cuts: Times of scene cuts, rising, in seconds after the source's origin, besides
                those of the frames' facts. A cut is at the first frame that is not more than half
                a nominal frame before its time.
            longest_gap: In a longer gap between two frames, in seconds, the first one is held;
                None: every gap is interpolated.
            blend_cuts: Whether new frames at a cut mix the frames before and after it; otherwise,
                and in a gap longer than `longest_gap`, the one before is held.
            start: Seconds after the beginning at which the output begins; None: at the first
                frame.
        """
        self.frames = self.repeats = self.held_gaps = 0
        self._longest_gap = longest_gap
        self._blend_cuts = blend_cuts
        self._known_cuts = deque(known_cuts)
        self.cuts: list[Fraction] = []
        self._info = info
        self._clock = Clock(info.time_base, info.rate, origin=info.origin, rounding=info.rounding)
        self._timeline = Timeline(
            mode,
            dyadic=MAXIMUM_DEPTH if time_steps == "midpoint" else None,
            start=None if start is None else Fraction(0),
            end=None if info.end is None else info.end - info.origin,
        )
        self._previous = Fraction(0)
        self._gap: Fraction | None = None
        self._duration: Fraction | None = None

    @property
    def oldest(self) -> int:
        """The lowest frame number that later output frames may refer to."""
        return self._timeline.oldest

    @property
    def end(self) -> Fraction | None:
        """When the last output frame ends; None before `finish`, and without output frames."""
        origin, end = self._timeline.origin, self._timeline.end
        return None if origin is None or end is None else origin + end

    @property
    def repaired(self) -> int:
        """Number of frames without a stamp, or with one that did not rise."""
        return self._clock.repaired

    def push(self, facts: FrameFacts) -> list[Shown]:
        """Adds the next frame; returns the output frames that are certain now, often none."""
        moment = self._clock.feed(facts.pts)
        self._gap, self._previous = (moment - self._previous if self.frames else None), moment
        self._duration = facts.duration
        self.frames += 1
        self.repeats += facts.repeat
        gap, longest = self._gap, self._longest_gap
        cut = self._is_known_cut(moment) or facts.cut
        is_long = gap is not None and longest is not None and gap > longest
        held = is_long and not cut
        self.held_gaps += held
        if cut:
            self.cuts.append(moment)
        shown = self._timeline.push(
            moment, cut=cut or held, repeat=facts.repeat, blend=self._blend_cuts and not is_long
        )
        return self._on_source_clock(shown)

    def _is_known_cut(self, moment: Fraction) -> bool:
        """Whether a known cut is at the frame, and not at the first one."""
        found = False
        while self._known_cuts and self._known_cuts[0] <= moment + _HALF / self._info.rate:
            self._known_cuts.popleft()
            found = self.frames > 1
        return found

    def finish(self) -> list[Shown]:
        """Ends the input; returns the remaining output frames."""
        gap, duration = self._gap, self._duration
        if gap is None or (duration is not None and abs(duration - gap) > self._info.time_base):
            gap = duration or 1 / self._info.rate
        return self._on_source_clock(self._timeline.finish(gap))

    def _on_source_clock(self, shown: list[Shown]) -> list[Shown]:
        """Converts times from the output's clock to the source's."""
        origin = self._timeline.origin or Fraction(0)
        return [one._replace(time=origin + one.time) for one in shown]


class PrecomputedSchedule:
    """A schedule of output frames that were chosen in advance.

    Attributes:
        frames: Number of frames pushed so far.
        end: When the last output frame ends.
    """

    def __init__(self, shown: Sequence[Shown], end: Fraction | None) -> None:
        """Starts before the first frame.

        Args:
            shown: The output frames, in order; they refer to frames by their number in `push`.
            end: When the last of them ends; None without output frames.
        """
        self.frames = 0
        self.end = end
        self._remaining = deque(shown)

    @property
    def oldest(self) -> int:
        """The lowest frame number that later output frames refer to."""
        return self._remaining[0].first if self._remaining else self.frames

    def push(self, facts: FrameFacts) -> list[Shown]:
        """Adds the next frame; returns the output frames that need no later one."""
        del facts
        self.frames += 1
        shown = []
        while self._remaining:
            following = self._remaining[0]
            if max(following.first, following.second or 0) >= self.frames:
                break
            shown.append(self._remaining.popleft())
        return shown

    def finish(self) -> list[Shown]:
        """Returns nothing, as every output frame was returned by `push`.

        Raises:
            ValueError: If a frame that an output frame refers to was not pushed.
        """
        if self._remaining:
            raise ValueError(
                f"{self.frames} frames came, frame {self._remaining[0].first} is to be shown"
            )
        return []
