"""Chooses output frames and their times, in exact rational seconds, without images or files.

`Timeline` converts times, cuts and repeats to a list of frames to show, each a real one or a new
one between two real ones.

Its times come from a `Clock`, which moves stamps to the grid of a constant rate. So `Multiply`
gives exactly rate x factor for a source of constant rate without treating it specially, and a
source of variable rate keeps each frame at its own time.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Literal, NamedTuple

from runtime.video.timing.slots import EvenSlots, RegularSlots

_MIN_TICKS = 60_000
"""Smallest number of ticks a second of an output; any time is then exact to 17 us."""


_HALF = Fraction(1, 2)

_Between = Literal["new", "blended", "held"]
"""What is shown between two real frames: frames of the model, mixed frames, or the first one."""


def output_time_base(rate: Fraction, factor: int = 1) -> Fraction:
    """The tick of an output, in seconds; a frame at `rate` x `factor` is a whole number of it."""
    frames = rate.numerator * factor
    return Fraction(1, frames * ceil(Fraction(_MIN_TICKS, frames)))


class Shown(NamedTuple):
    """One frame of the output, real or new.

    Real frames are numbered from 0 in the order in which they were pushed.

    Attributes:
        time: Seconds on the output's clock; the first output frame is at 0.
        first: Number of the real frame to show or, with `second`, of the one before a new frame.
        second: Number of the real frame after a new frame; None for a real frame.
        t: Time step of a new frame, in (0, 1); 0 for a real frame.
    """

    time: Fraction
    first: int
    second: int | None = None
    t: Fraction = Fraction(0)


class Blended(Shown):
    """A new frame that mixes the two real ones linearly; the model is not used."""

    __slots__ = ()


@dataclass(frozen=True)
class Multiply:
    """`factor` output frames for each input frame, which divide the time to the next one evenly.

    Real frames keep their times, so that a variable rate stays variable. The last frame is shown
    `factor` times in its own duration.

    Attributes:
        factor: New frame rate over old, 1 or more.
    """

    factor: int

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"factor is {self.factor}: it is 1 or more")


@dataclass(frozen=True)
class ConstantRate:
    """Output frames at k / `rate` seconds from the start, independent of the times of the input.

    Attributes:
        rate: Frames a second.
        snap: Largest distance, as a share of an output frame's duration in [0, 1/2], at which a
            real frame is shown in place of a new one. 1/16 is 1 ms at 60 frames a second, the
            rounding of a clock that counts milliseconds.
    """

    rate: Fraction
    snap: Fraction = Fraction(1, 16)

    def __post_init__(self) -> None:
        if self.rate <= 0 or not 0 <= self.snap <= _HALF:
            raise ValueError(
                f"rate is {self.rate} and snap is {self.snap}: rate is above 0, snap is in [0, 1/2]"
            )


Mode = Multiply | ConstantRate


def output_frame_count(mode: Mode, *, duration: Fraction, rate: Fraction) -> int:
    """Number of output frames; an estimate for `Multiply` with a source of variable rate.

    Args:
        mode: How frames are multiplied.
        duration: Duration of the input or of the part to show, in seconds.
        rate: Nominal frames a second of the input.
    """
    if isinstance(mode, Multiply):
        return max(1, round(duration * rate)) * mode.factor
    return max(1, floor(duration * mode.rate + _HALF))


class Timeline:
    """Chooses the frame to show at each time of the output; real frames are pushed in order.

    - At a scene cut the previous frame is held, not interpolated, or on request mixed with the
      next one. The last frame is held for its duration.
    - Up to `most_repeats` repeats of a frame mean that the scene has a lower rate: A A B B C C is
      A, B, C over twice the gaps, at the same output times. A longer run, or one that ends at a
      cut, is a still scene: its frames are shown unchanged, and motion begins at the last.
    - `Multiply` keeps the duration of the input; `ConstantRate` keeps it to half an output frame
      (but shows at least one frame).
    - `start` and `end` select a part: only output frames in [start, end) are shown. Push the frames
      before `start` too, since the last of them is needed for the first new frame. With
      `ConstantRate` the first output frame is at `start`; with `Multiply` it is the first one
      that is not before `start`. Its input time is `origin`.

    Delay: after a push, the output is certain up to `most_repeats` frames before the pushed one,
    or up to the pushed one where there are no repeats. `ConstantRate` returns an output frame half
    an output frame later, since only then it is certain that the frame belongs to the output.

    Attributes:
        origin: The input time at which the output's clock is 0; None before the first output frame.
        end: The time at which the last output frame ends, on the output's clock; None before
            `finish`.
        done: Whether the output is complete, because the `end` of the part is reached or after
            `finish`; no further frame is needed.
    """

    def __init__(
        self,
        mode: Mode,
        *,
        most_repeats: int = 3,
        dyadic: int | None = None,
        start: Fraction | None = None,
        end: Fraction | None = None,
    ) -> None:
        """Starts before the first frame.

        Args:
            mode: How frames are multiplied.
            most_repeats: Longest run of repeats that means a lower rate; 0 shows all repeats
                unchanged.
            dyadic: For weights that know the midpoint only: t is rounded to the nearest
                k / 2^dyadic, where 0 and 1 are the real frames. The content of a new frame is then
                at most gap / 2^(dyadic + 1) from its time. None: any t.
            start: Where to begin, in seconds of the input's times; by default at the first frame.
            end: Where to stop, in seconds of the input's times; by default after the last frame.

        Raises:
            ValueError: If an argument is out of range.
        """
        if most_repeats < 0 or (dyadic is not None and dyadic < 1):
            raise ValueError(
                f"most_repeats is {most_repeats} and dyadic is {dyadic}: "
                "most_repeats is 0 or more, dyadic is 1 or more"
            )
        if start is not None and end is not None and end <= start:
            raise ValueError(f"end is {end} and start is {start}: end is after start")
        self.origin: Fraction | None = None
        self.end: Fraction | None = None
        self.done = False
        self._slots: EvenSlots | RegularSlots
        if isinstance(mode, Multiply):
            self._slots = EvenSlots(mode.factor)
            self._frame, self._snap = None, Fraction(0)
        else:
            self._frame = 1 / Fraction(mode.rate)
            self._slots = RegularSlots(self._frame, start)
            self._snap = mode.snap * self._frame
        # A slot is part of the output where the input lasts at least this long after it.
        self._margin = (self._frame or Fraction(0)) / 2
        self._most_repeats = most_repeats
        self._parts = None if dyadic is None else 2**dyadic
        self._from, self._to = start, end
        self._count = 0
        self._before: Fraction | None = None  # the time of the frame before the last
        self._still = False
        self._run: list[_InputFrame] = []  # the last frame that is no repeat, and its repeats
        self._pending: deque[Shown] = deque()
        self._shown_until = Fraction(0)

    @property
    def oldest(self) -> int:
        """The lowest frame number that later output frames may refer to."""
        if self.done or not self._run:
            return self._count
        number = self._run[0].number
        return min(number, self._pending[0].first) if self._pending else number

    def push(
        self, time: Fraction, *, cut: bool = False, repeat: bool = False, blend: bool = False
    ) -> list[Shown]:
        """Adds the next frame.

        Args:
            time: Seconds from any origin; later than that of the previous frame.
            cut: Whether a new scene begins with this frame.
            repeat: Whether it repeats the previous frame; ignored at a cut and for the first frame.
            blend: Whether new frames at a cut mix the two; otherwise the previous one is held.

        Returns:
            The output frames that are certain now, in order; often none, or several.

        Raises:
            ValueError: If the time does not rise.
        """
        if self._run and time <= self._run[-1].time:
            raise ValueError(
                f"the frame at {self._run[-1].time} s is followed by one at {time} s: "
                "times must rise, see Clock"
            )
        frame = _InputFrame(self._count, Fraction(time))
        self._count += 1
        if not self._run:
            self._fill([frame.time], frame, frame)
            self._run = [frame]
            return self._certain_frames(frame.time)
        self._before = self._run[-1].time
        if repeat and not cut:
            self._run.append(frame)
            if self._still or len(self._run) > self._most_repeats + 1:
                self._show_unchanged()
                self._still = True
        else:
            if cut:
                self._show_unchanged()
            times = [*(repeated.time for repeated in self._run[1:]), frame.time]
            between: _Between = "new" if not cut else "blended" if blend else "held"
            self._fill(times, self._run[0], frame, between)
            self._run, self._still = [frame], False
        return self._certain_frames(frame.time)

    def finish(self, duration: Fraction | None = None) -> list[Shown]:
        """Ends the input.

        Args:
            duration: Duration of the last frame, in seconds; by default that of the previous one.
                A single frame without a duration is shown once.

        Returns:
            The remaining output frames.

        Raises:
            ValueError: If the duration is not above 0.
        """
        if duration is not None and duration <= 0:
            raise ValueError(f"the last frame lasts {duration} s: expected more than 0")
        if not self._run:
            return []
        self._show_unchanged()
        last = self._run[-1]
        if duration is None:
            duration = Fraction(0) if self._before is None else last.time - self._before
        over = last.time + duration
        self._to = over if self._to is None else min(over, self._to)
        self._fill([over], last, _InputFrame(last.number, over))
        shown = self._certain_frames(self._to)
        self._pending.clear()
        self.done = True
        if self.origin is not None:
            self.end = (
                self._to - self.origin if self._frame is None else self._shown_until + self._frame
            )
        return shown

    def _show_unchanged(self) -> None:
        """Shows the frames of the run unchanged, each from its time to that of the next."""
        for frame, following in itertools.pairwise(self._run):
            self._fill([following.time], frame, following)
        self._run = self._run[-1:]

    def _fill(
        self,
        times: Sequence[Fraction],
        first: _InputFrame,
        second: _InputFrame,
        between: _Between = "held",
    ) -> None:
        """Chooses the output frames after `first` up to `second`.

        Args:
            times: Times of the real frames after `first` up to `second`; those between them are
                repeats of `first`.
            first: A real frame; the output frame at its time was chosen before.
            second: The real frame at the end; the output frame at its time is chosen too.
            between: Whether the frames between the two are new ones, or `first` is held.
        """
        if self.done:
            return
        for slot in self._slots.until(times):
            if self._from is not None and slot < self._from:
                continue
            if self._to is not None and (
                slot >= self._to or (self.origin is not None and slot + self._margin > self._to)
            ):
                self.done = True
                return
            if self.origin is None:
                self.origin = slot
            self._pending.append(self._frame_at(slot, slot - self.origin, first, second, between))

    def _frame_at(
        self,
        slot: Fraction,
        time: Fraction,
        first: _InputFrame,
        second: _InputFrame,
        between: _Between,
    ) -> Shown:
        """Chooses the output frame at an output time `slot` on the input's clock."""
        if slot == second.time:
            return Shown(time, second.number)
        after, before = slot - first.time, second.time - slot
        if before <= self._snap and before <= after:
            return Shown(time, second.number)
        if between == "held" or after <= self._snap:
            return Shown(time, first.number)
        t = after / (after + before)
        if between == "blended":
            return Blended(time, first.number, second.number, t)
        if self._parts is not None:
            t = Fraction(round(t * self._parts), self._parts)
        if t.denominator == 1:
            return Shown(time, first.number if t == 0 else second.number)
        return Shown(time, first.number, second.number, t)

    def _certain_frames(self, until: Fraction) -> list[Shown]:
        """Removes and returns the output frames that are certain if the input lasts until `until`.

        The first output frame is always certain.
        """
        certain: list[Shown] = []
        if self.origin is not None and self._pending:
            limit = max(until - self.origin - self._margin, Fraction(0))
            while self._pending and self._pending[0].time <= limit:
                certain.append(self._pending.popleft())
        if certain:
            self._shown_until = certain[-1].time
        return certain


class _InputFrame(NamedTuple):
    """A frame of the input, with its time in seconds."""

    number: int
    time: Fraction
