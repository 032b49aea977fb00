import itertools
from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.video.timing.clock import Clock, on_grid
from runtime.video.timing.schedule import FrameFacts, OnlineSchedule, PrecomputedSchedule
from runtime.video.timing.slots import times_between
from runtime.video.timing.timeline import (
    Blended,
    ConstantRate,
    Multiply,
    Shown,
    Timeline,
    output_frame_count,
    output_time_base,
)

NTSC_FILM = Fraction(24000, 1001)
NTSC_60 = Fraction(60000, 1001)
MILLISECOND = Fraction(1, 1000)
RATES = st.sampled_from(
    [Fraction(24), Fraction(25), Fraction(30), Fraction(60), NTSC_FILM,
     Fraction(30000, 1001), NTSC_60, Fraction(15, 2)]
)  # fmt: skip


@dataclass
class Run:
    """The output of a timeline, and its state after each push."""

    shown: list[Shown] = field(default_factory=list)
    known: list[int] = field(default_factory=list)  # number of output frames known after each push
    kept: list[int] = field(default_factory=list)  # number of input frames kept after each push
    line: Timeline | None = None


def regular(rate, count, start=Fraction(0)):
    return [start + k / Fraction(rate) for k in range(count)]


def play(mode, times, *, cuts=(), repeats=(), blend=False, duration=None, **options):
    """Pushes all frames; checks that no output frame needs an input frame that was released."""
    run = Run(line=(line := Timeline(mode, **options)))
    oldest = []
    for number, time in enumerate(times):
        run.shown += line.push(time, cut=number in cuts, repeat=number in repeats, blend=blend)
        run.known.append(len(run.shown))
        run.kept.append(number + 1 - line.oldest)
        oldest.append(line.oldest)
    run.shown += line.finish(duration)
    assert line.oldest == len(times)
    assert oldest == sorted(oldest)
    firsts = [*(frame.first for frame in run.shown), len(times)]
    lowest_from = [*itertools.accumulate(reversed(firsts), min)][::-1]
    for lowest, known in zip(oldest, run.known, strict=True):
        assert lowest_from[known] >= lowest
    return run


def spelled(shown):
    """0 for a real frame, 0+1/2 for a new one in the middle of 0 and 1."""
    return " ".join(str(s.first) if s.second is None else f"{s.first}+{s.t}" for s in shown)


# --- examples ---


def test_twice_as_many_frames():
    shown = play(Multiply(2), regular(25, 3)).shown
    assert shown == [
        Shown(Fraction(0), 0),
        Shown(Fraction(1, 50), 0, 1, Fraction(1, 2)),
        Shown(Fraction(2, 50), 1),
        Shown(Fraction(3, 50), 1, 2, Fraction(1, 2)),
        Shown(Fraction(4, 50), 2),
        Shown(Fraction(5, 50), 2),  # the last frame is repeated until its duration is over
    ]


def test_25_to_50_is_the_same_by_factor_and_by_rate():
    times = regular(25, 10)
    assert play(Multiply(2), times).shown == play(ConstantRate(Fraction(50)), times).shown


def test_24_to_60_keeps_every_second_frame():
    shown = play(ConstantRate(Fraction(60)), regular(24, 5)).shown
    assert spelled(shown) == "0 0+2/5 0+4/5 1+1/5 1+3/5 2 2+2/5 2+4/5 3+1/5 3+3/5 4 4 4"
    assert [s.time for s in shown] == regular(60, 13)  # 12.5 frames are wanted


def test_24_to_48_keeps_every_frame():
    shown = play(ConstantRate(Fraction(48)), regular(24, 4)).shown
    assert spelled(shown) == "0 0+1/2 1 1+1/2 2 2+1/2 3 3"


def test_five_minutes_of_film_do_not_drift():
    count = 7_193  # 300 s at 23.976; any drift fails the comparison
    clock = Clock(MILLISECOND, NTSC_FILM)
    line = Timeline(ConstantRate(NTSC_60))
    slots, real = 0, 0
    for k in range(count + 1):
        done = k == count
        shown = line.finish() if done else line.push(clock.feed(round(k * 1_001_000 / 24_000)))
        for frame in shown:
            assert frame.time == Fraction(slots * 1001, 60_000)
            if slots % 5 == 0:
                assert frame[1:] == (slots // 5 * 2, None, 0)
                real += 1
            slots += 1
    assert slots == output_frame_count(
        ConstantRate(NTSC_60), duration=count / NTSC_FILM, rate=NTSC_FILM
    )
    assert slots == -(-count * 5 // 2)
    assert real == -(-count // 2)


def test_times_rounded_to_milliseconds_cause_no_needless_frames():
    rounded = [Fraction(round(k / NTSC_FILM * 1000), 1000) for k in range(200)]
    shown = play(ConstantRate(NTSC_60), rounded).shown
    real = [s for s in shown if s.second is None]
    assert {s.first for s in real} == {*range(0, 200, 2), 199}
    assert all(s.second is None for s in shown[::5])


def test_a_variable_rate_stays_variable():
    times = [Fraction(t, 1000) for t in (0, 40, 140, 160)]
    shown = play(Multiply(2), times, duration=Fraction(60, 1000)).shown
    assert [int(s.time * 1000) for s in shown] == [0, 20, 40, 90, 140, 150, 160, 190]
    assert spelled(shown) == "0 0+1/2 1 1+1/2 2 2+1/2 3 3"


def test_a_variable_rate_becomes_constant():
    times = [Fraction(t, 1000) for t in (0, 40, 140, 160)]
    shown = play(ConstantRate(Fraction(50)), times).shown
    assert spelled(shown) == "0 0+1/2 1 1+1/5 1+2/5 1+3/5 1+4/5 2 3"


@pytest.mark.parametrize(
    ("mode", "out"),
    [(Multiply(3), "0 0+1/3 0+2/3 1 1 1 2 2+1/3 2+2/3 3 3 3"),
     (ConstantRate(Fraction(50)), "0 0+1/2 1 1 2 2+1/2 3 3")],
)  # fmt: skip
def test_the_frame_before_a_cut_is_repeated(mode, out):
    assert spelled(play(mode, regular(25, 4), cuts={2}).shown) == out


@pytest.mark.parametrize(
    ("mode", "out"),
    [(Multiply(3), "0 0+1/3 0+2/3 1 1+1/3 1+2/3 2 2+1/3 2+2/3 3 3 3"),
     (ConstantRate(Fraction(50)), "0 0+1/2 1 1+1/2 2 2+1/2 3 3")],
)  # fmt: skip
def test_the_frames_at_a_cut_are_mixed_on_request(mode, out):
    shown = play(mode, regular(25, 4), cuts={2}, blend=True).shown
    assert spelled(shown) == out
    assert {s.first for s in shown if isinstance(s, Blended)} == {1}
    assert all(isinstance(s, Blended) == (s.first == 1 and s.second == 2) for s in shown)


def test_the_mix_at_a_cut_is_exact_with_midpoint_weights_and_after_a_still_scene():
    run = play(Multiply(3), regular(24, 5), cuts={4}, repeats={2, 3}, blend=True, dyadic=6)
    assert spelled(run.shown) == "0 0+21/64 0+43/64 1 1 1 2 2 2 3 3+1/3 3+2/3 4 4 4"


def test_doubled_frames_are_treated_as_a_lower_rate():
    run = play(Multiply(2), regular(24, 6), repeats={1, 3, 5})
    assert spelled(run.shown) == "0 0+1/4 0+1/2 0+3/4 2 2+1/4 2+1/2 2+3/4 4 4 5 5"
    assert [s.time for s in run.shown] == regular(48, 12)


def test_with_factor_one_repeats_are_replaced():
    run = play(Multiply(1), regular(24, 4), repeats={1})
    assert spelled(run.shown) == "0 0+1/2 2 3"


def test_a_long_run_of_repeats_is_a_still_scene():
    run = play(Multiply(2), regular(24, 6), repeats={1, 2, 3, 4}, most_repeats=3)
    assert spelled(run.shown) == "0 0 1 1 2 2 3 3 4 4+1/2 5 5"
    # Nothing after the first frame is known before the fourth repeat.
    assert run.known == [1, 1, 1, 1, 9, 11]


def test_the_frames_of_a_long_still_scene_are_released():
    run = play(Multiply(2), regular(24, 500), repeats=set(range(1, 500)))
    assert max(run.kept) == 4
    assert run.kept[-1] == 1


def test_after_a_still_scene_doubled_frames_are_again_a_lower_rate():
    run = play(Multiply(1), regular(24, 7), repeats={1, 2, 4, 6}, most_repeats=1)
    assert spelled(run.shown) == "0 1 2 3 3+1/2 5 6"


def test_of_two_near_real_frames_the_nearest_is_shown():
    times = [Fraction(t, 1000) for t in (0, 20, 22, 40)]
    shown = play(ConstantRate(Fraction(50), Fraction(1, 4)), times).shown
    assert spelled(shown) == "0 1 3"
    late = [Fraction(t, 1000) for t in (0, 19, 24, 40)]
    assert spelled(play(ConstantRate(Fraction(50), Fraction(1, 4)), late).shown) == "0 1 3"


def test_repeats_before_a_cut_are_kept():
    run = play(Multiply(2), regular(24, 4), repeats={1, 2}, cuts={3})
    assert spelled(run.shown) == "0 0 1 1 2 2 3 3"


def test_a_cut_starts_a_scene_even_with_an_equal_frame():
    run = play(Multiply(2), regular(24, 3), repeats={1}, cuts={1})
    assert spelled(run.shown) == "0 0 1 1+1/2 2 2"


def test_time_steps_for_midpoint_weights_are_dyadic():
    shown = play(ConstantRate(Fraction(60)), regular(24, 3), dyadic=3).shown
    assert spelled(shown) == "0 0+3/8 0+3/4 1+1/4 1+5/8 2 2 2"
    coarse = play(ConstantRate(Fraction(60)), regular(24, 3), dyadic=1).shown
    assert spelled(coarse) == "0 0+1/2 1 1 1+1/2 2 2 2"


def test_a_part_by_rate_begins_at_its_start():
    run = play(
        ConstantRate(Fraction(50)), regular(25, 10), start=Fraction(1, 20), end=Fraction(3, 20)
    )
    assert spelled(run.shown) == "1+1/4 1+3/4 2+1/4 2+3/4 3+1/4"
    assert [s.time for s in run.shown] == regular(50, 5)
    assert (run.line.origin, run.line.end) == (Fraction(1, 20), Fraction(1, 10))


def test_a_part_by_factor_begins_with_the_first_frame_in_it():
    run = play(Multiply(2), regular(25, 10), start=Fraction(1, 20), end=Fraction(3, 20))
    assert spelled(run.shown) == "1+1/2 2 2+1/2 3 3+1/2"
    assert run.line.origin == Fraction(6, 100)
    assert run.line.end == Fraction(3, 20) - run.line.origin


@pytest.mark.parametrize("mode", [Multiply(2), ConstantRate(Fraction(50))])
def test_no_more_frames_are_needed_after_the_end(mode):
    line = Timeline(mode, end=Fraction(1, 10))
    times = iter(regular(25, 1000))
    while not line.done:
        time = next(times)
        line.push(time)
    assert time <= Fraction(4, 25)
    assert line.push(time + 1) == []
    assert line.finish() == []
    assert line.end == Fraction(1, 10)


@pytest.mark.parametrize("mode", [Multiply(2), ConstantRate(Fraction(50))])
def test_a_part_after_the_last_frame_is_empty(mode):
    run = play(mode, regular(25, 4), start=Fraction(1))
    assert run.shown == []
    assert (run.line.origin, run.line.end) == (None, None)


@pytest.mark.parametrize("mode", [Multiply(2), ConstantRate(Fraction(50))])
def test_a_part_before_the_first_frame_is_empty(mode):
    run = play(mode, regular(25, 4), end=Fraction(-1))
    assert run.shown == []
    assert run.line.done


def test_without_input_there_is_no_output():
    assert Timeline(Multiply(2)).finish() == []


def test_one_frame_is_repeated_for_its_duration():
    duration = Fraction(1, 25)
    assert spelled(play(Multiply(3), [Fraction(7)], duration=duration).shown) == "0 0 0"
    assert (
        spelled(play(ConstantRate(Fraction(75)), [Fraction(7)], duration=duration).shown) == "0 0 0"
    )
    assert spelled(play(Multiply(3), [Fraction(7)]).shown) == "0"
    assert spelled(play(ConstantRate(Fraction(75)), [Fraction(7)]).shown) == "0"


# --- properties ---

FILMS = settings(max_examples=50)  # Drawing an example takes longer than playing it.

GAPS = st.one_of(
    st.sampled_from([Fraction(1, 24), Fraction(1001, 24000), Fraction(33, 1000), Fraction(1, 60)]),
    st.fractions("1/500", "1/2", max_denominator=1000),
)
MODES = st.one_of(
    st.builds(Multiply, st.integers(1, 5)),
    st.builds(
        ConstantRate,
        st.sampled_from([Fraction(10), Fraction(24), Fraction(50), NTSC_60, Fraction(120)]),
        st.sampled_from([Fraction(0), Fraction(1, 16), Fraction(1, 2)]),
    ),
)


@dataclass
class Film:
    times: list[Fraction]
    cuts: set[int]
    repeats: set[int]
    duration: Fraction

    @property
    def length(self):
        return self.times[-1] + self.duration - self.times[0]


@st.composite
def films(draw):
    marks = st.sampled_from(["", "", "", "cut", "repeat", "repeat"])
    frames = draw(st.lists(st.tuples(GAPS, marks), min_size=1, max_size=15))
    start = draw(st.fractions(-5, 5, max_denominator=90_000))
    times = list(itertools.accumulate([gap for gap, _ in frames[1:]], initial=start))
    return Film(
        times,
        {k for k, (_, mark) in enumerate(frames) if mark == "cut"},
        {k for k, (_, mark) in enumerate(frames) if mark == "repeat"},
        draw(GAPS),
    )


def play_film(mode, film, **options):
    return play(
        mode,
        film.times,
        cuts=film.cuts,
        repeats=film.repeats,
        duration=film.duration,
        **options,
    )


def snap_of(mode):
    return mode.snap / mode.rate if isinstance(mode, ConstantRate) else Fraction(0)


@FILMS
@given(films(), MODES)
def test_times_rise_from_zero_without_gaps(film, mode):
    run = play_film(mode, film)
    times = [s.time for s in run.shown]
    assert times[0] == 0
    if isinstance(mode, ConstantRate):
        assert times == regular(mode.rate, len(times))
    else:
        ends = [*film.times[1:], film.times[-1] + film.duration]
        slots = [
            at - film.times[0]
            for time, over in zip(film.times, ends, strict=True)
            for at in (time, *times_between(time, over, mode.factor))
        ]
        assert times == slots


@FILMS
@given(films(), MODES)
def test_the_duration_is_preserved(film, mode):
    run = play_film(mode, film)
    if isinstance(mode, Multiply):
        assert run.line.end == film.length
    else:
        assert run.line.end == len(run.shown) / mode.rate
        missed = abs(run.line.end - film.length)
        assert missed <= 1 / mode.rate / 2 or len(run.shown) == 1


@FILMS
@given(films(), MODES, st.sampled_from([0, 1, 3]))
def test_every_new_frame_has_the_right_neighbours_and_time_step(film, mode, most_repeats):
    run = play_film(mode, film, most_repeats=most_repeats)
    for time, first, second, t in run.shown:
        if second is None:
            assert t == 0
            continue
        assert 0 < t < 1
        time0, time1 = film.times[first], film.times[second]
        assert film.times[0] + time == time0 + t * (time1 - time0)
        assert min(t, 1 - t) * (time1 - time0) >= snap_of(mode)
        # Frames between the two are repeats of the first, and there is no cut between them.
        assert film.cuts.isdisjoint(range(first + 1, second + 1))
        assert film.repeats.issuperset(range(first + 1, second))
        assert second not in film.repeats
        assert second - first <= 1 + most_repeats


@FILMS
@given(films(), MODES, st.sampled_from([0, 1, 3]))
def test_a_real_frame_is_repeated_only_before_cuts_repeats_and_the_end(film, mode, most_repeats):
    run = play_film(mode, film, most_repeats=most_repeats)
    snap = snap_of(mode)
    last = len(film.times) - 1
    for time, number, second, _ in run.shown:
        off = film.times[0] + time - film.times[number]
        if second is not None or abs(off) <= snap:
            continue
        assert off > 0
        following = number + 1
        assert number == last or film.times[0] + time < film.times[following]
        assert number == last or following in film.cuts or following in film.repeats


@FILMS
@given(films(), MODES)
def test_a_frame_of_a_moving_scene_is_not_repeated(film, mode):
    """Up to three repeats before a new frame of the scene are replaced by new frames."""
    run = play_film(mode, film)
    begin = 0
    for end in range(1, len(film.times)):
        if end in film.repeats and end not in film.cuts:
            continue
        moves = end not in film.cuts and end - begin <= 4
        inside = [
            s for s in run.shown
            if film.times[begin] + snap_of(mode)
            < film.times[0] + s.time
            < film.times[end] - snap_of(mode)
        ]  # fmt: skip
        if moves:
            assert {(s.first, s.second) for s in inside} <= {(begin, end)}
        begin = end


@FILMS
@given(films(), st.integers(1, 5))
def test_by_factor_every_real_frame_is_shown_once_at_its_time(film, factor):
    film.repeats.clear()
    run = play_film(Multiply(factor), film)
    for number, time in enumerate(film.times):
        at = [s for s in run.shown if s.time == time - film.times[0]]
        assert at == [Shown(time - film.times[0], number)]


@FILMS
@given(films(), MODES)
def test_the_number_of_frames_is_as_expected(film, mode):
    rate = len(film.times) / film.length
    assert len(play_film(mode, film).shown) == output_frame_count(
        mode, duration=film.length, rate=rate
    )


@FILMS
@given(films(), MODES, st.integers(1, 6))
def test_dyadic_time_steps_are_near_the_exact_ones(film, mode, depth):
    exact = play_film(mode, film)
    rounded = play_film(mode, film, dyadic=depth)
    for one, other in zip(exact.shown, rounded.shown, strict=True):
        assert one.time == other.time
        if one.second is None:
            assert one == other
            continue
        assert (other.t * 2**depth).denominator == 1
        gap = film.times[one.second] - film.times[one.first]
        if other.second is None:
            shows = film.times[other.first]
        else:
            assert (one.first, one.second) == (other.first, other.second)
            assert 0 < other.t < 1
            shows = film.times[one.first] + other.t * gap
        assert abs(shows - film.times[0] - one.time) <= gap / 2 ** (depth + 1)


@FILMS
@given(films(), st.sampled_from([1, 2, 4, 8]))
def test_factors_that_are_powers_of_two_are_exact_with_midpoint_weights(film, factor):
    film.repeats.clear()
    assert play_film(Multiply(factor), film).shown == (
        play_film(Multiply(factor), film, dyadic=3).shown
    )


@FILMS
@given(films(), MODES, st.sampled_from([0, 1, 3]))
def test_few_frames_are_kept_and_output_is_not_delayed(film, mode, most_repeats):
    run = play_film(mode, film, most_repeats=most_repeats)
    half = 1 / mode.rate / 2 if isinstance(mode, ConstantRate) else Fraction(0)
    times = [film.times[0] + s.time for s in run.shown]
    for number, known in enumerate(run.known):
        sure = film.times[max(0, number - (most_repeats if film.repeats else 0))]
        assert known >= 1
        assert all(time > sure - half for time in times[known:])
        # It keeps frames back to half an output frame before `sure`, and one more.
        spanned = sum(sure - half < time <= sure for time in film.times)
        slack = spanned + 1 + 2 * most_repeats if half else 1
        assert run.kept[number] <= most_repeats + slack


@FILMS
@given(films(), MODES, st.data())
def test_a_part_equals_the_same_part_of_the_whole(film, mode, data):
    start = film.times[0] + data.draw(st.fractions(-1, 3, max_denominator=100))
    end = start + data.draw(st.fractions("1/100", 3, max_denominator=100))
    run = play_film(mode, film, start=start, end=end)
    over = film.times[-1] + film.duration
    if not run.shown:
        assert run.line.origin is None
        if isinstance(mode, Multiply):
            whole = [film.times[0] + s.time for s in play_film(mode, film).shown]
            assert not any(start <= time < end for time in whole)
        else:
            assert start >= over or end <= film.times[0]
        return
    origin = run.line.origin
    assert start <= origin
    assert all(start <= origin + s.time < end for s in run.shown)
    if isinstance(mode, Multiply):
        whole = play_film(mode, film).shown
        wanted = [s for s in whole if start <= film.times[0] + s.time < end]
        assert [s[1:] for s in run.shown] == [s[1:] for s in wanted]
        assert run.line.end == min(end, over) - origin
    else:
        assert origin == max(start, film.times[0])
        assert [s.time for s in run.shown] == regular(mode.rate, len(run.shown))
        missed = abs(run.line.end - (min(end, over) - origin))
        assert missed <= 1 / mode.rate / 2 or len(run.shown) == 1
        for time, first, second, t in run.shown:
            if second is not None:
                gap = film.times[second] - film.times[first]
                assert origin + time == film.times[first] + t * gap


# --- the clock ---


def fed(clock, stamps):
    return [clock.feed(pts) for pts in stamps]


@pytest.mark.parametrize("rate", [NTSC_FILM, Fraction(30), NTSC_60])
def test_matroska_milliseconds_are_exact_again(rate):
    clock = Clock(MILLISECOND, rate)
    times = fed(clock, [1000 + round(k * 1000 / rate) for k in range(500)])
    assert times == regular(rate, 500)
    assert clock.repaired == 0
    assert clock.origin == 1


def test_a_clock_with_an_origin_keeps_offsets():
    clock = Clock(MILLISECOND, Fraction(25), origin=Fraction(1, 2))
    assert fed(clock, [460, 500, 540]) == [Fraction(-1, 25), Fraction(0), Fraction(1, 25)]


def test_a_missing_timestamp_is_one_frame_after_the_previous():
    clock = Clock(MILLISECOND, Fraction(25))
    assert fed(clock, [None, 140, 180, None, 260]) == regular(25, 5)
    assert clock.repaired == 2
    assert clock.origin == Fraction(1, 10)


def test_a_timestamp_out_of_order_does_not_shift_later_ones():
    clock = Clock(MILLISECOND, Fraction(25))
    assert [int(1000 * t) for t in fed(clock, [0, 40, 40, 80, 160, 120, 200])] == (
        [0, 40, 60, 80, 160, 180, 200]
    )
    assert clock.repaired == 2


def test_timestamps_of_joined_recordings_continue():
    clock = Clock(MILLISECOND, Fraction(30))
    stamps = [round(k * 1000 / 30) for k in range(100)]
    assert fed(clock, [*stamps, *stamps]) == regular(30, 200)
    assert clock.repaired == 1


@given(
    st.lists(st.one_of(st.none(), st.integers(-3000, 3000)), max_size=30),
    RATES,
    st.sampled_from([MILLISECOND, Fraction(1, 90_000), Fraction(1, 600), Fraction(1, 30)]),
)
def test_times_rise_for_any_timestamps(stamps, rate, tick):
    times = fed(Clock(tick, rate), stamps)
    assert all(a < b for a, b in itertools.pairwise(times))


@given(st.lists(st.integers(1, 500), max_size=30), RATES, st.sampled_from([10, 600, 1000, 90_000]))
def test_good_timestamps_are_kept_within_a_tick(gaps, rate, ticks):
    clock = Clock(Fraction(1, ticks), rate)
    stamps = list(itertools.accumulate(gaps, initial=7))
    for pts, time in zip(stamps, fed(clock, stamps), strict=True):
        assert abs(time - Fraction(pts - 7, ticks)) < Fraction(1, ticks)
    assert clock.repaired == 0


# --- parts ---


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
        assert on_grid(rounded, start=start, rate=rate, tick=MILLISECOND) == exact


def test_a_frame_off_the_rate_keeps_its_time():
    late = Fraction(52, 1000)
    assert on_grid(late, start=Fraction(0), rate=Fraction(30), tick=MILLISECOND) == late


def test_a_coarse_clock_is_not_changed():
    stamp = Fraction(3, 100)
    assert on_grid(stamp, start=Fraction(0), rate=Fraction(30), tick=Fraction(1, 100)) == stamp


@given(
    st.fractions(0, 100, max_denominator=90000),
    st.fractions("1/1000", 2, max_denominator=90000),
    st.integers(1, 16),
)
def test_times_between_divide_a_gap_evenly(time0, gap, factor):
    times = [time0, *times_between(time0, time0 + gap, factor), time0 + gap]
    assert len(times) == factor + 1
    assert {b - a for a, b in itertools.pairwise(times)} == {gap / factor}


def test_invalid_arguments_are_refused():
    line = Timeline(Multiply(2))
    line.push(Fraction(1))
    with pytest.raises(ValueError, match="times must rise"):
        line.push(Fraction(1))
    with pytest.raises(ValueError, match="lasts 0 s"):
        line.finish(Fraction(0))
    with pytest.raises(ValueError, match="factor is 0"):
        Multiply(0)
    with pytest.raises(ValueError, match="rate is 0"):
        ConstantRate(Fraction(0))
    with pytest.raises(ValueError, match="snap is 1"):
        ConstantRate(Fraction(50), Fraction(1))
    with pytest.raises(ValueError, match="most_repeats is -1"):
        Timeline(Multiply(2), most_repeats=-1)
    with pytest.raises(ValueError, match="dyadic is 0"):
        Timeline(Multiply(2), dyadic=0)
    with pytest.raises(ValueError, match="end is after start"):
        Timeline(Multiply(2), start=Fraction(1), end=Fraction(1))
    with pytest.raises(ValueError, match="both are above 0"):
        Clock(MILLISECOND, Fraction(0))


def test_frames_chosen_in_advance_need_every_frame_that_they_refer_to():
    frame = FrameFacts(0, Fraction(1), None, False, False)
    shown = [Shown(Fraction(0), 0), Shown(Fraction(1, 2), 0, 1, Fraction(1, 2))]
    schedule = PrecomputedSchedule(shown, Fraction(1))
    assert (schedule.oldest, schedule.push(frame)) == (0, shown[:1])
    with pytest.raises(ValueError, match=r"^1 frames came, frame 0 is to be shown$"):
        schedule.finish()
    assert (schedule.oldest, schedule.push(frame), schedule.finish()) == (0, shown[1:], [])
    assert (schedule.oldest, schedule.frames, schedule.end) == (2, 2, 1)


@pytest.mark.parametrize(
    ("back", "times"),
    [
        (10, [0, 2, Fraction(41, 20), Fraction(21, 10)]),
        (11, [0, 2, Fraction(21, 10), Fraction(33, 10)]),
    ],
)
def test_a_stamp_that_falls_back_by_a_second_is_wrong_and_by_more_begins_a_new_clock(back, times):
    clock = Clock(Fraction(1, 10), Fraction(10))
    assert [clock.feed(stamp) for stamp in (0, 20, 20 - back, 21)] == times
    assert clock.repaired == 1


def online(**options):
    """A schedule that doubles 25 frames a second, with stamps in milliseconds."""
    info = SimpleNamespace(
        time_base=MILLISECOND, rate=Fraction(25), origin=Fraction(0), rounding=None, end=None
    )
    return OnlineSchedule(info, Multiply(2), "arbitrary", **options)


def facts(stamp, duration=None):
    return FrameFacts(stamp, MILLISECOND, duration, False, False)


def test_a_gap_of_the_longest_duration_is_interpolated_and_a_longer_one_is_held():
    schedule = online(longest_gap=Fraction(1, 10))
    shown = [one for stamp in (0, 100, 201) for one in schedule.push(facts(stamp))]
    assert schedule.held_gaps == 1
    assert [(one.first, one.second) for one in shown] == [
        (0, None), (0, 1), (1, None), (1, None), (2, None)
    ]  # fmt: skip


@pytest.mark.parametrize(("duration", "end"), [(41, 80), (42, 82), (39, 80), (38, 78)])
def test_a_declared_duration_of_the_last_frame_counts_if_it_is_more_than_a_tick_off(duration, end):
    schedule = online()
    schedule.push(facts(0))
    schedule.push(facts(40, duration * MILLISECOND))
    schedule.finish()
    assert schedule.end == end * MILLISECOND


@pytest.mark.parametrize(("time", "cut"), [(20, []), (21, [40]), (60, [40]), (61, [80])])
def test_a_known_cut_is_at_a_frame_up_to_half_a_frame_before_it(time, cut):
    schedule = online(known_cuts=[time * MILLISECOND])
    for stamp in (0, 40, 80):
        schedule.push(facts(stamp))
    assert schedule.cuts == [moment * MILLISECOND for moment in cut]


@pytest.mark.parametrize(
    ("times", "snap", "expected"),
    [
        ([0, 125], Fraction(1, 4), (1, None)),
        ([0, 125], Fraction(6, 25), (0, 1)),
        ([0, 75, 175], Fraction(1, 4), (1, None)),
        ([0, 75, 175], Fraction(6, 25), (1, 2)),
    ],
)
def test_a_real_frame_is_shown_at_an_output_time_up_to_the_snap_away(times, snap, expected):
    timeline = Timeline(ConstantRate(Fraction(10), snap=snap))
    shown = [one for time in times for one in timeline.push(time * MILLISECOND)]
    shown += timeline.finish()
    assert (shown[1].time, *shown[1][1:3]) == (Fraction(1, 10), *expected)
