"""The JSON of bench.latency and bench.parity as types, for the code that writes and reads it.

A class with total=False holds keys that some files lack: those of other kinds of runs, and those
that earlier versions did not write.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypedDict

FORMAT_VERSION: Final = 1
"""Version of both formats."""

Decibel = float | None
"""A PSNR in dB. That of identical images is infinite, which is null in JSON."""


class GpuRecord(TypedDict):
    """One GPU, `runtime.machine.Gpu`."""

    name: str
    compute_capability: str


class GpuDriverRecord(TypedDict):
    """The GPUs of the machine, `runtime.machine.GpuDriver`."""

    gpus: list[GpuRecord]
    cuda_version: str | None
    problem: str | None


class _NewInEnvironment(TypedDict, total=False):
    instruction_sets: list[str]
    nvidia_smi: list[dict[str, str]] | None


class Environment(_NewInEnvironment):
    """Machine, versions, commit and command of a measurement."""

    time: str
    command: str
    commit: str | None
    platform: str
    processor: str
    processors: int
    gpu: GpuDriverRecord
    versions: dict[str, str]


# bench.latency


class Milliseconds(TypedDict):
    """Statistics of times in milliseconds; "iqr" is the interquartile range."""

    p50: float
    p90: float
    p99: float
    mean: float
    iqr: float


class SampledMilliseconds(Milliseconds):
    """Statistics with the times they are computed from, in milliseconds."""

    samples: list[float]


class Execution(TypedDict, total=False):
    """How a file was run, where there is a choice."""

    streams: int
    inference_precision: str
    cuda_graph: bool
    cuda_graph_problem: str
    io_binding: bool


class FileRecord(Execution):
    """The file that was run."""

    file: str
    sha256: str
    bytes: int


class ArtefactRecord(FileRecord):
    """An artefact that was run."""

    weights_sha256: str | None
    variant: str
    precision: str
    io: str
    tuned_for: str
    flow_scale: float
    frames_per_call: int


class PlainRecord(FileRecord):
    """A plain ONNX export that was run in TensorRT, and how it was built."""

    fp16_flag: bool
    build_seconds: float


class ImageAgreement(TypedDict):
    """Images of a run compared with a reference, `bench.runs.agreement.agreement`."""

    psnr_db: Decibel
    finite: bool
    max_difference: float | None
    reference: str


class _NewInRunDetails(TypedDict, total=False):
    pytorch: dict[str, Any] | None
    agreement: ImageAgreement | None


class RunDetails(_NewInRunDetails):
    """What was run; "artefact" is None for PyTorch, "pytorch" for files."""

    artefact: FileRecord | None


class RunFigures(TypedDict):
    """The samples of a run, "seconds" by round, and their statistics."""

    kind: Literal["artefact", "pytorch", "plain"]
    variant: str | None
    milliseconds: Milliseconds
    milliseconds_per_frame: float
    fps: float
    samples: int
    seconds: list[list[float]]
    warm_up: dict[str, Any]


class WorkRecord(TypedDict):
    """Counted work of a pair, `bench.harness.roofline.Work`."""

    operations: float
    bytes_moved: float
    bytes_least: float


class RooflineRecord(TypedDict):
    """Rates of a run, and their shares of the ceilings."""

    flops_per_second: float
    share_of_matmul: float
    bytes_per_second: float
    share_of_copy: float


class ColdStart(TypedDict):
    """Cold start of a run, `bench.harness.cold_start.measure_cold_start`."""

    import_seconds: float
    load_seconds: float
    first_pair_seconds: float
    peak_host_bytes: int | None
    device_bytes: int | None


class RunRecord(RunFigures, RunDetails):
    """One run of a case."""

    warnings: list[str]
    work: WorkRecord | None
    roofline: RooflineRecord | None
    cold: ColdStart | None
    parts_of_a_call_milliseconds: dict[str, SampledMilliseconds]
    stream: dict[str, Any] | None


class RatioFigures(TypedDict):
    """A ratio of medians with its confidence interval from "low" to "high"."""

    p50: float
    low: float
    high: float
    confidence: float


class RatioRecord(RatioFigures):
    """The time of the run "slower" over that of the run "faster"."""

    slower: str
    faster: str


class FailedRun(TypedDict):
    """A requested run that failed, with the reason and its name of `--compare`."""

    kind: str
    compare: str | None
    failed: str


class _NewInCase(TypedDict, total=False):
    failed: dict[str, FailedRun]
    compute_ratios: list[RatioRecord]


class CaseRecord(_NewInCase):
    """One size and factor with the runs that were measured in interleaved rounds."""

    dataset: str | None
    size: str
    factor: int
    runs: dict[str, RunRecord]
    ratios: list[RatioRecord]


class Tflops(TypedDict):
    """Rates in 10^12 operations per second."""

    p50: float
    best: float


class CeilingsRecord(TypedDict, total=False):
    """Peak performance: of a CPU, of a GPU ("gpu"), or the "problem" for which it is unknown."""

    matmul_flops_per_second: float
    copy_bytes_per_second: float
    measured_with: str
    gpu: str
    matmul_fp16_tflops: Tflops
    matrix: int
    milliseconds: SampledMilliseconds
    problem: str


class LatencyMeasurement(TypedDict):
    """A latency file without the environment; "threads" is None if all runs used a GPU."""

    kind: Literal["latency"]
    format_version: Literal[1]
    what: str
    threads: int | None
    ceilings: CeilingsRecord
    cases: list[CaseRecord]
    layers_milliseconds: dict[str, list[tuple[str, float]]]


class LatencyRecord(LatencyMeasurement):
    """A latency file."""

    environment: Environment


# bench.parity


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


class PublishedRecord(TypedDict):
    """A published figure, `ifrnet_model.weights.table.Published`."""

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
