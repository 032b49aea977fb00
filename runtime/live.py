"""Interpolation frame by frame, for players and capture loops."""

from __future__ import annotations

import reprlib
from fractions import Fraction
from math import isfinite
from numbers import Rational, Real
from typing import NamedTuple

from runtime.backends.base import Image
from runtime.batching import ImagePair, PairRunner
from runtime.errors import FrameError
from runtime.frames import Frame, check_frame
from runtime.timesteps import as_float, checked_factor, timesteps_for_factor

Time = int | float | Fraction
"""A point in time, in any unit, from any origin; NumPy scalars are accepted."""


class TimedFrame(NamedTuple):
    """A frame and the time at which it is shown.

    Attributes:
        time: In the unit of the times that were pushed.
        frame: (H, W, 3), of the size and type of the frames that were pushed.
    """

    time: Time
    frame: Frame


class _Held(NamedTuple):
    time: Time
    frame: Frame
    image: Image


class Live:
    """Multiplies the frame rate of a live stream; created by `Interpolator.live`.

        live = vfi.live(factor=2)
        for time, frame in live.push(time1, frame1):
            show(time, frame)

    The delay is one frame: `push` returns the previous frame and the new ones after it, once they
    are computed, which slows a faster producer down. The instance holds one frame, and each frame
    is uploaded to the model's device once.

    Frames that were pushed are returned as the same object with the same time; do not write to a
    frame before it is returned. The time of a new frame is a float if the time of a neighbour is
    one, otherwise an exact Fraction.

    An instance is for one stream and one thread. Several may share an Interpolator, which must
    stay open.
    """

    def __init__(self, runner: PairRunner, *, factor: int = 2, max_gap: Time | None = None) -> None:
        """Starts with no frame.

        Args:
            runner: Runs the model.
            factor: New frame rate over old; 2^k with weights that know the midpoint only.
            max_gap: The longest time between two frames that are interpolated, in the unit of the
                times; None: no limit.

        Raises:
            FrameError: If `factor` or `max_gap` is out of range.
        """
        if max_gap is True or not (max_gap is None or (isinstance(max_gap, Real) and max_gap > 0)):
            raise FrameError(f"max_gap is {max_gap!r}: give a time above 0, or None")
        self._runner = runner
        self._factor = checked_factor(factor)
        self._steps = timesteps_for_factor(self._factor, runner.info.time_steps)
        self._max_gap = max_gap
        self._held: _Held | None = None

    def push(self, time: Time, frame: Frame) -> list[TimedFrame]:
        """Adds the next frame and returns the frames to show before it.

        Args:
            time: The time at which `frame` is shown, finite.
            frame: (H, W, 3), RGB or in the order of `Interpolator.channels`: uint8, or uint16 and
                float32 in [0, 1] with a float I/O model.

        Returns:
            The previous frame at its own time, then `factor` - 1 new ones, evenly spaced. At a
            discontinuity (`time` does not rise, a gap longer than `max_gap`, another size or type)
            the previous frame alone. An empty list for the first frame and after `reset`.

        Raises:
            FrameError: If `frame` or `time` is invalid, or the frame does not fit the model.
            BackendError: If the inference fails. After an error the state is unchanged.
        """
        if type(time) is bool or not isinstance(time, Real) or not isfinite(as_float(time)):
            raise FrameError(f"time is {reprlib.repr(time)}: give a finite int, float or Fraction")
        check_frame(frame, "frame")
        self._runner.check_takes_frame(frame)
        held = self._held
        new = _Held(time, frame, self._runner.put(frame))
        shown = []
        if held is not None:
            shown.append(TimedFrame(held.time, held.frame))
            if self._continues(held, new):
                shown += self._between(held, new)
        self._held = new
        return shown

    def reset(self) -> list[TimedFrame]:
        """Returns the last frame that was pushed, unless it was returned already.

        No frame is interpolated between it and the next one. Call this at the end of the stream, at
        a seek and at a scene cut.
        """
        held, self._held = self._held, None
        return [] if held is None else [TimedFrame(held.time, held.frame)]

    def _continues(self, held: _Held, new: _Held) -> bool:
        alike = (held.frame.shape, held.frame.dtype) == (new.frame.shape, new.frame.dtype)
        if not alike or new.time <= held.time:
            return False
        return self._max_gap is None or new.time - held.time <= self._max_gap

    def _between(self, held: _Held, new: _Held) -> list[TimedFrame]:
        pair = ImagePair(held.image, new.image, self._steps)
        frames = self._runner.frames_between(pair, held.frame)
        start, end = _exact(held.time), _exact(new.time)
        exact = isinstance(held.time, Rational) and isinstance(new.time, Rational)
        shown = []
        for k, frame in enumerate(frames, 1):
            time = start + (end - start) * k / self._factor
            shown.append(TimedFrame(time if exact else float(time), frame))
        return shown


def _exact(time: Time) -> Fraction:
    """The time as a Fraction of Python integers, which NumPy scalars are not."""
    if isinstance(time, Rational):
        return Fraction(int(time.numerator), int(time.denominator))
    return Fraction(float(time))
