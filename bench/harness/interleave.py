"""Several runs measured in turns, and what is said about their samples."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Rounds = Sequence[Sequence[float]]
"""Samples of one run, round by round."""

Clock = Callable[[], float]
"""Seconds from some moment on, as `time.perf_counter`."""


class Turns(NamedTuple):
    """How runs alternate.

    Attributes:
        warm_up: Calls at the begin of a turn that are not counted.
        pause_s: Seconds before each turn.
    """

    warm_up: int
    pause_s: float


ON_PROCESSOR = Turns(1, 0.25)
"""Thread pools spin for a while when their work is done: without a pause the threads of ONNX
Runtime slow the next run, PyTorch's, by a quarter (and the other way round)."""

ON_GPU = Turns(5, 0.0)
"""No thread spins, and a GPU that waits lowers its clock."""


class Quota(NamedTuple):
    """How much is measured of every run; a turn ends when it has both.

    Attributes:
        rounds: Turns of each run.
        samples: Least number of samples of a turn.
        seconds: Least sum of the samples of a turn.
    """

    rounds: int
    samples: int
    seconds: float


_ROUNDS = (10, 30)
"""Least and most: intervals are drawn from rounds, and each costs a pause."""


def quota_for(samples: int, seconds: float) -> Quota:
    """At least `samples` samples and `seconds` seconds of each run, in the same rounds for all.

    Ten rounds or more wherever there are ten samples: a run of a second gives three samples a
    round, one of a millisecond three hundred.
    """
    least, most = _ROUNDS
    rounds = min(samples, max(least, min(most, samples // 3)))
    return Quota(rounds, math.ceil(samples / rounds), seconds / rounds)


def order_of_turns(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Whose turn is next.

    In turns, so that a machine that slows down slows all of them; the order is reversed every
    second round, so that none always follows the same neighbour.
    """
    for number in range(rounds):
        yield from reversed(names) if number % 2 else names


def measure_in_turns(
    runs: Mapping[str, Callable[[], object]],
    *,
    quota: Quota,
    turns: Turns = ON_PROCESSOR,
    clock: Clock = time.perf_counter,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, list[list[float]]]:
    """Seconds of each call of each run, round by round; `progress` is told of every turn."""
    measured: dict[str, list[list[float]]] = {name: [] for name in runs}
    for name in order_of_turns(list(runs), quota.rounds):
        time.sleep(turns.pause_s)
        for _ in range(turns.warm_up):
            runs[name]()
        samples: list[float] = []
        while len(samples) < quota.samples or sum(samples) < quota.seconds:
            samples.append(_seconds(runs[name], clock))
        measured[name].append(samples)
        progress()
    return measured


def parts_in_turns(
    runs: Mapping[str, Callable[[], dict[str, float]]], *, samples: int, turns: Turns = ON_GPU
) -> dict[str, dict[str, list[list[float]]]]:
    """Milliseconds of each part that each run reports of itself, round by round."""
    quota = quota_for(samples, 0.0)
    measured: dict[str, dict[str, list[list[float]]]] = {name: {} for name in runs}
    for name in order_of_turns(list(runs), quota.rounds):
        time.sleep(turns.pause_s)
        said = [runs[name]() for _ in range(turns.warm_up + quota.samples)][turns.warm_up :]
        for part in said[0]:
            measured[name].setdefault(part, []).append([one[part] for one in said])
    return measured


# Until a run is steady

_COMPARED = 3
_STEADY = 0.10
_WARM_UP_CALLS = 30
_WARM_UP_SECONDS = 10.0


class WarmUp(NamedTuple):
    """How a run was warmed up: `runs` calls, and whether it was `steady` in the end."""

    runs: int
    steady: bool


def warm_up(call: Callable[[], object], *, clock: Clock = time.perf_counter) -> WarmUp:
    """Calls until the time of a call stays: allocations, caches, CUDA graphs, compilers are done.

    At least six calls. It gives up after thirty, or ten seconds after the first call, which may
    compile; a run so slow that it has made fewer than six by then is judged by those.
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
    """Whether the median of the last three is within 10 % of that of the three before.

    Of fewer than six, one half is held against the other.
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


# What is said about samples

_SAMPLES = 30
_DRIFT = 0.05
_SPREAD = 0.10
_RESAMPLES = 2000
_CONFIDENCE = 0.95


def flat(rounds: Rounds) -> list[float]:
    """All samples in the order in which they were taken."""
    return [sample for samples in rounds for sample in samples]


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, p90, p99, mean and interquartile range, in milliseconds."""
    ms = np.asarray(seconds) * 1e3
    p25, p50, p75, p90, p99 = (float(p) for p in np.percentile(ms, (25, 50, 75, 90, 99)))
    return {"p50": p50, "p90": p90, "p99": p99, "mean": float(ms.mean()), "iqr": p75 - p25}


def ratio(slower: Rounds, faster: Rounds) -> dict[str, float]:
    """Ratio of the medians with its 95 % confidence interval, by bootstrap over whole rounds.

    Rounds and not samples: what disturbs a machine lasts longer than a call. The same rounds are
    drawn for both, so that a machine that changed its speed on the way leaves the ratio alone.

    Args:
        slower: Of the run above the fraction bar; any unit.
        faster: Of the run below it, measured in the same rounds.

    Raises:
        ValueError: If they have not equally many rounds.
    """
    if len(slower) != len(faster):
        raise ValueError(f"{len(slower)} and {len(faster)} rounds: they must be the same ones")
    above, below = ([np.asarray(samples) for samples in run] for run in (slower, faster))

    def median(rounds: list[np.ndarray], drawn: Sequence[int]) -> float:
        return float(np.median(np.concatenate([rounds[k] for k in drawn])))

    every = range(len(above))
    draws = np.random.default_rng(0).integers(len(above), size=(_RESAMPLES, len(above)))
    found = [median(above, drawn) / median(below, drawn) for drawn in draws.tolist()]
    tail = 50 * (1 - _CONFIDENCE)
    low, high = (float(p) for p in np.percentile(found, (tail, 100 - tail)))
    p50 = median(above, every) / median(below, every)
    return {"p50": p50, "low": low, "high": high, "confidence": _CONFIDENCE}


def doubts(rounds: Rounds, warmed_up: WarmUp) -> list[str]:
    """What speaks against the samples of a run, each a sentence; none where nothing does."""
    found = []
    if not warmed_up.steady:
        found.append(
            f"its time still changed by more than {_STEADY:.0%} after {warmed_up.runs} calls of "
            "warm-up: look at the samples before you use a figure"
        )
    if len(rounds) < _ROUNDS[0]:
        found.append(
            f"it was measured in {len(rounds)} rounds, of fewer than {_ROUNDS[0]} the interval of "
            "a ratio says little: raise --samples"
        )
    seconds = flat(rounds)
    if len(rounds) >= _ROUNDS[0] and len(seconds) < _SAMPLES:
        found.append(
            f"it has {len(seconds)} samples, of fewer than {_SAMPLES} p90 and p99 say little: "
            "raise --samples"
        )
    quarter = max(1, len(seconds) // 4)
    first, last = (statistics.median(part) for part in (seconds[:quarter], seconds[-quarter:]))
    if abs(last - first) > _DRIFT * first:
        found.append(
            f"the median of the first quarter of its samples is {first * 1e3:.4g} ms, that of the "
            f"last {last * 1e3:.4g} ms: the machine changed its speed, measure again when it is "
            "idle and cool"
        )
    figures = summary(seconds)
    if (spread := figures["iqr"] / figures["p50"]) > _SPREAD:
        found.append(
            f"its samples spread by {spread:.0%} of the median (IQR): something else was running, "
            "measure again on an idle machine"
        )
    return found
