import itertools
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blend import Blend
from runtime import BackendError, FrameError, Interpolator
from runtime.live import Live


def flat(level, size=(16, 16)):
    return np.full((*size, 3), level, np.uint8)


def shown(timed):
    return [(time, int(frame[0, 0, 0])) for time, frame in timed]


@pytest.fixture
def vfi():
    with Interpolator(Blend(keep=True)) as opened:
        yield opened


def test_each_push_returns_the_previous_frame_and_new_ones_up_to_the_pushed_one(vfi):
    live = vfi.live(factor=4)
    frames = [flat(level) for level in (0, 100, 200)]
    assert live.push(0, frames[0]) == []
    out = live.push(1, frames[1])
    assert shown(out) == [(0, 0), (Fraction(1, 4), 25), (Fraction(1, 2), 50), (Fraction(3, 4), 75)]
    assert out[0].frame is frames[0]
    out = live.push(5, frames[2])  # a longer gap is divided evenly
    assert shown(out) == [(1, 100), (2, 125), (3, 150), (4, 175)]
    assert out[0].frame is frames[1]
    (last,) = live.reset()
    assert last.time == 5
    assert last.frame is frames[2]
    assert live.reset() == []


@pytest.mark.parametrize("io", ["frames", "float"])
@pytest.mark.parametrize("calls", [(1, 1), (3, 1), (1, 2)])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_live_gives_the_frames_of_stream(io, calls, factor):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (17, 30, 3), np.uint8) for _ in range(4)]
    vfi = Interpolator(Blend(io=io, steps_per_call=calls[0], pairs_per_call=calls[1]))
    live = vfi.live(factor=factor)
    out = [timed for k, frame in enumerate(frames) for timed in live.push(k, frame)]
    out += live.reset()
    expected = list(vfi.stream(frames, factor=factor))
    assert [timed.time for timed in out] == [Fraction(k, factor) for k in range(len(expected))]
    for timed, frame in zip(out, expected, strict=True):
        np.testing.assert_array_equal(timed.frame, frame)


def test_a_frame_is_uploaded_once(vfi):
    live = vfi.live(factor=3)
    for k in range(5):
        live.push(k, flat(k))
    assert [int(image.max()) for image in vfi._backend.given] == [0, 1, 2, 3, 4]


def test_the_lookahead_of_a_backend_does_not_delay_frames(vfi):
    vfi._backend.lookahead = 2
    live = vfi.live(factor=4)
    live.push(0, flat(0))
    assert shown(live.push(4, flat(100))) == [(0, 0), (1, 25), (2, 50), (3, 75)]


@pytest.mark.parametrize(
    ("times", "middle"),
    [
        ((1, 2), Fraction(3, 2)),
        ((2**70, 2**70 + 1), Fraction(2**71 + 1, 2)),
        ((Fraction(1, 30), Fraction(2, 30)), Fraction(1, 20)),
        ((1.5, 2.5), 2.0),
        ((1, 2.5), 1.75),
        ((Fraction(1, 2), 1.0), 0.75),
        ((np.int64(2**62), np.int64(2**62 + 3)), Fraction(2**63 + 3, 2)),
        ((np.float32(1), np.float32(2)), 1.5),
    ],
)
def test_new_times_have_the_type_of_the_given_times(vfi, times, middle):
    live = vfi.live()
    live.push(times[0], flat(0))
    first, second = live.push(times[1], flat(9))
    assert first.time is times[0]
    assert second.time == middle
    assert type(second.time) is type(middle)


@pytest.mark.parametrize("time", [math.nan, math.inf, None, "1", True, Decimal(1)])
def test_invalid_times_are_refused(vfi, time):
    with pytest.raises(FrameError, match="give a finite int, float or Fraction"):
        vfi.live().push(time, flat(0))


@pytest.mark.parametrize("time", [2, 1, -7])
def test_a_time_that_is_not_later_starts_a_new_sequence(vfi, time):
    live = vfi.live()
    live.push(2, flat(10))
    assert shown(live.push(time, flat(20))) == [(2, 10)]
    assert shown(live.push(time + 2, flat(30))) == [(time, 20), (time + 1, 25)]


def test_no_frames_are_inserted_in_a_gap_that_is_too_long(vfi):
    live = vfi.live(max_gap=Fraction(1, 2))
    assert live.push(0.0, flat(0)) == []
    assert len(live.push(0.5, flat(0))) == 2
    assert shown(live.push(1.1, flat(40))) == [(0.5, 0)]
    assert shown(live.push(1.3, flat(60))) == [(1.1, 40), (pytest.approx(1.2), 50)]


def test_no_frames_are_inserted_across_a_reset(vfi):
    live = vfi.live()
    live.push(0, flat(0))
    assert shown(live.reset()) == [(0, 0)]
    assert live.push(1, flat(50)) == []
    assert shown(live.push(2, flat(70))) == [(1, 50), (Fraction(3, 2), 60)]


def test_another_size_starts_a_new_sequence(vfi):
    live = vfi.live()
    live.push(0, flat(10))
    assert shown(live.push(1, flat(20, (32, 48)))) == [(0, 10)]
    assert shown(live.push(2, flat(30, (32, 48)))) == [(1, 20), (Fraction(3, 2), 25)]


def test_another_type_starts_a_new_sequence():
    live = Interpolator(Blend(io="float")).live()
    live.push(0, flat(10))
    assert len(live.push(1, flat(10).astype(np.uint16))) == 1
    assert len(live.push(2, flat(10).astype(np.uint16))) == 2


def test_after_an_error_the_next_pair_starts_with_the_previous_frame(vfi):
    live = vfi.live()
    live.push(0, flat(10))
    with pytest.raises(FrameError, match="frame is a list"):
        live.push(1, [1])
    with pytest.raises(FrameError, match="takes uint8"):
        live.push(1, flat(0).astype(np.uint16))
    vfi._backend.broken = True
    with pytest.raises(BackendError, match="inference failed"):
        live.push(1, flat(0))
    vfi._backend.broken = False
    assert shown(live.push(2, flat(30))) == [(0, 10), (1, 20)]


def test_a_size_that_the_model_refuses_is_an_error_at_the_first_push():
    live = Interpolator(Blend(height=32, width=48)).live()
    with pytest.raises(FrameError, match="this model takes 32x48 only"):
        live.push(0, flat(0))


@pytest.mark.parametrize("factor", [0, 2.0, True])
def test_invalid_factors_are_refused(vfi, factor):
    with pytest.raises(FrameError, match="whole number"):
        vfi.live(factor=factor)


def test_midpoint_weights_accept_powers_of_two_only():
    vfi = Interpolator(Blend(time_steps="midpoint"))
    with pytest.raises(FrameError, match="powers of two"):
        vfi.live(factor=3)
    live = vfi.live(factor=4)
    live.push(0, flat(0))
    assert shown(live.push(4, flat(80))) == [(0, 0), (1, 20), (2, 40), (3, 60)]


@pytest.mark.parametrize("max_gap", [0, -1, math.nan, "1"])
def test_invalid_gaps_are_refused(vfi, max_gap):
    with pytest.raises(FrameError, match="a time above 0, or None"):
        Live(vfi, max_gap=max_gap)


NUMBER = st.one_of(
    st.integers(-1000, 1000),
    st.floats(-1000, 1000),
    st.fractions(-1000, 1000, max_denominator=1001),
)


@given(
    times=st.lists(st.one_of(NUMBER, st.none()), max_size=12),
    factor=st.integers(1, 5),
    max_gap=st.one_of(st.none(), st.fractions(Fraction(1, 10), 500)),
)
def test_every_frame_is_returned_once_in_order_and_new_ones_only_between_rising_times(
    times, factor, max_gap
):
    """None in `times` is a reset."""
    live = Interpolator(Blend()).live(factor=factor, max_gap=max_gap)
    pushed, out = [], []
    for time in times:
        if time is None:
            out.append(live.reset())
        else:
            pushed.append((time, flat(len(pushed))))
            out.append(live.push(*pushed[-1]))
    out.append(live.reset())
    assert [timed[0].time for timed in out if timed] == [time for time, _ in pushed]
    assert [id(timed[0].frame) for timed in out if timed] == [id(frame) for _, frame in pushed]
    for (before, now), timed in zip(itertools.pairwise(times), out[1:], strict=False):
        goes_on = None not in (before, now) and before < now
        goes_on = goes_on and (max_gap is None or now - before <= max_gap)
        assert len(timed) == (0 if before is None else factor if goes_on else 1)
        if goes_on:
            moments = [t.time for t in timed] + [now]
            assert moments == sorted(moments)
