"""When each frame is shown, in exact rational seconds. Pure: no frames, no files."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

_FINE = 60_000
"""Ticks a second that an output has at least, so that odd time stamps are kept to 17 us."""

_COARSE_TICK = Fraction(1, 500)
"""A clock with longer ticks is not rounded from a regular grid but has its own rhythm."""


def output_time_base(rate: Fraction, factor: int) -> Fraction:
    """The tick of an output: a whole number of them make one frame at `rate` x `factor`."""
    frames = rate.numerator * factor
    return Fraction(1, frames * ceil(Fraction(_FINE, frames)))


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


def times_between(time0: Fraction, time1: Fraction, factor: int) -> list[Fraction]:
    """The `factor` - 1 times that cut the gap between two frames evenly."""
    return [time0 + (time1 - time0) * k / factor for k in range(1, factor)]
