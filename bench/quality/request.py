"""What is asked of a parity run: artefacts, weights, a data set, and how they are computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bench.data.datasets import DataSet, find, select
from bench.data.protocols import PROTOCOLS, Metric, Protocol
from bench.environment import MeasurementError
from runtime.backends.base import BackendName, InferencePrecision


@dataclass(frozen=True)
class ParityRequest:
    """What a sample is put through, and which samples; plain data, which a cluster can carry.

    Attributes:
        models: Artefacts, of different file names.
        weights: A checkpoint, or "demo"; the reference is computed with them.
        dataset: A name of `bench.data.protocols.PROTOCOLS`.
        root: Folder of the data set; for "folder" also a video.
        factor: For "folder": new frames + 1; None stands for 2.
        every: Only every N-th sample is taken.
        limit: No more samples than these.
        metrics: In place of those of the protocol; PSNR is always measured.
        backend: Of the artefacts; None: see `Interpolator.open`, as for the next three.
        device: Of the artefacts.
        threads: CPU threads of an artefact and of PyTorch.
        inference_precision: Of the artefacts.
        reference_device: PyTorch's name of the device of the reference.
        force: Artefacts of other weights or of another flow scale are measured too.
        random_weights: Reports then show the agreement with PyTorch and no quality.
        authors_weights: Reports then show published figures beside.
    """

    models: tuple[Path, ...]
    weights: str
    dataset: str
    root: Path
    factor: int | None = None
    every: int = 1
    limit: int | None = None
    metrics: tuple[Metric, ...] = ()
    backend: BackendName | None = None
    device: str | None = None
    threads: int | None = None
    inference_precision: InferencePrecision | None = None
    reference_device: str = "cpu"
    force: bool = False
    random_weights: bool = False
    authors_weights: bool = False

    def __post_init__(self) -> None:
        """Refuses what contradicts itself.

        Raises:
            MeasurementError: If `factor` is given for a data set that has its own.
        """
        if self.dataset != "folder" and self.factor is not None:
            raise MeasurementError(f"--factor is for --dataset folder, {self.dataset} has its own")

    @property
    def protocol(self) -> Protocol:
        """The protocol of the data set, with the factor that is asked for."""
        if self.dataset != "folder":
            return PROTOCOLS[self.dataset]
        factor = 2 if self.factor is None else self.factor
        return replace(PROTOCOLS["folder"], title=self.root.name, factor=factor)

    def find(self) -> DataSet:
        """The samples on disk.

        Raises:
            MeasurementError: If the data set is not there, or incomplete.
        """
        found = find(self.dataset, self.root, factor=self.protocol.factor)
        return select(found, every=self.every, limit=self.limit)
