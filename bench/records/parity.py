"""The JSON Lines of bench.parity."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from bench.records.common import Decibel, Environment


class WeightsRecord(TypedDict):
    """The checkpoint; "random" if it is not trained."""

    name: str
    sha256: str | None
    variant: str
    time_steps: str
    random: bool


class ComparedArtefact(TypedDict):
    """An artefact; "compared" says whether its images are compared as "floats" or "bytes"."""

    name: str
    sha256: str
    bytes: int
    variant: str | None
    precision: str
    io: str
    tuned_for: str
    flow_scale: float
    backend: str
    compared: str


class Configuration(TypedDict):
    """What a parity run compares."""

    dataset: str
    title: str
    protocol: dict[str, Any]
    samples: int | None
    official_samples: int | None
    every: int
    limit: int | None
    root_name: str
    metrics: list[str]
    weights: WeightsRecord
    reference: str
    artefacts: list[ComparedArtefact]
    notes: list[str]


class ParityHeader(TypedDict):
    """The first line of a parity file."""

    kind: Literal["parity"]
    format_version: Literal[1]
    configuration: Configuration
    environment: Environment


class WorstFrame(TypedDict):
    """The new frame with the lowest PSNR between artefact and PyTorch."""

    sample: str
    timestep: float
    psnr: Decibel


class Agreement(TypedDict):
    """Artefact against PyTorch over all new frames, of which "identical" have an infinite PSNR."""

    mean: Decibel
    identical: int
    worst: WorstFrame | None


class WorstDrop(TypedDict):
    """The new frame on which the artefact loses most against PyTorch, in dB."""

    sample: str
    timestep: float
    drop: float


class _FurtherMetrics(TypedDict, total=False):
    ssim_3d: float
    ssim_2d: float
    ie: float
    reference_ssim_3d: float
    reference_ssim_2d: float
    reference_ie: float


class ArtefactSummary(_FurtherMetrics):
    """Means of one artefact over a data set; "reference_..." are those of PyTorch."""

    compared: str
    psnr: Decibel
    reference_psnr: Decibel
    drop: float | None
    identical_to_truth: int
    by_timestep: list[list[Decibel]]
    against_reference: Agreement
    worst_drop: WorstDrop | None


class MeasuredRecord(TypedDict):
    """PyTorch on the same samples as a published figure, computed from floats as that figure is."""

    psnr: Decibel
    ssim: float | None
    ie: float | None


class _NewInPublished(TypedDict, total=False):
    measured: MeasuredRecord


class PublishedRecord(_NewInPublished):
    """A published figure, `ifrnet_model.weights.table.Published`, and the same measured here."""

    source: str
    psnr: float
    ssim: float | None
    ssim_kind: str
    ie: float | None


class Picture(TypedDict):
    """One new frame as PNG files, by their paths from the folder of the parity file."""

    sample: str
    timestep: float
    artefact: str
    psnr: Decibel
    reference: str
    made: str
    error: str


class SampleSummary(TypedDict):
    """The part of a summary that follows from the lines of the samples."""

    samples: int
    damaged: list[str]
    artefacts: dict[str, ArtefactSummary]


class _NewInSummary(TypedDict, total=False):
    wall_seconds: float | None


class Summary(SampleSummary, _NewInSummary):
    """The summary in the last line of a complete file; a resumed run has no "wall_seconds"."""

    published: PublishedRecord | None
    pictures: list[Picture]


class ParityEnd(TypedDict):
    """The last line of a complete parity file."""

    summary: Summary
