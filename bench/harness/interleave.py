"""Measures several runs in interleaved rounds, and computes statistics of their samples.

In each round every run is called a number of times. The median of a run, the ratio of two runs
with its confidence interval, and the warnings about a run are computed from these rounds.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bench.records.latency import Milliseconds, RatioFigures
from runtime.errors import counted

Rounds = Sequence[Sequence[float]]
"""The samples of one run in seconds or milliseconds, one inner sequence for each round."""

Clock = Callable[[], float]
"""Returns seconds since an arbitrary start, as `time.perf_counter` does."""


class Interleaving(NamedTuple):
    """What happens in a round before the samples of a run are taken.

    Attributes:
        warm_up: Number of calls that are not counted.
        pause_s: Seconds of sleep before these calls.
    """

    warm_up: int
    pause_s: float


ON_CPU = Interleaving(1, 0.25)
"""With a pause, because thread pools keep spinning for a while after their last task: without it,
the threads of ONNX Runtime slow a following run of PyTorch by a quarter, and vice versa."""

ON_GPU = Interleaving(5, 0.0)
"""Without a pause: no CPU threads spin, and an idle GPU lowers its clock."""


class SampleBudget(NamedTuple):
    """How many samples are taken of each run; in a round, as many as both minima need.

    Attributes:
        rounds: Number of rounds.
        samples: Minimum number of samples of one run in one round.
        seconds: Minimum sum of the samples of one run in one round.
    """

    rounds: int
    samples: int
    seconds: float


_ROUNDS = (10, 30)
"""Minimum and maximum: confidence intervals need many rounds, and each round costs a pause."""


def sample_budget(samples: int, seconds: float) -> SampleBudget:
    """Divides a number of samples and of seconds among rounds, which are the same for all runs.

    There are 10 to 30 rounds, or `samples` rounds if that is fewer. With 30 samples and 3 seconds,
    each of 10 rounds takes 3 samples of a run that lasts a second, and 300 of a run that lasts a
    millisecond.

    Args:
        samples: Minimum number of samples of each run, over all rounds.
        seconds: Minimum sum of the samples of each run, over all rounds.
    """
    fewest, most = _ROUNDS
    rounds = min(samples, max(fewest, min(most, samples // 3)))
    return SampleBudget(rounds, math.ceil(samples / rounds), seconds / rounds)


def interleaved_order(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Yields the name of the run to measure next, every name once in each round.

    Rounds are interleaved so that a machine that slows down slows all runs. Every second round is
    in reverse order, so that no run always follows the same other run.
    """
    for number in range(rounds):
        yield from reversed(names) if number % 2 else names


def measure_interleaved(
    runs: Mapping[str, Callable[[], object]],
    *,
    budget: SampleBudget,
    interleaving: Interleaving = ON_CPU,
    clock: Clock = time.perf_counter,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, list[list[float]]]:
    """Times every call of every run, in interleaved rounds.

    Args:
        runs: Functions to time, by name.
        budget: How many samples are taken.
        interleaving: Pause and warm-up before the samples of a run in a round.
        clock: Returns the time in seconds.
        progress: Called after the samples of a run in a round.

    Returns:
        Seconds of each call, by name and round.
    """
    measured: dict[str, list[list[float]]] = {name: [] for name in runs}
    for name in interleaved_order(list(runs), budget.rounds):
        time.sleep(interleaving.pause_s)
        for _ in range(interleaving.warm_up):
            runs[name]()
        samples: list[float] = []
        while len(samples) < budget.samples or sum(samples) < budget.seconds:
            samples.append(_seconds(runs[name], clock))
        measured[name].append(samples)
        progress()
    return measured


def parts_interleaved(
    runs: Mapping[str, Callable[[], dict[str, float]]],
    *,
    samples: int,
    interleaving: Interleaving = ON_GPU,
) -> dict[str, dict[str, list[list[float]]]]:
    """Collects times that runs report of their own parts, in interleaved rounds.

    Args:
        runs: Functions that return the milliseconds of each part by its name; all calls of one
            run return the same names.
        samples: Minimum number of samples of each run.
        interleaving: Pause and warm-up before the samples of a run in a round.

    Returns:
        Milliseconds of each call, by run, part and round.
    """
    budget = sample_budget(samples, 0.0)
    measured: dict[str, dict[str, list[list[float]]]] = {name: {} for name in runs}
    for name in interleaved_order(list(runs), budget.rounds):
        time.sleep(interleaving.pause_s)
        calls = [runs[name]() for _ in range(interleaving.warm_up + budget.samples)]
        timed = calls[interleaving.warm_up :]
        for part in timed[0]:
            measured[name].setdefault(part, []).append([call[part] for call in timed])
    return measured


# Warm-up

_COMPARED = 3
_STEADY = 0.10
_WARM_UP_CALLS = 30
_WARM_UP_SECONDS = 10.0


class WarmUp(NamedTuple):
    """How a run was warmed up.

    Attributes:
        runs: Number of calls.
        steady: Whether `is_steady` held after the last of them.
    """

    runs: int
    steady: bool


def warm_up(call: Callable[[], object], *, clock: Clock = time.perf_counter) -> WarmUp:
    """Calls a run until the time of a call is steady (see `is_steady`).

    By then allocations, caches, CUDA graphs and compilers are ready. There are at least 6 calls.
    Warm-up ends after 30 calls, or when the calls after the first, which may compile, have taken
    10 seconds; a slow run may then have made fewer than 6 calls.
    """
    seconds: list[float] = []
    while True:
        seconds.append(_seconds(call, clock))
        steady = is_steady(seconds)
        if steady and len(seconds) >= 2 * _COMPARED:
            return WarmUp(len(seconds), True)
        late = len(seconds) > 1 and sum(seconds[1:]) >= _WARM_UP_SECONDS
        if late or len(seconds) >= _WARM_UP_CALLS:
            return WarmUp(len(seconds), steady)


def is_steady(seconds: Sequence[float]) -> bool:
    """Whether the median of the last three times is within 10 % of that of the three before.

    Of fewer than six times, the second half is compared with the first; one time is not steady.
    """
    count = min(_COMPARED, len(seconds) // 2)
    if count == 0:
        return False
    before = statistics.median(seconds[-2 * count : -count])
    return abs(statistics.median(seconds[-count:]) - before) <= _STEADY * before


def _seconds(call: Callable[[], object], clock: Clock) -> float:
    started = clock()
    call()
    return clock() - started


# Statistics

_SAMPLES = 30
_DRIFT = 0.05
_SPREAD = 0.10
_RESAMPLES = 2000
_CONFIDENCE = 0.95


def flat(rounds: Rounds) -> list[float]:
    """The samples of all rounds in one list, in the order in which they were taken."""
    return [sample for samples in rounds for sample in samples]


def summary(seconds: Sequence[float]) -> Milliseconds:
    """Statistics of times in seconds, as milliseconds.

    Returns:
        "p50", "p90", "p99", "mean" and "iqr", the interquartile range.
    """
    ms = np.asarray(seconds) * 1e3
    p25, p50, p75, p90, p99 = (float(p) for p in np.percentile(ms, (25, 50, 75, 90, 99)))
    return {"p50": p50, "p90": p90, "p99": p99, "mean": float(ms.mean()), "iqr": p75 - p25}


def ratio(slower: Rounds, faster: Rounds) -> RatioFigures:
    """Ratio of the medians of two runs with its 95 % confidence interval.

    The interval comes from a bootstrap that draws whole rounds and not samples, because a
    disturbance of the machine lasts longer than one call. The same rounds are drawn for both runs,
    so that a change of the machine's speed between rounds does not change the ratio.

    Args:
        slower: Samples of the run in the numerator, in any unit.
        faster: Samples of the run in the denominator, in the same unit and rounds.

    Returns:
        "p50", the ratio; "low" and "high", its interval; "confidence", 0.95.

    Raises:
        ValueError: If the numbers of rounds differ.
    """
    if len(slower) != len(faster):
        raise ValueError(
            f"the runs have {len(slower)} and {len(faster)} rounds: give samples of the same rounds"
        )
    above, below = ([np.asarray(samples) for samples in run] for run in (slower, faster))

    def median(rounds: list[np.ndarray], drawn: Sequence[int]) -> float:
        return float(np.median(np.concatenate([rounds[k] for k in drawn])))

    every = range(len(above))
    draws = np.random.default_rng(0).integers(len(above), size=(_RESAMPLES, len(above)))
    ratios = [median(above, drawn) / median(below, drawn) for drawn in draws.tolist()]
    tail = 50 * (1 - _CONFIDENCE)
    low, high = (float(p) for p in np.percentile(ratios, (tail, 100 - tail)))
    p50 = median(above, every) / median(below, every)
    return {"p50": p50, "low": low, "high": high, "confidence": _CONFIDENCE}


def sample_warnings(rounds: Rounds, warmed_up: WarmUp) -> list[str]:
    """Warnings about the samples of a run.

    Args:
        rounds: The samples in seconds.
        warmed_up: How the run was warmed up.

    Returns:
        One sentence for each problem: not steady, too few rounds or samples, drift, spread.
    """
    warnings = []
    if not warmed_up.steady:
        warnings.append(
            f"not steady: the time still changed by more than {100 * _STEADY:.0f} % after "
            f"{warmed_up.runs} warm-up calls; check the samples"
        )
    if len(rounds) < _ROUNDS[0]:
        measured = counted(len(rounds), "round")
        warnings.append(f"{measured}: the confidence interval is unreliable below {_ROUNDS[0]}")
    seconds = flat(rounds)
    if len(rounds) >= _ROUNDS[0] and len(seconds) < _SAMPLES:
        warnings.append(f"{len(seconds)} samples: p90 and p99 are unreliable below {_SAMPLES}")
    quarter = max(1, len(seconds) // 4)
    first, last = (statistics.median(part) for part in (seconds[:quarter], seconds[-quarter:]))
    if abs(last - first) > _DRIFT * first:
        warnings.append(
            f"drift: the median is {first * 1e3:.4g} ms in the first quarter of the samples and "
            f"{last * 1e3:.4g} ms in the last; measure again on an idle, cool machine"
        )
    figures = summary(seconds)
    if (spread := figures["iqr"] / figures["p50"]) > _SPREAD:
        warnings.append(
            f"spread: the interquartile range is {100 * spread:.0f} % of the median; measure again "
            "on an idle machine"
        )
    return warnings
