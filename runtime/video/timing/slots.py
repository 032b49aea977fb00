"""The times at which an output has frames, in exact rational seconds on the input's clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction


def times_between(time0: Fraction, time1: Fraction, factor: int) -> list[Fraction]:
    """The `factor` - 1 times that divide the time between two frames evenly."""
    return [time0 + (time1 - time0) * k / factor for k in range(1, factor)]


class EvenSlots:
    """Output times of `Multiply`: those of the input frames, and those that divide the gaps."""

    def __init__(self, factor: int) -> None:
        self._factor = factor
        self._last: Fraction | None = None

    def until(self, times: Sequence[Fraction]) -> Iterator[Fraction]:
        """The next output times, up to the last of the input's times."""
        for time in times:
            if self._last is not None:
                yield from times_between(self._last, time, self._factor)
            yield time
            self._last = time


class RegularSlots:
    """Output times of `ConstantRate`: equal steps from the first frame, or from a later `start`."""

    def __init__(self, step: Fraction, start: Fraction | None) -> None:
        self._step = step
        self._start = start
        self._next: Fraction | None = None

    def until(self, times: Sequence[Fraction]) -> Iterator[Fraction]:
        """The next output times, up to the last of the input's times."""
        if self._next is None:
            self._next = times[0] if self._start is None else max(times[0], self._start)
        while self._next <= times[-1]:
            yield self._next
            self._next += self._step
