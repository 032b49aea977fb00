"""Polygraphy's comparison beside ours, so that the gate's verdict does not rest on one program."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.errors import GateError

_AGREE = 1e-5
"""Polygraphy adds up in float32; of differences in [0, 1]."""


def second_opinion(expected: NDArray[np.float32], made: NDArray[np.float32]) -> dict[str, float]:
    """What Polygraphy's Comparator finds between two pictures in [0, 1].

    Returns:
        Largest, mean and median absolute difference.

    Raises:
        GateError: If its figures are not ours.
    """
    from polygraphy.comparator import Comparator, IterationResult, RunResults, SimpleCompareFunc
    from polygraphy.logger import G_LOGGER

    results = RunResults(
        [
            (name, [IterationResult({"imgt": picture}, runner_name=name)])
            for name, picture in (("reference", expected), ("engine", made))
        ]
    )
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        # Whatever the differences are: the verdict is the gate's.
        verdict = Comparator.compare_accuracy(results, compare_func=SimpleCompareFunc(atol=1.0))
    (pair,) = verdict
    ((iteration,),) = pair.values()
    found = iteration["imgt"]
    figures = {
        "max": float(found.max_absdiff),
        "mean": float(found.mean_absdiff),
        "median": float(found.median_absdiff),
    }
    ours = np.abs(expected.astype(np.float64) - made)
    for name, value in (("max", ours.max()), ("mean", ours.mean())):
        if not abs(figures[name] - value) <= _AGREE:
            raise GateError(
                f"Polygraphy finds a {name} difference of {figures[name]:.3e}, the gate of "
                f"{value:.3e}: one of them is wrong; report this"
            )
    return figures
