"""Several runs measured in turns, and what is said about their samples."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Turns(NamedTuple):
    """How runs alternate.

    Attributes:
        warm_up: Samples at the begin of a turn that are not counted.
        samples: Samples of a turn that are.
        pause_s: Before each turn.
    """

    warm_up: int
    samples: int
    pause_s: float


ON_PROCESSOR = Turns(1, 3, 0.25)
"""Thread pools spin for a while when their work is done: without a pause the threads of ONNX
Runtime slow the next run, PyTorch's, by a quarter (and the other way round)."""

ON_GPU = Turns(5, 25, 0.0)
"""No thread spins, and a GPU that waits lowers its clock."""

WARM_UP = 2
"""Rounds that are not counted: first allocations, thread pools, caches, CUDA graphs."""


def in_turns(
    names: Sequence[str], samples: int, turns: Turns, progress: Callable[[], object] = lambda: None
) -> Iterator[tuple[str, bool]]:
    """Whose sample is next, and whether it counts.

    In turns, so that a machine that slows down slows all of them; the order is reversed every
    second round, so that none always follows the same neighbour. `samples` is rounded up to
    whole turns.
    """
    for round_number in range(-WARM_UP, math.ceil(samples / turns.samples)):
        for name in names if round_number % 2 else reversed(names):
            time.sleep(turns.pause_s)
            for number in range(turns.warm_up + turns.samples):
                yield name, round_number >= 0 and number >= turns.warm_up
        progress()


def measure_in_turns(
    runs: Mapping[str, Callable[[], object]],
    *,
    samples: int,
    turns: Turns = ON_PROCESSOR,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each run, `samples` each; see `in_turns`."""
    measured: dict[str, list[float]] = {name: [] for name in runs}
    for name, counts in in_turns(list(runs), samples, turns, progress):
        started = time.perf_counter()
        runs[name]()
        elapsed = time.perf_counter() - started
        if counts:
            measured[name].append(elapsed)
    return measured


def parts_in_turns(
    runs: Mapping[str, Callable[[], dict[str, float]]], *, samples: int, turns: Turns = ON_GPU
) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of each part that each run reports of itself; see `in_turns`."""
    measured: dict[str, dict[str, list[float]]] = {name: {} for name in runs}
    for name, counts in in_turns(list(runs), samples, turns):
        for part, ms in runs[name]().items():
            if counts:
                measured[name].setdefault(part, []).append(ms)
    return measured


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, p90, p99, mean and interquartile range, in milliseconds."""
    ms = np.asarray(seconds) * 1e3
    p25, p50, p75, p90, p99 = (float(p) for p in np.percentile(ms, (25, 50, 75, 90, 99)))
    return {"p50": p50, "p90": p90, "p99": p99, "mean": float(ms.mean()), "iqr": p75 - p25}


def ratios(slower: Sequence[float], faster: Sequence[float]) -> dict[str, float]:
    """Median of the ratios sample by sample, and the middle half of them."""
    pairs = [a / b for a, b in zip(slower, faster, strict=True)]
    low, _, high = statistics.quantiles(pairs, n=4)
    return {"p50": statistics.median(pairs), "p25": low, "p75": high}
