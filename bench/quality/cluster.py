"""Measures parity on the workers of a Ray cluster, with the same result as on one machine."""

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
from runtime.cluster.pool import Pool, Share, connected
from runtime.video.segments.jobs import Job

_SAMPLES = 4
"""Samples in one job of a worker."""


class ParityWorker:
    """A worker that opens PyTorch and the artefacts once, and measures samples by their number."""

    def __init__(self, request: ParityRequest) -> None:
        self._owner = contextlib.ExitStack()
        opened = open_comparison(request, self._owner)
        self._comparison: Comparison = opened.comparison
        self._data_set: DataSet = opened.data_set
        self._samples = list(opened.data_set.samples)

    def ready(self) -> dict[str, Any]:
        """The names of the samples that this worker has found."""
        return {"samples": [sample.name for sample in self._samples]}

    def measure(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Measures samples, given by their numbers; returns their lines in that order."""
        wanted = [self._samples[number] for number in numbers]
        chosen = replace(self._data_set, samples=wanted)
        return list(measure_all(self._comparison, chosen, set(), 1))


def measure_on_cluster(
    request: ParityRequest,
    data_set: DataSet,
    done: set[str],
    *,
    address: str,
    share: Share,
    workers: int,
) -> Iterator[dict[str, Any]]:
    """Yields the lines of the samples that are not done, in order, as `measure_all` does.

    Args:
        request: The request that every worker opens; its threads are replaced by those of `share`.
        data_set: The data set as this machine has found it.
        done: Names of the samples to skip.
        address: Address of the cluster, see `runtime.cluster.pool.connected`.
        share: Resources of each worker.
        workers: Number of workers.

    Raises:
        MeasurementError: If a worker cannot measure a sample, or has found other samples.
        ClusterError: If the cluster is not available.
    """
    if not isinstance(data_set.samples, Sequence):
        raise MeasurementError(
            "--workers was given with a video, which is decoded in order: leave --workers out, or "
            "give a folder of frames"
        )
    names = [sample.name for sample in data_set.samples]
    remaining = [number for number, name in enumerate(names) if name not in done]
    of_worker = replace(request, threads=share.cpus)
    with (
        connected(address),
        Pool(ParityWorker, (of_worker,), share=share, workers=workers) as pool,
    ):
        groups = [remaining[k : k + _SAMPLES] for k in range(0, len(remaining), _SAMPLES)]
        for index, group in enumerate(groups):
            pool.add(Job("measure", {"numbers": group}, index))
        waiting: dict[int, list[dict[str, Any]]] = {}
        next_index = 0
        for ended in pool.results():
            if ended.error is not None:
                raise MeasurementError(
                    f"a worker failed ({ended.error}): run the command without --workers to find "
                    "the cause on this machine"
                ) from ended.error
            if any(worker["samples"] != names for worker in pool.ready):
                raise MeasurementError(
                    "a worker has found other samples than this machine: give a --root with the "
                    "same files on all machines"
                )
            waiting[ended.job.about] = ended.result
            while next_index in waiting:
                yield from waiting.pop(next_index)
                next_index += 1
