"""What a video shows, decided from what is known of each frame: its stamp, a cut, a repeat.

Pure, as the timeline is: no images. A run on one machine decides while it decodes
(`OnlineSchedule`); a cluster gathers the facts of all frames, decides once for the whole, and hands
each segment its part (`PrecomputedSchedule`), so that both show the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple, Protocol

from runtime.model_info import TimeSteps
from runtime.timesteps import MAXIMUM_DEPTH
from runtime.video.clock import Clock
from runtime.video.reading.info import SourceInfo
from runtime.video.timeline import Mode, Shown, Timeline


class FrameFacts(NamedTuple):
    """What is known of a decoded frame without its picture.

    Attributes:
        pts: In ticks; None where the file does not say.
        time_base: The tick, in seconds.
        duration: In seconds, where the file says it.
        cut: A new scene begins with it.
        repeat: It shows the same picture as the frame before.
    """

    pts: int | None
    time_base: Fraction
    duration: Fraction | None
    cut: bool
    repeat: bool


class Schedule(Protocol):
    """Takes the frames in order and says what is shown.

    Times of what is shown are in seconds on the source's clock, 0 at its origin.
    """

    @property
    def oldest(self) -> int:
        """The lowest number that what is shown from now on may name."""

    def push(self, facts: FrameFacts) -> list[Shown]:
        """Takes the next frame; gives what is known to be shown next."""

    def finish(self) -> list[Shown]:
        """No frame follows; gives the rest."""


class OnlineSchedule:
    """Decides as frames come.

    Attributes:
        frames: Pushed so far.
        repeats: Of those.
        cuts: Seconds after the origin at which a new scene begins.
    """

    def __init__(
        self,
        info: SourceInfo,
        mode: Mode,
        time_steps: TimeSteps,
        *,
        start: Fraction | None = None,
    ) -> None:
        """Starts before the first frame.

        Args:
            info: Of the source.
            mode: Of the output.
            time_steps: What the weights know.
            start: Where the part begins, if it is one: frames before it are not shown.
        """
        self.frames = self.repeats = 0
        self.cuts: list[Fraction] = []
        self._info = info
        self._clock = Clock(info.time_base, info.rate, origin=info.origin)
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
        """See `Schedule`."""
        return self._timeline.oldest

    @property
    def repaired(self) -> int:
        """Frames without a time stamp, or with one that did not rise."""
        return self._clock.repaired

    def push(self, facts: FrameFacts) -> list[Shown]:
        """See `Schedule`."""
        moment = self._clock.feed(facts.pts)
        self._gap, self._previous = (moment - self._previous if self.frames else None), moment
        self._duration = facts.duration
        self.frames += 1
        self.repeats += facts.repeat
        if facts.cut:
            self.cuts.append(moment)
        return self._placed(self._timeline.push(moment, cut=facts.cut, repeat=facts.repeat))

    def finish(self) -> list[Shown]:
        """See `Schedule`."""
        gap, duration = self._gap, self._duration
        if gap is None or (duration is not None and abs(duration - gap) > self._info.time_base):
            gap = duration or 1 / self._info.rate
        return self._placed(self._timeline.finish(gap))

    def _placed(self, shown: list[Shown]) -> list[Shown]:
        """From the output's clock to the source's."""
        origin = self._timeline.origin or Fraction(0)
        return [one._replace(time=origin + one.time) for one in shown]


class PrecomputedSchedule:
    """Shows what was decided before.

    Attributes:
        frames: Pushed so far.
    """

    def __init__(self, shown: Sequence[Shown]) -> None:
        """Takes what is shown, in order, with the numbers of the frames that will be pushed."""
        self.frames = 0
        self._waiting = deque(shown)

    @property
    def oldest(self) -> int:
        """See `Schedule`."""
        return self._waiting[0].first if self._waiting else self.frames

    def push(self, facts: FrameFacts) -> list[Shown]:
        """See `Schedule`."""
        del facts
        self.frames += 1
        shown = []
        while self._waiting and max(self._waiting[0].first, self._waiting[0].second or 0) < (
            self.frames
        ):
            shown.append(self._waiting.popleft())
        return shown

    def finish(self) -> list[Shown]:
        """See `Schedule`: nothing is left where every frame came that is named."""
        if self._waiting:
            raise ValueError(
                f"{self.frames} frames came, frame {self._waiting[0].first} is to be shown"
            )
        return []
