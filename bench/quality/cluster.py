"""A parity run on the workers of a Ray cluster: the same lines, in the same order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from bench.data.datasets import DataSet
from bench.environment import MeasurementError
from bench.quality.evaluate import Comparison, measure_all
from bench.quality.request import ParityRequest
from bench.quality.setup import open_comparison
from runtime.cluster.pool import Job, Pool, Share, connected

_SAMPLES = 4
"""That a worker is given at a time."""


class ParityWorker:
    """Holds PyTorch and the artefacts, opened once, and measures samples by their number."""

    def __init__(self, request: ParityRequest) -> None:
        self._owner = contextlib.ExitStack()
        opened = open_comparison(request, self._owner)
        self._comparison: Comparison = opened.comparison
        self._found: DataSet = opened.found
        self._samples = list(opened.found.samples)

    def ready(self) -> dict[str, Any]:
        """What this worker found of the data."""
        return {"samples": [sample.name for sample in self._samples]}

    def measure(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The lines of some samples, in that order."""
        wanted = [self._samples[number] for number in numbers]
        return list(measure_all(self._comparison, replace(self._found, samples=wanted), set(), 1))


def measure_on_cluster(
    request: ParityRequest,
    found: DataSet,
    done: set[str],
    *,
    address: str,
    share: Share,
    workers: int,
) -> Iterator[dict[str, Any]]:
    """The lines of the samples that are not done yet, in order, as `measure_all` gives them.

    Args:
        request: What every worker opens, with the threads of `share`.
        found: The samples as this machine sees them.
        done: Names of the samples that need not be measured again.
        address: Of the cluster, see `runtime.cluster.pool.connected`.
        share: Of a machine, for each worker.
        workers: How many.

    Raises:
        MeasurementError: If a worker cannot measure a sample, or sees other data.
        ClusterError: If the cluster cannot be used.
    """
    if not isinstance(found.samples, Sequence):
        raise MeasurementError(
            "--workers spreads samples that lie apart: give a data set or a folder of frames, or "
            "leave it out for a video"
        )
    names = [sample.name for sample in found.samples]
    left = [number for number, name in enumerate(names) if name not in done]
    mine = replace(request, threads=share.cpus)
    with (
        connected(address),
        Pool(ParityWorker, (mine,), share=share, workers=workers) as pool,
    ):
        groups = [left[k : k + _SAMPLES] for k in range(0, len(left), _SAMPLES)]
        for place, group in enumerate(groups):
            pool.add(Job("measure", {"numbers": group}, place))
        waiting: dict[int, list[dict[str, Any]]] = {}
        following = 0
        for ended in pool.results():
            if ended.error is not None:
                raise MeasurementError(f"a worker failed: {ended.error}") from ended.error
            if any(worker["samples"] != names for worker in pool.ready):
                raise MeasurementError(
                    "a worker sees other samples than this machine: give all the same --root"
                )
            waiting[ended.job.about] = ended.result
            while following in waiting:
                yield from waiting.pop(following)
                following += 1
