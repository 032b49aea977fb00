"""The evidence that `bench.report` reads, as types.

Only what the report uses is named here: a file may hold more. A PSNR of identical pictures is
infinite, which JSON cannot say: it stands as null.
"""

from __future__ import annotations

from typing import Literal, TypedDict, final

FORMAT_VERSION = 1

Decibel = float | None
"""A PSNR; None where the pictures are identical."""


class GpuName(TypedDict):
    """One GPU as the driver names it."""

    name: str


class Gpus(TypedDict):
    """The GPUs of the machine."""

    gpus: list[GpuName]


class Environment(TypedDict):
    """Machine, versions, commit and command: `bench.environment.environment_record`."""

    time: str
    command: str
    commit: str | None
    processor: str
    processors: int
    gpu: Gpus
    versions: dict[str, str]


class Milliseconds(TypedDict):
    """Of a pair, all its new frames."""

    p50: float
    p90: float
    iqr: float


class MeasuredArtefact(TypedDict):
    """The file that was run."""

    file: str
    sha256: str


class Work(TypedDict):
    """Of a pair at the case's factor."""

    operations: float
    bytes_moved: float


class Roofline(TypedDict):
    """What a run reached of the machine's ceilings; None where that is not known."""

    flops_per_second: float | None
    share_of_matmul: float | None
    share_of_copy: float | None


class Cold(TypedDict):
    """A process that opens the model and computes one pair."""

    load_seconds: float | None
    peak_host_bytes: float | None
    device_bytes: float | None


class Run(TypedDict):
    """One run of a case; `seconds` are the raw samples by round.

    `kind`: an artefact of ours, or a baseline: PyTorch, or a plain export through TensorRT.
    """

    kind: Literal["artefact", "pytorch", "plain"]
    artefact: MeasuredArtefact | None
    variant: str | None
    milliseconds: Milliseconds
    milliseconds_per_frame: float
    fps: float
    seconds: list[list[float]]
    warnings: list[str]
    work: Work | None
    roofline: Roofline | None
    cold: Cold | None


class Ratio(TypedDict):
    """How many times as fast `faster` is as `slower`, from `low` to `high`."""

    slower: str
    faster: str
    p50: float
    low: float
    high: float
    confidence: float


class Failure(TypedDict):
    """A run that was asked for and is missing, and the reason."""

    failed: str


class _Failed(TypedDict, total=False):
    failed: dict[str, Failure]


class Case(_Failed):
    """One size and factor, all its runs in turns; older files do not have `failed`."""

    dataset: str | None
    size: str
    factor: int
    runs: dict[str, Run]
    ratios: list[Ratio]


@final
class Ceilings(TypedDict):
    """What the machine can do at best."""

    matmul_flops_per_second: float
    copy_bytes_per_second: float
    measured_with: str


class Teraflops(TypedDict):
    """10^12 operations a second."""

    p50: float


@final
class GpuCeilings(TypedDict):
    """What a GPU can do at best, measured with PyTorch."""

    gpu: str
    matmul_fp16_tflops: Teraflops
    measured_with: str


@final
class NoCeilings(TypedDict):
    """Why that was not measured."""

    problem: str


class LatencyRecord(TypedDict):
    """A whole latency file."""

    what: str
    threads: int | None
    ceilings: Ceilings | GpuCeilings | NoCeilings
    cases: list[Case]
    environment: Environment


class Weights(TypedDict):
    """The checkpoint; `random`: no trained one could be had."""

    name: str
    sha256: str | None
    variant: str
    random: bool


class ComparedArtefact(TypedDict):
    """An artefact of a parity run; `compared` says whether floats or bytes are."""

    name: str
    sha256: str
    variant: str | None
    precision: str
    io: str
    backend: str
    compared: str


class Configuration(TypedDict):
    """What a parity run compares."""

    dataset: str
    title: str
    protocol: dict[str, object]
    official_samples: int | None
    metrics: list[str]
    weights: Weights
    artefacts: list[ComparedArtefact]
    notes: list[str]


class ParityHeader(TypedDict):
    """The first line of a parity file."""

    configuration: Configuration
    environment: Environment


class Worst(TypedDict):
    """The new frame that agrees least."""

    sample: str
    timestep: float
    psnr: Decibel


class Agreement(TypedDict):
    """Artefact against PyTorch, over all new frames; `identical` of them have no finite PSNR."""

    mean: Decibel
    identical: int
    worst: Worst | None


class _Metrics(TypedDict, total=False):
    ssim_3d: float
    ssim_2d: float
    ie: float


class ArtefactSummary(_Metrics):
    """One artefact over a data set: PSNR to ground truth, and agreement with PyTorch."""

    psnr: Decibel
    reference_psnr: Decibel
    drop: float | None
    against_reference: Agreement


class Published(TypedDict):
    """What the paper or the authors' repository says."""

    source: str
    psnr: float | None
    ssim: float | None
    ie: float | None


class Picture(TypedDict):
    """One new frame as PNG files, by paths relative to the parity file."""

    sample: str
    timestep: float
    artefact: str
    psnr: Decibel
    reference: str
    made: str
    error: str


class _Time(TypedDict, total=False):
    wall_seconds: float | None


class Summary(_Time):
    """The last line of a parity file that is complete.

    `wall_seconds` is null where a run was resumed, and missing in files of earlier versions.
    """

    samples: int
    damaged: list[str]
    artefacts: dict[str, ArtefactSummary]
    published: Published | None
    pictures: list[Picture]
