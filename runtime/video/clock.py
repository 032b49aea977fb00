"""Rising, exact times from the stamps of a decoder. Pure: no frames, no files.

Constant rates are recognised here, and nowhere else: stamps are put on the grid of the nominal rate
(`on_grid`).
"""

from __future__ import annotations

from fractions import Fraction

_COARSE_TICK = Fraction(1, 500)
"""A clock with longer ticks is not rounded from a regular grid but has its own rhythm."""

_JUMP = Fraction(1)
"""Seconds. A stamp that falls back further begins a new clock (joined recordings); one that falls
back less is out of place by itself."""

_HALF = Fraction(1, 2)


def on_grid(time: Fraction, *, start: Fraction, rate: Fraction, tick: Fraction) -> Fraction:
    """Undoes the rounding of a container's clock.

    Matroska counts milliseconds: 30 frames a second lie at 0, 33, 67, 100. A stamp nearer than a
    tick to a frame of the constant rate is taken for that frame; any other is left as it is.

    Args:
        time: The stamp, in seconds.
        start: Of the first frame.
        rate: Nominal frames a second.
        tick: Of the container's clock, in seconds.
    """
    exact = start + round((time - start) * rate) / rate
    return exact if tick <= _COARSE_TICK and abs(time - exact) < tick else time


class Clock:
    """Makes rising, exact times of the stamps of decoded frames.

    A missing stamp is one nominal frame after the last time. One that does not rise is half a
    nominal frame after it, so that the frames that follow are not pushed off their own stamps; if
    it falls back by more than a second, it and what follows go on one nominal frame after the last.

    Attributes:
        origin: The stamp, in seconds, that is time 0; None until it is known.
        repaired: How many stamps were missing or did not rise.
    """

    def __init__(self, tick: Fraction, rate: Fraction, *, origin: Fraction | None = None) -> None:
        """Starts before the first frame.

        Args:
            tick: Of the stamps, in seconds.
            rate: Nominal frames a second.
            origin: In seconds; by default the first frame is at 0. Earlier frames get negative
                times.
        """
        if tick <= 0 or rate <= 0:
            raise ValueError(f"tick is {tick} and rate is {rate}: both are above 0")
        self.origin = origin
        self.repaired = 0
        self._tick = Fraction(tick)
        self._rate = Fraction(rate)
        self._zero = origin
        self._grid: Fraction | None = None
        self._last: Fraction | None = None

    def feed(self, pts: int | None) -> Fraction:
        """The time of the next frame, in seconds after `origin`; above all times before."""
        self._last = self._time(pts)
        return self._last

    def _time(self, pts: int | None) -> Fraction:
        last = self._last
        if pts is None:
            self.repaired += 1
            return self._expected()
        stamp = pts * self._tick
        if self._zero is None:
            self.origin = self._zero = stamp - self._expected()
        time = stamp - self._zero
        if last is not None and time <= last:
            self.repaired += 1
            if last - time <= _JUMP:
                return last + _HALF / self._rate
            self._grid = self._expected()
            self._zero = stamp - self._grid
            return self._grid
        if self._grid is None:
            self._grid = time
        exact = on_grid(time, start=self._grid, rate=self._rate, tick=self._tick)
        return exact if last is None or exact > last else time

    def _expected(self) -> Fraction:
        return Fraction(0) if self._last is None else self._last + 1 / self._rate
