"""Frame rates and times, given as numbers or as text, as exact fractions."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from numbers import Rational, Real

from runtime.errors import VideoError

Number = int | float | Decimal | Fraction | str
"""A rate or a time: any real number, also of NumPy, or text."""

_NTSC = Fraction(1000, 1001)
_LARGEST = 2**31 - 1
"""Limit of the numerator and the denominator of a rate, which FFmpeg stores in 32 bits."""

_FINEST = 1_000_000
"""Largest denominator of a rate that was given in decimals: 30.303030303030305 is 1000/33."""


def as_rate(value: Number, name: str = "rate") -> Fraction:
    """Converts a frame rate to an exact fraction.

    Args:
        value: Frames a second: a number, or text as "60", "59.94" or "60000/1001". A rate in
            decimals within 0.01 of an NTSC rate becomes the NTSC rate: 59.94 is 60000/1001.
            Fractions are not changed.
        name: Name of the rate in messages.

    Raises:
        VideoError: If it is not a rate, not above 0, or its fraction exceeds 32 bits.
    """
    exact = _exact(value)
    if exact is None:
        raise VideoError(
            f"{name} is {value!r}, which is not understood: give frames a second as 60, 59.94 or "
            "'60000/1001'"
        )
    if _is_decimal(value):
        near = round(exact / _NTSC) * _NTSC
        if exact.denominator > 1 and abs(exact - near) < Fraction(1, 100):
            exact = near
        exact = exact.limit_denominator(_FINEST)
    if exact <= 0:
        raise VideoError(f"{name} is {value} frames a second: give one above 0")
    if max(exact.numerator, exact.denominator) > _LARGEST:
        raise VideoError(
            f"{name} is {value} frames a second, a fraction of more than 32 bits: round it"
        )
    return exact


def as_seconds(value: Number, name: str = "time") -> Fraction:
    """Converts a time to exact seconds.

    Args:
        value: Seconds as a number or as text, or a clock time as "1:30.5" or "0:01:30.5".
        name: Name of the time in messages.

    Raises:
        VideoError: If it is not a time.
    """
    if isinstance(value, str):
        parts = [_exact(part) for part in value.split(":")]
        known = [part for part in parts if part is not None and part >= 0]
        if len(parts) == len(known) <= 3:
            return sum((part * 60**k for k, part in enumerate(reversed(known))), Fraction(0))
    elif (exact := _exact(value)) is not None:
        return exact
    raise VideoError(
        f"{name} is {value!r}, which is not understood: give seconds as 90.5, or '1:30.5'"
    )


def _exact(value: object) -> Fraction | None:
    """The value as a fraction of Python integers; None if it is not a finite number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, Rational):  # NumPy's integers too, whose parts are not Python's.
        return Fraction(int(value.numerator), int(value.denominator))
    if not isinstance(value, str | Decimal | Real):
        return None
    try:
        return Fraction(str(value))  # The shortest decimals: 59.94 is 5994/100.
    except (ValueError, ZeroDivisionError):
        return None


def _is_decimal(value: Number) -> bool:
    return not isinstance(value, Rational) and "/" not in str(value)
