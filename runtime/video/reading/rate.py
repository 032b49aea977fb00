"""Finds the nominal rate of a track: the rate that the file declares, checked against its stamps.

FFmpeg guesses the rate of a file from declared durations, which may be wrong, or from the shortest
distance of two stamps. This module receives the guesses and the first stamps; it reads no files.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from fractions import Fraction
from statistics import fmean, median_low
from typing import NamedTuple

DEFAULT_RATE = Fraction(25)
"""Frames a second of images, and of a file that tells nothing; FFmpeg's default too."""

STAMPS = 48
"""Number of stamps to compare with. With ticks of a millisecond 47 frames at 24 and at 23.976
frames a second end 2 ticks apart."""

_FEWEST = 4
"""With fewer stamps the declared rate is taken."""

_OUTLIERS = 0.05
"""Share of the stamps, on either side, that need not be on the grid of a constant rate."""

_SAME = Fraction(1, 100_000)
"""Relative difference of two fractions that mean the same rate: Matroska counts nanoseconds."""

_NEAR = Fraction(1, 10)
"""Relative difference up to which a declared rate describes frames whose rate varies."""

_NTSC = Fraction(1000, 1001)
_FILM = (Fraction(24000, 1001), Fraction(24))
_FEWEST_OF_FILM = 8
"""With fewer stamps 3:2 pulldown is not recognised."""

_TURNS = 0.8
"""Share of the frames that must be shown for two and three fields in turn."""

_MILLISECOND = Fraction(1, 1000)

_HALVES = (Fraction(25, 2), Fraction(15, 2))


class NominalRate(NamedTuple):
    """The nominal rate of a track.

    Attributes:
        rate: Frames a second.
        regular: Whether the first stamps are those of this constant rate, rounded to the clock of
            the file; True too where there are too few stamps to tell.
    """

    rate: Fraction
    regular: bool


class FilmRate(NominalRate):
    """The rate of film whose frames are shown for two and three fields in turn (3:2 pulldown).

    The file stores film frames, not fields; its stamps are not those of a constant rate.
    """

    __slots__ = ()


def nominal_rate(
    declared: Iterable[Fraction | None],
    stamps: Sequence[Fraction],
    tick: Fraction,
    average: Fraction | None = None,
) -> NominalRate | None:
    """Chooses the declared or usual rate that fits the stamps.

    Where none does, the rate varies. Then it is that of film with the times of 3:2 pulldown, else
    the first declared rate that is near to the usual
    distance of two stamps or to their average, else the average of the track, else the rate of the
    usual distance.

    Args:
        declared: Rates that FFmpeg reads or guesses, the best first; None or 0 for unknown.
        stamps: The first stamps of the track, rising, in seconds; all frames of that time.
        tick: The unit of the stamps, in seconds.
        average: Frames over duration of the whole track; None where the file does not declare it.

    Returns:
        The rate; None if there is no declared rate, and fewer than four stamps.
    """
    known = [_exact(rate) for rate in declared if rate]
    if len(stamps) < _FEWEST:
        return NominalRate(known[0], True) if known else None
    steps = [after - before for before, after in itertools.pairwise(stamps)]
    step = median_low(steps)
    like_it = [one for one in steps if abs(one - step) <= tick]
    measured = len(like_it) / sum(like_it, Fraction(0))
    for rates in (known[:1], known[1:], _usual_rates(measured), [measured]):
        spreads = {rate: _spread(rate, stamps, step, tick) for rate in rates}
        fitting = {rate: spread for rate, spread in spreads.items() if spread is not None}
        if fitting:
            return NominalRate(min(fitting, key=fitting.__getitem__), True)
    if (film := _film_rate(stamps, tick)) is not None:
        return FilmRate(film, False)
    both = measured, len(steps) / (stamps[-1] - stamps[0])
    near = (rate for one in both for rate in known if abs(rate - one) <= _NEAR * one)
    return NominalRate(next(near, average or 1 / step), False)


def _film_rate(stamps: Sequence[Fraction], tick: Fraction) -> Fraction | None:
    """The rate of film whose frames are shown for two and three fields in turn; None for others."""
    if len(stamps) < _FEWEST_OF_FILM:
        return None
    clock = max(tick, _MILLISECOND)  # Stamps may come from a file that counted milliseconds.
    pairs = [after - before for before, after in zip(stamps, stamps[2:], strict=False)]
    usual = median_low(pairs)
    like_it = [pair for pair in pairs if abs(pair - usual) <= clock]
    average = 2 * len(like_it) / sum(like_it, Fraction(0))
    rate = min(_FILM, key=lambda film: abs(film - average))
    field = 1 / (rate * Fraction(5, 2))
    steps = [after - before for before, after in itertools.pairwise(stamps)]
    fields = [
        n if abs(step - n * field) <= clock else 0 for step in steps for n in [round(step / field)]
    ]
    turns = sum({one, other} == {2, 3} for one, other in itertools.pairwise(fields))
    return rate if turns >= _TURNS * (len(fields) - 1) else None


def _usual_rates(measured: Fraction) -> list[Fraction]:
    """Whole numbers and NTSC rates next to a measured rate, and halves of 25 and 15."""
    whole, ntsc = Fraction(round(measured)), round(measured / _NTSC) * _NTSC
    return [rate for rate in (whole, ntsc, *_HALVES) if rate]


def _exact(rate: Fraction) -> Fraction:
    """The usual rate that a declared one stands for; otherwise the declared one."""
    usual = _usual_rates(Fraction(rate))
    return next((one for one in usual if abs(rate - one) <= _SAME * rate), Fraction(rate))


def _spread(
    rate: Fraction, stamps: Sequence[Fraction], step: Fraction, tick: Fraction
) -> float | None:
    """How far stamps are off the grid of a constant rate, in seconds; None if they do not fit it.

    They fit if two neighbours usually are one frame apart, and all are rounded in the same way.
    """
    if abs(step - 1 / rate) > tick:
        return None
    off = sorted(
        float(time - stamps[0] - round((time - stamps[0]) * rate) / rate) for time in stamps
    )
    drop = int(len(off) * _OUTLIERS)
    off = off[drop : len(off) - drop]
    if off[-1] - off[0] > tick * Fraction(101, 100):
        return None
    middle = fmean(off)
    return fmean(abs(one - middle) for one in off)
