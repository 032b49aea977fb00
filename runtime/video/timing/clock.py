"""Converts the stamps of a decoder to rising, exact times, without frames or files.

This module alone recognises constant rates: `on_grid` moves stamps to the grid of the nominal rate.
"""

from __future__ import annotations

from fractions import Fraction

_COARSE_TICK = Fraction(1, 500)
"""Seconds. Stamps with longer ticks are not treated as rounded stamps of a constant rate."""

_JUMP = Fraction(1)
"""Seconds. A stamp that falls back by more begins a new clock (joined recordings); one that falls
back by less is a single wrong stamp."""

_HALF = Fraction(1, 2)


def on_grid(time: Fraction, *, start: Fraction, rate: Fraction, tick: Fraction) -> Fraction:
    """Undoes the rounding of a container's clock.

    Matroska counts milliseconds: frames at 30 a second have the stamps 0, 33, 67, 100.

    Args:
        time: The stamp, in seconds.
        start: The stamp of the first frame, in seconds.
        rate: Nominal frames a second.
        tick: The unit of the container's clock, in seconds.

    Returns:
        The time of the nearest frame of the constant rate if it is less than a tick away, otherwise
        `time`.
    """
    exact = start + round((time - start) * rate) / rate
    return exact if tick <= _COARSE_TICK and abs(time - exact) < tick else time


class Clock:
    """Converts the stamps of decoded frames, in order, to rising, exact times.

    A frame without a stamp follows one nominal frame after the previous time. A frame whose stamp
    does not rise follows half a nominal frame after the previous time, so that later frames keep
    their own stamps. If a stamp falls back by more than a second, its frame follows one nominal
    frame after the previous time, and later stamps are counted from it.

    Attributes:
        origin: The stamp, in seconds, that is time 0; None until it is known.
        repaired: Number of stamps that were missing or did not rise.
    """

    def __init__(
        self,
        tick: Fraction,
        rate: Fraction,
        *,
        origin: Fraction | None = None,
        rounding: Fraction | None = None,
    ) -> None:
        """Starts before the first frame.

        Args:
            tick: The unit of the stamps, in seconds.
            rate: Nominal frames a second.
            origin: The stamp, in seconds, that is time 0; frames before it get negative times. By
                default that of the first frame.
            rounding: The tick to which the file rounds the stamps of a constant rate, in seconds;
                None for `tick`, 0 where the rate varies.

        Raises:
            ValueError: If `tick` or `rate` is not above 0.
        """
        if tick <= 0 or rate <= 0:
            raise ValueError(f"tick is {tick} and rate is {rate}: both are above 0")
        self.origin = origin
        self.repaired = 0
        self._tick = Fraction(tick)
        self._rounding = self._tick if rounding is None else rounding
        self._rate = Fraction(rate)
        self._zero = origin
        self._grid: Fraction | None = None
        self._last: Fraction | None = None

    def feed(self, pts: int | None) -> Fraction:
        """Returns the time of the next frame, in seconds after `origin`, later than all before.

        Args:
            pts: Its stamp, in ticks; None where it has none.
        """
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
        exact = on_grid(time, start=self._grid, rate=self._rate, tick=self._rounding)
        return exact if last is None or exact > last else time

    def _expected(self) -> Fraction:
        return Fraction(0) if self._last is None else self._last + 1 / self._rate
