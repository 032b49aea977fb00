import argparse
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from runtime import VideoError
from runtime.video.arguments import parse_rate
from runtime.video.rates import as_rate, as_seconds

NTSC = Fraction(60000, 1001)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("60", 60), ("59.94", NTSC), ("23.976", Fraction(24000, 1001)),
     ("60000/1001", NTSC), ("12.5", Fraction(25, 2)), ("119.88", Fraction(120000, 1001))],
)  # fmt: skip
def test_common_texts_of_rates_are_understood(text, rate):
    assert as_rate(text) == rate
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("number", "rate"),
    [(60, 60), (60.0, 60), (59.94, NTSC), (60000 / 1001, NTSC), (Decimal("59.94"), NTSC),
     (np.float32(59.94), NTSC), (np.float64(12.5), Fraction(25, 2)), (np.int64(60), 60),
     (1000 / 33, Fraction(1000, 33)), (Fraction(5994, 100), Fraction(5994, 100))],
)  # fmt: skip
def test_numbers_give_the_rate_of_their_decimal_form(number, rate):
    made = as_rate(number)
    assert made == rate
    assert type(made.numerator) is int


@pytest.mark.parametrize(
    "value",
    [
        "x",
        "",
        "1/0",
        "60 fps",
        "nan",
        "1e400",
        "1e999999999",
        float("nan"),
        float("inf"),
        True,
        None,
        [60],
        1j,
        b"6",
    ],
)
def test_invalid_rates_are_refused(value):
    with pytest.raises(VideoError, match="which is not understood: give frames a second as"):
        as_rate(value)


@pytest.mark.parametrize("value", [0, -1, -59.94, "0", "-1/2", "1e-999999999"])
def test_a_rate_must_be_above_zero(value):
    with pytest.raises(VideoError, match="frames a second: give one above 0"):
        as_rate(value)


@pytest.mark.parametrize("value", [Fraction(1, 2**31), Fraction(2**40 + 1, 2**40)])
def test_a_rate_must_fit_into_32_bits(value):
    with pytest.raises(VideoError, match="more than 32 bits: round it"):
        as_rate(value)


@pytest.mark.parametrize("value", [10**12, 1e300, "1e20"])
def test_a_rate_that_is_far_too_high_is_refused(value):
    with pytest.raises(VideoError, match="frames a second: give one of 10000 at most"):
        as_rate(value)


def test_a_low_rate_in_decimals_is_no_ntsc_rate():
    assert as_rate("0.001") == Fraction(1, 1000)
    assert as_rate(0.5) == Fraction(1, 2)


def test_the_error_of_the_command_names_the_rate():
    with pytest.raises(argparse.ArgumentTypeError, match="'x', which is not understood"):
        parse_rate("x")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(90, 90), (90.5, Fraction(181, 2)), (0.1, Fraction(1, 10)), ("90.5", Fraction(181, 2)),
     ("1:30.5", Fraction(181, 2)), ("1:00:01", 3601), (np.float32(0.1), Fraction(1, 10))],
)  # fmt: skip
def test_times_are_seconds_or_clock_times(value, seconds):
    assert as_seconds(value, "start") == seconds


@pytest.mark.parametrize(
    "value",
    [
        "x",
        "",
        "-1",
        "1:2:3:4",
        "1:-2",
        "1::2",
        True,
        None,
        float("nan"),
        (),
        "inf",
        1e300,
        "1e999999999",
        "1e300:0",
    ],
)
def test_invalid_times_are_refused(value):
    with pytest.raises(VideoError, match=r"^start is .*, which is not understood: give seconds as"):
        as_seconds(value, "start")
