import itertools

import numpy as np
import pytest

from bench.harness.interleave import (
    Interleaving,
    SampleBudget,
    WarmUp,
    flat,
    interleaved_order,
    is_steady,
    measure_interleaved,
    parts_interleaved,
    ratio,
    sample_budget,
    sample_warnings,
    summary,
    warm_up,
)

STEADY = WarmUp(6, True)


class Machine:
    """A simulated clock that calls advance."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def clock(self):
        return self.now

    def run(self, name, seconds):
        """A call that takes the next of `seconds`; the last one is repeated."""
        left = list(seconds)

        def call():
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


@pytest.fixture
def machine():
    return Machine()


@pytest.mark.parametrize(
    ("samples", "seconds", "wanted"),
    [
        (30, 3.0, SampleBudget(10, 3, 0.3)),
        (4, 0.0, SampleBudget(4, 1, 0.0)),
        (1, 0.0, SampleBudget(1, 1, 0.0)),
        (25, 0.0, SampleBudget(10, 3, 0.0)),
        (60, 0.0, SampleBudget(20, 3, 0.0)),
        (61, 0.0, SampleBudget(20, 4, 0.0)),
        (89, 0.0, SampleBudget(29, 4, 0.0)),
        (90, 0.0, SampleBudget(30, 3, 0.0)),
        (200, 3.0, SampleBudget(30, 7, 0.1)),
    ],
)
def test_there_are_ten_rounds_if_there_are_ten_samples(samples, seconds, wanted):
    found = sample_budget(samples, seconds)
    assert found == pytest.approx(wanted)
    assert (type(found.rounds), type(found.samples)) == (int, int)
    assert found.rounds * found.samples >= samples


def test_fast_runs_fill_their_seconds_and_slow_ones_their_samples_in_the_same_rounds(machine):
    runs = {"fast": machine.run("fast", [0.001]), "slow": machine.run("slow", [1.0])}
    measured = measure_interleaved(
        runs, budget=sample_budget(30, 3.0), interleaving=Interleaving(1, 0.0), clock=machine.clock
    )
    assert [len(rounds) for rounds in measured.values()] == [10, 10]
    assert 3000 <= len(flat(measured["fast"])) <= 3010  # A sum of floats may need one more.
    assert len(flat(measured["slow"])) == 30
    assert sum(flat(measured["fast"])) >= 3.0
    assert flat(measured["slow"]) == pytest.approx([1.0] * 30)


def test_the_warm_up_of_a_round_is_not_counted(machine):
    # The first call of every round is slow.
    run = machine.run("a", [9.0, 1.0, 1.0] * 4)
    measured = measure_interleaved(
        {"a": run},
        budget=SampleBudget(4, 2, 0.0),
        interleaving=Interleaving(1, 0.0),
        clock=machine.clock,
    )
    assert measured == {"a": [[1.0, 1.0]] * 4}


def test_the_order_of_runs_alternates(machine):
    assert list(interleaved_order(["a", "b", "c"], 3)) == [*"abc", *"cba", *"abc"]
    told = []
    runs = {name: machine.run(name, [1.0]) for name in "ab"}
    measure_interleaved(
        runs,
        budget=SampleBudget(2, 1, 0.0),
        interleaving=Interleaving(0, 0.0),
        clock=machine.clock,
        progress=lambda: told.append(len(machine.calls)),
    )
    assert machine.calls == ["a", "b", "b", "a"]
    assert told == [1, 2, 3, 4]


def test_times_of_parts_are_recorded_for_each_round():
    counter = itertools.count()
    run = {"a": lambda: {"up": float(next(counter)), "down": 0.5}}
    measured = parts_interleaved(run, samples=4, interleaving=Interleaving(1, 0.0))
    assert measured == {"a": {"up": [[1.0], [3.0], [5.0], [7.0]], "down": [[0.5]] * 4}}


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        ([0.1], WarmUp(6, True)),
        ([39.0, 0.1], WarmUp(6, True)),  # The first call compiles, which does not end the warm-up.
        ([0.8, 0.4, 0.2, 0.1], WarmUp(8, True)),
        ([61.0, 60.0], WarmUp(2, True)),  # So slow that two calls must suffice.
        ([4.0], WarmUp(4, True)),
        ([4.0, 4.0, 8.0], WarmUp(3, False)),
        ([0.1 * 1.2**k for k in range(40)], WarmUp(17, False)),  # The limit of ten seconds.
        ([0.001 * 1.1**k for k in range(40)], WarmUp(30, False)),
    ],
)
def test_a_run_warms_up_until_it_is_steady_or_out_of_time(machine, seconds, wanted):
    assert warm_up(machine.run("a", seconds), clock=machine.clock) == wanted
    assert len(machine.calls) == wanted.runs


def test_a_run_is_steady_if_three_calls_are_within_a_tenth_of_the_three_before():
    assert is_steady([9, 1.0, 1.0, 1.0, 1.09, 1.09, 1.09])
    assert is_steady([1.0, 1.0, 1.0, 1.0, 5.0, 1.0])  # One disturbed call is not a trend.
    assert not is_steady([1.0, 1.0, 1.0, 1.11, 1.11, 1.11])
    assert not is_steady([1.0])


def test_a_summary_equals_figures_computed_by_hand():
    figures = summary([k / 1000 for k in range(1, 102)])
    assert figures["p50"] == pytest.approx(51)
    assert figures["p90"] == pytest.approx(91)
    assert figures["p99"] == pytest.approx(100)
    assert figures["iqr"] == pytest.approx(50)
    assert figures["mean"] == pytest.approx(51)


def rounds_of(rng, median, *, count=10, samples=3, noise=0.0):
    return [list(median * (1 + noise * rng.standard_normal(samples))) for _ in range(count)]


def test_the_interval_of_constant_times_is_a_point():
    found = ratio([[3.0] * 3] * 10, [[2.0] * 30] * 10)
    assert found == {"p50": 1.5, "low": 1.5, "high": 1.5, "confidence": 0.95}


def test_a_change_of_the_machines_speed_does_not_change_the_ratio():
    fast = [[1.0, 1.0]] * 5 + [[2.0, 2.0]] * 5
    slow = [[3 * s for s in samples] for samples in fast]
    found = ratio(slow, fast)
    assert (found["p50"], found["low"], found["high"]) == (3.0, 3.0, 3.0)
    # Without interleaving the same samples give a very wide interval.
    unpaired = ratio(slow, fast[::-1])
    assert unpaired["high"] - unpaired["low"] > 1


def test_the_interval_contains_the_true_ratio_as_often_as_it_claims():
    rng = np.random.default_rng(1)
    found = [
        ratio(rounds_of(rng, 1.5, noise=0.1), rounds_of(rng, 1.0, noise=0.1)) for _ in range(20)
    ]
    held = sum(one["low"] <= 1.5 <= one["high"] for one in found)
    assert held >= 17
    assert all(one["low"] <= one["p50"] <= one["high"] for one in found)
    assert all(0.01 < one["high"] - one["low"] < 0.5 for one in found)


def test_the_bootstrap_draws_complete_rounds():
    # Samples of a round are equal: thousands of them tell no more than ten rounds.
    rng = np.random.default_rng(2)
    speeds = 1 + 0.2 * rng.standard_normal(10)
    few, many = ([[s] * count for s in speeds] for count in (1, 300))
    steady = [[1.0]] * 10
    assert ratio(many, steady)["high"] == pytest.approx(ratio(few, steady)["high"], rel=0.05)
    assert ratio(many, steady)["high"] - ratio(many, steady)["low"] > 0.1


def test_the_bootstrap_is_the_same_for_the_same_samples():
    rng = np.random.default_rng(3)
    slow, fast = rounds_of(rng, 1.5, noise=0.1), rounds_of(rng, 1.0, noise=0.1)
    found = ratio(slow, fast)
    assert found == ratio(slow, fast)
    wanted = {"p50": 1.445808, "low": 1.390217, "high": 1.527734, "confidence": 0.95}
    assert found == pytest.approx(wanted, abs=1e-6)


def test_runs_of_different_rounds_have_no_ratio():
    with pytest.raises(ValueError, match="3 and 2 rounds"):
        ratio([[1.0]] * 3, [[1.0]] * 2)


def test_good_samples_give_no_warning():
    assert sample_warnings([[1.0, 1.01, 0.99]] * 10, STEADY) == []


QUARTERS = "in the first quarter of the samples and"


@pytest.mark.parametrize(
    ("rounds", "warmed_up", "expected"),
    [
        ([[1.0] * 3] * 10, WarmUp(30, False), "after 30 warm-up calls"),
        ([[1.0] * 3] * 9, STEADY, "9 rounds: the confidence interval is unreliable below 10"),
        ([[1.0] * 2] * 10, STEADY, "20 samples: p90 and p99 are unreliable below 30"),
        ([[0.1] * 3] * 5 + [[0.106] * 3] * 5, STEADY, f"100 ms {QUARTERS} 106 ms in the last"),
        ([[0.106] * 3] * 5 + [[0.1] * 3] * 5, STEADY, f"106 ms {QUARTERS} 100 ms in the last"),
        ([[1.0, 1.0, 1.2]] * 10, STEADY, "range is 20 % of the median"),
    ],
)
def test_each_problem_of_samples_gives_one_warning(rounds, warmed_up, expected):
    (sentence,) = sample_warnings(rounds, warmed_up)
    assert expected in sentence


def test_a_drift_under_5_percent_and_a_spread_under_10_give_no_warning():
    assert sample_warnings([[1.0] * 3] * 5 + [[1.04] * 3] * 5, STEADY) == []
    assert sample_warnings([[1.0, 1.0, 1.09]] * 10, STEADY) == []
