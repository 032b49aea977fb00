import itertools
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from runtime.timeline import on_grid, output_time_base, times_between

RATES = st.sampled_from(
    [Fraction(24), Fraction(25), Fraction(30), Fraction(60), Fraction(24000, 1001),
     Fraction(30000, 1001), Fraction(60000, 1001), Fraction(15, 2)]
)  # fmt: skip


@given(RATES, st.integers(2, 16))
def test_a_frame_is_a_whole_number_of_ticks(rate, factor):
    tick = output_time_base(rate, factor)
    assert (1 / (rate * factor) / tick).denominator == 1
    assert tick <= Fraction(1, 60_000)
    assert tick.numerator == 1
    assert tick.denominator < 2**31


@given(RATES, st.integers(0, 100_000), st.fractions(0, 10, max_denominator=1000))
def test_milliseconds_of_a_constant_rate_become_exact_again(rate, number, start):
    exact = start + number / rate
    for rounded in (Fraction(round(exact * 1000), 1000), Fraction(int(exact * 1000), 1000)):
        assert on_grid(rounded, start=start, rate=rate, tick=Fraction(1, 1000)) == exact


def test_a_frame_off_the_rate_keeps_its_time():
    late = Fraction(52, 1000)
    found = on_grid(late, start=Fraction(0), rate=Fraction(30), tick=Fraction(1, 1000))
    assert found == late


def test_a_coarse_clock_is_its_own_rhythm():
    stamp = Fraction(3, 100)
    assert on_grid(stamp, start=Fraction(0), rate=Fraction(30), tick=Fraction(1, 100)) == stamp


@given(
    st.fractions(0, 100, max_denominator=90000),
    st.fractions("1/1000", 2, max_denominator=90000),
    st.integers(1, 16),
)
def test_times_between_cut_a_gap_evenly(time0, gap, factor):
    times = [time0, *times_between(time0, time0 + gap, factor), time0 + gap]
    assert len(times) == factor + 1
    assert {b - a for a, b in itertools.pairwise(times)} == {gap / factor}
