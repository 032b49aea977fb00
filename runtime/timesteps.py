"""Time steps between two frames, and the levels of the recursion that computes them.

Weights that know the midpoint only ("midpoint") reach k / 2^n by recursion: they interpolate
between frames that they computed before. Others ("arbitrary") reach any time step in one call.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Integral, Real
from typing import NamedTuple, SupportsFloat

from runtime.errors import FrameError, kind_of
from runtime.model_info import TimeSteps

MIDPOINT = 0.5
MAXIMUM_DEPTH = 6
"""Largest number of levels of recursion with midpoint-only weights: 64 times the frame rate."""

MAXIMUM_FACTOR = 1000
"""Limit of a factor: 10 frames a second become `runtime.video.rates.MAXIMUM_RATE`."""


class Level(NamedTuple):
    """Time steps that one level of recursion computes, each halfway between two known ones.

    Attributes:
        half: Distance from each time step to the two known ones, 1/2^n.
        timesteps: In ascending order, each in (0, 1).
    """

    half: float
    timesteps: list[float]


def as_float(value: SupportsFloat) -> float:
    """A number as a float, which is infinite if it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def checked_timesteps(timesteps: Iterable[float] | None) -> list[float]:
    """The time steps as floats; None stands for the midpoint.

    Raises:
        FrameError: If they are not a sequence of numbers, or one is not inside (0, 1).
    """
    if timesteps is None:
        return [MIDPOINT]
    if isinstance(timesteps, Real):
        raise FrameError(f"timesteps is {timesteps}, one number: write timesteps=({timesteps},)")
    if isinstance(timesteps, str | bytes | Set | Mapping) or not isinstance(timesteps, Iterable):
        raise FrameError(
            f"timesteps is {kind_of(timesteps)}: give a sequence of numbers, as (0.25, 0.5, 0.75)"
        )
    try:
        steps = [float(t) for t in timesteps]
    except (TypeError, ValueError, OverflowError) as error:
        raise FrameError(
            f"timesteps is {reprlib.repr(timesteps)}, not only numbers: give positions in (0, 1), "
            "as (0.25, 0.5, 0.75)"
        ) from error
    for t in steps:
        if not 0.0 < t < 1.0:
            raise FrameError(
                f"time step {t} is not inside (0, 1): give a position between the frames"
            )
    return steps


def checked_factor(factor: object) -> int:
    """The factor as an int of Python; NumPy's integers are accepted.

    Raises:
        FrameError: If it is not an integer, or below 1.
    """
    if isinstance(factor, bool) or not isinstance(factor, Integral) or factor < 1:
        kind = f", {kind_of(factor)}" if isinstance(factor, float | str) else ""
        raise FrameError(f"factor is {factor!r}{kind}: give a whole number, 2 or more")
    return int(factor)


def timesteps_for_factor(factor: int, known: TimeSteps) -> tuple[float, ...]:
    """The time steps that multiply a frame rate by `factor`: 1/factor, 2/factor and so on.

    Args:
        factor: New frame rate over old, 1 or more.
        known: "midpoint" or "arbitrary": the time steps that the weights were trained for.

    Raises:
        FrameError: If the factor is below 1, above `MAXIMUM_FACTOR`, or not 2^k with midpoint-only
            weights.
    """
    factor = checked_factor(factor)
    if factor > MAXIMUM_FACTOR:
        raise FrameError(f"factor is {reprlib.repr(factor)}: give {MAXIMUM_FACTOR} at most")
    steps = tuple(k / factor for k in range(1, factor))
    if known == "midpoint":
        for t in steps:
            _recursion_depth(t)
    return steps


def recursion_levels(timesteps: Sequence[float]) -> list[Level]:
    """The time steps that recursion must compute for `timesteps`, level by level.

    Each appears once, even if several of `timesteps` depend on it.

    Raises:
        FrameError: If a time step is not k / 2^n with n up to MAXIMUM_DEPTH.
    """
    needed: dict[int, set[float]] = {}
    pending = set(timesteps)
    while pending:
        t = pending.pop()
        depth = _recursion_depth(t)
        if t in needed.setdefault(depth, set()):
            continue
        needed[depth].add(t)
        half = 0.5**depth
        pending |= {end for end in (t - half, t + half) if 0.0 < end < 1.0}
    return [Level(0.5**depth, sorted(needed[depth])) for depth in sorted(needed)]


def _recursion_depth(t: float) -> int:
    """The n of t = k / 2^n with odd k: the number of halvings that lead to t.

    Raises:
        FrameError: If n is above MAXIMUM_DEPTH.
    """
    for depth in range(1, MAXIMUM_DEPTH + 1):
        if (t * 2**depth).is_integer():
            return depth
    raise FrameError(
        f"these weights know the midpoint only, so time steps are k/2^n up to n = "
        f"{MAXIMUM_DEPTH} and factors are powers of two, not {t:g}: "
        "use weights trained for arbitrary time steps (GoPro, demo)"
    )
