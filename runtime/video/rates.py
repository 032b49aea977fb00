"""Frame rates and times, given as numbers or as text, as exact fractions."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import inf
from numbers import Rational, Real

from runtime.errors import VideoError

Number = int | float | Decimal | Fraction | str
"""A rate or a time: any real number, also of NumPy, or text."""

MAXIMUM_RATE = 10_000
"""Limit of the frames a second of an output: ten times that of the fastest displays."""

_NTSC = Fraction(1000, 1001)
_LARGEST = 2**31 - 1
"""Limit of the numerator and the denominator of a rate, which FFmpeg stores in 32 bits."""

_LONGEST = 10**12
"""Limit of a time in seconds, 30 000 years."""

_FINEST = 1_000_000
"""Largest denominator of a rate that was given in decimals: 30.303030303030305 is 1000/33."""


def as_rate(value: Number, name: str = "rate", maximum: int = _LARGEST) -> Fraction:
    """Converts a frame rate to an exact fraction.

    Args:
        value: Frames a second: a number, or text as "60", "59.94" or "60000/1001". A rate in
            decimals within 0.01 of an NTSC rate becomes the NTSC rate: 59.94 is 60000/1001.
            Fractions are not changed.
        name: Name of the rate in messages.
        maximum: Limit of the rate.

    Raises:
        VideoError: If it is not a rate, not above 0, above the limit, or its fraction exceeds 32
            bits.
    """
    exact = _exact(value)
    if exact is None:
        raise VideoError(
            f"{name} is {value!r}, which is not understood: give frames a second as 60, 59.94 or "
            "'60000/1001'"
        )
    if _is_decimal(value):
        near = round(exact / _NTSC) * _NTSC
        if exact.denominator > 1 and near > 0 and abs(exact - near) < Fraction(1, 100):
            exact = near
        exact = exact.limit_denominator(_FINEST)
    if exact <= 0:
        raise VideoError(f"{name} is {value} frames a second: give one above 0")
    if exact > maximum:
        raise VideoError(f"{name} is {value} frames a second: give one of {MAXIMUM_RATE} at most")
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
        VideoError: If it is not a time, or longer than 30 000 years.
    """
    exact = _exact(value)
    if isinstance(value, str):
        parts = [_exact(part) for part in value.split(":")]
        known = [part for part in parts if part is not None and part >= 0]
        exact = None
        if len(parts) == len(known) <= 3:
            exact = sum((part * 60**k for k, part in enumerate(reversed(known))), Fraction(0))
    if exact is not None and abs(exact) < _LONGEST:
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
    text = str(value)
    try:
        # Fraction would compute all digits of 1e-999999999 and 1e999999999.
        if "/" not in text and not 0 < abs(float(text)) < inf:
            return Fraction(0) if float(text) == 0 else None
        return Fraction(text)  # The shortest decimals: 59.94 is 5994/100.
    except (ValueError, ZeroDivisionError):
        return None


def _is_decimal(value: Number) -> bool:
    return not isinstance(value, Rational) and "/" not in str(value)
