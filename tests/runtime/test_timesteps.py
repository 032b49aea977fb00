"""Time steps of a factor, and the levels of recursion that reach them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import FrameError
from runtime.timesteps import (
    MAXIMUM_DEPTH,
    Level,
    checked_timesteps,
    recursion_levels,
    timesteps_for_factor,
)

DYADIC = st.integers(1, 2**MAXIMUM_DEPTH - 1).map(lambda k: k / 2**MAXIMUM_DEPTH)


def test_the_midpoint_is_one_level():
    assert recursion_levels([0.5]) == [Level(0.5, [0.5])]


def test_intermediate_time_steps_are_computed_once():
    assert recursion_levels([0.25, 0.75, 0.125]) == [
        Level(0.5, [0.5]), Level(0.25, [0.25, 0.75]), Level(0.125, [0.125]),
    ]  # fmt: skip


@given(st.lists(DYADIC, max_size=8))
def test_every_time_step_is_in_the_middle_of_two_known_ones(wanted):
    known = {0.0, 1.0}
    for half, level in recursion_levels(wanted):
        assert level == sorted(set(level))
        assert not known & set(level)
        for t in level:
            assert {t - half, t + half} <= known
        known |= set(level)
    assert set(wanted) <= known


@pytest.mark.parametrize("t", [1 / 3, 0.1, 1 / 2 ** (MAXIMUM_DEPTH + 1)])
def test_time_steps_that_recursion_cannot_reach_are_refused(t):
    with pytest.raises(FrameError, match=r"up to n = 6 and factors are powers of two, not 0\.\d"):
        recursion_levels([0.5, t])


def test_a_factor_gives_evenly_spaced_time_steps():
    assert timesteps_for_factor(1, "midpoint") == ()
    assert timesteps_for_factor(4, "midpoint") == (0.25, 0.5, 0.75)
    assert timesteps_for_factor(3, "arbitrary") == (1 / 3, 2 / 3)
    with pytest.raises(FrameError, match="factors are powers of two"):
        timesteps_for_factor(3, "midpoint")


@pytest.mark.parametrize("factor", [0, -1, True, 2.0, "2"])
def test_invalid_factors_are_refused(factor):
    with pytest.raises(FrameError, match="give a whole number, 2 or more"):
        timesteps_for_factor(factor, "arbitrary")


@pytest.mark.parametrize("factor", [1001, 10**9, 10**100])
def test_a_factor_beyond_any_use_is_refused(factor):
    assert len(timesteps_for_factor(1000, "arbitrary")) == 999
    with pytest.raises(FrameError, match=r"factor is [\d.]{4,40}: give 1000 at most"):
        timesteps_for_factor(factor, "arbitrary")


@pytest.mark.parametrize("timesteps", [[None], [10**400], [0.5] * 99 + ["x" * 10_000]])
def test_time_steps_that_are_not_numbers_are_refused_in_short(timesteps):
    with pytest.raises(FrameError, match=r"timesteps is \[.{1,200}\], not only numbers: give"):
        checked_timesteps(timesteps)


def test_the_default_time_step_is_the_midpoint():
    assert checked_timesteps(None) == [0.5]
    assert checked_timesteps([]) == []
    for t in (0, 1, -0.5, float("nan")):
        with pytest.raises(FrameError, match="is not inside"):
            checked_timesteps([0.5, t])
