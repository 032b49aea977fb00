"""The JSON of bench.latency."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from bench.records.common import Decibel, Environment


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


class _OfArtefacts(TypedDict, total=False):
    flow_scale: float


class FileRecord(Execution, _OfArtefacts):
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
    frames_per_call: int


class PlainRecord(FileRecord):
    """A plain ONNX export that was run in TensorRT, and how it was built."""

    fp16_flag: bool
    build_seconds: float


class _OfFrames(TypedDict, total=False):
    frames: int
    worst_psnr_db: Decibel


class ImageAgreement(_OfFrames):
    """Images of a run compared with a reference, `bench.runs.agreement.agreement`.

    "frames" and "worst_psnr_db" are those of `bench.runs.agreement.agreement_of_frames`.
    """

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


class WarmUpRecord(TypedDict):
    """How a run was warmed up, `bench.harness.interleave.WarmUp`."""

    runs: int
    steady: bool


class RunFigures(TypedDict):
    """The samples of a run, "seconds" by round, and their statistics."""

    kind: Literal["artefact", "pytorch", "plain"]
    variant: str | None
    milliseconds: Milliseconds
    milliseconds_per_frame: float
    fps: float
    samples: int
    seconds: list[list[float]]
    warm_up: WarmUpRecord


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


class FramesRecord(TypedDict):
    """The frames of a case: "made", or those of "samples" of a data set in the folder "root_name".

    Samples are given by their names in the data set.
    """

    made: bool
    root_name: str | None
    samples: list[str]


class _NewInCase(TypedDict, total=False):
    frames: FramesRecord
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
