"""Checks of what `interpolate_video` and `plan_video` are asked for, before anything is written."""

from __future__ import annotations

import os
import reprlib
from fractions import Fraction
from math import inf
from numbers import Real
from pathlib import Path

from runtime.errors import FrameError, VideoError, kind_of
from runtime.files import path_problem
from runtime.frames import check_sides
from runtime.timesteps import MAXIMUM_FACTOR, as_float, checked_factor
from runtime.video.options import VideoOptions
from runtime.video.rates import MAXIMUM_RATE, Number, as_rate
from runtime.video.reading.info import SourceInfo
from runtime.video.reading.opening import is_url
from runtime.video.timing.timeline import Mode, Multiply
from runtime.video.writing.destination import check_destination


def checked_options(
    source: str | Path, destination: str | Path, options: VideoOptions | None
) -> VideoOptions:
    """The options, by default those of `VideoOptions()`; checks the paths too.

    Raises:
        VideoError: If one of the three is of another type, a path is impossible, or the destination
            cannot be written.
    """
    for name, path in (("source", source), ("destination", destination)):
        if not isinstance(path, str | os.PathLike) or not str(path):
            found = "''" if path == "" else kind_of(path)
            raise VideoError(f"{name} is {found}: give a path, or '-' for Y4M")
        if not is_url(path) and (why := path_problem(path)):
            raise VideoError(f"{name} is {reprlib.repr(str(path))}, {why}: give another path")
    if not isinstance(options, VideoOptions | None):
        raise VideoError(f"options is {kind_of(options)}: give VideoOptions(...)")
    options = options or VideoOptions()
    if str(destination) != "-":
        check_destination(destination, source, overwrite=options.overwrite)
    return options


def factor_and_rate(
    factor: int | None, rate: Number | None, info: SourceInfo | None = None
) -> tuple[int, Fraction | None]:
    """The factor, 2 by default, and the exact rate, which replaces the factor if it is not None.

    Args:
        factor: New frame rate over old, or None.
        rate: Frames a second of the output, or None.
        info: Properties of the source, for messages; None where they are not known.

    Raises:
        VideoError: If both are given, or the rate is invalid.
        FrameError: If the factor is invalid.
    """
    if rate is None:
        if _is_between_whole_numbers(factor):
            other = "a rate (--rate)"
            if info is not None:
                times = info.rate * Fraction(str(factor))
                other = f"{_shown(times)} as the rate (--rate), {factor} times that of {info.name}"
            raise FrameError(f"factor is {factor}: give a whole number, 2 or more, or {other}")
        return checked_factor(2 if factor is None else factor), None
    if factor is not None:
        raise VideoError(
            f"factor={factor} and rate={rate} were both given, the rate takes the place of the "
            "factor: leave one out"
        )
    return 2, as_rate(rate)


def check_mode(mode: Mode, info: SourceInfo, factor: int | None, frames: int | None) -> None:
    """Checks that an output is neither too fast for any use nor a single frame of a longer source.

    Args:
        mode: How the frames of the source are multiplied.
        info: Properties of the source.
        factor: New frame rate over old; None where a rate was given.
        frames: Number of output frames expected; None where the duration is not known.

    Raises:
        VideoError: If it is.
    """
    amount = "too many" if frames is None else f"about {frames}"
    if factor is not None and factor > MAXIMUM_FACTOR:
        raise VideoError(
            f"factor {factor} would make {amount} frames of {info.name}, a factor is "
            f"{MAXIMUM_FACTOR} at most: give a lower factor"
        )
    if isinstance(mode, Multiply):
        return
    rate = f"rate {_shown(mode.rate)}"
    asked = rate if factor is None else f"factor {factor}, which is {rate},"
    if mode.rate > MAXIMUM_RATE:
        raise VideoError(
            f"{asked} would make {amount} frames of {info.name}, at most {MAXIMUM_RATE} frames a "
            f"second are possible: give a lower {'rate' if factor is None else 'factor'}"
        )
    if mode.rate < info.rate and frames == 1:
        raise VideoError(f"{asked} would make one frame of {info.name}: give a higher rate")


def check_size(info: SourceInfo) -> None:
    """Checks that the frames of a source are not too small for the network.

    Raises:
        FrameError: If they are.
    """
    check_sides(info.height, info.width, f"a frame of {info.name}")


def _is_between_whole_numbers(factor: object) -> bool:
    """Whether a factor is a finite number above 1 that is not whole."""
    if not isinstance(factor, Real):
        return False
    return 1 < as_float(factor) < inf and not as_float(factor).is_integer()


def _shown(rate: Fraction) -> str:
    """A rate for messages: 59.9401 for 60000/1001."""
    return str(rate) if rate.denominator == 1 else f"{float(rate):.6g}"
