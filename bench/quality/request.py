"""The request of a parity run: artefacts, weights, data set, devices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bench.data.datasets import DataSet, find, select
from bench.data.protocols import PROTOCOLS, Metric, Protocol, Rules, protocol_of
from bench.environment import MeasurementError
from runtime.backends.base import BackendName, PrecisionChoice


@dataclass(frozen=True)
class ParityRequest:
    """What `python -m bench.parity` compares. It can be pickled, for workers of a cluster.

    Attributes:
        models: Artefacts with different file names.
        weights: Checkpoint of the reference, or "demo".
        dataset: Name of the data set in `bench.data.protocols.PROTOCOLS`.
        root: Folder of the data set; for "folder" also a video file.
        rules: Whose rules apply, see `bench.data.protocols.protocol_of`.
        factor: For "folder": new frames per pair + 1; None stands for 2.
        every: Step between the samples that are measured, from the first on.
        limit: Maximum number of samples; None for no limit.
        metrics: Metrics that replace those of the protocol; PSNR is always computed.
        backend: Backend of the artefacts; None: the runtime's default.
        device: Device of the artefacts, "cpu", "cuda" or "cuda:N"; None: the backend's default.
        threads: CPU threads of each artefact and of PyTorch; None: their defaults.
        inference_precision: Precision of convolutions in OpenVINO.
        reference_device: PyTorch's name of the device of the reference.
        force: Whether artefacts with other weights or another flow scale, and frames of another
            size than that of the protocol, are accepted.
        random_weights: Whether the weights are random: reports then show the agreement with
            PyTorch and no quality.
        authors_weights: Whether the weights are the authors': reports then also show the
            published figures.
    """

    models: tuple[Path, ...]
    weights: str
    dataset: str
    root: Path
    rules: Rules = "paper"
    factor: int | None = None
    every: int = 1
    limit: int | None = None
    metrics: tuple[Metric, ...] = ()
    backend: BackendName | None = None
    device: str | None = None
    threads: int | None = None
    inference_precision: PrecisionChoice = "auto"
    reference_device: str = "cpu"
    force: bool = False
    random_weights: bool = False
    authors_weights: bool = False

    def __post_init__(self) -> None:
        """Checks that the options do not contradict each other.

        Raises:
            MeasurementError: If `factor` is given for a data set with a factor of its own, or the
                rules do not include the data set.
        """
        protocol_of(self.dataset, self.rules)
        if self.dataset != "folder" and self.factor is not None:
            raise MeasurementError(
                f"--factor was given with --dataset {self.dataset}, which has a factor of its own: "
                "leave --factor out"
            )

    @property
    def devices(self) -> tuple[str | None, str]:
        """The devices of the artefacts and of PyTorch."""
        return self.device, self.reference_device

    @property
    def protocol(self) -> Protocol:
        """The protocol of the data set, for "folder" with the requested factor."""
        if self.dataset != "folder":
            return protocol_of(self.dataset, self.rules)
        factor = 2 if self.factor is None else self.factor
        return replace(PROTOCOLS["folder"], title=self.root.name, factor=factor)

    def find(self) -> DataSet:
        """Finds the selected samples of the data set on disk.

        Raises:
            MeasurementError: If the data set is missing, or a file of a sample is.
        """
        data_set = find(self.protocol, self.root)
        return select(data_set, every=self.every, limit=self.limit)
