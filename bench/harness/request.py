"""What is asked of a latency measurement: runs, sizes, and how long each is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.environment import MeasurementError
from bench.harness.measure import STREAM_FRAMES, MeasureOptions
from bench.harness.opening import can_be_limited
from bench.runs.artefact import Case, Size, case_of_dataset, is_engine
from bench.runs.torch_forms import check_names
from runtime.backends.base import InferencePrecision
from runtime.frames import MINIMUM_SIDE

SIZE: Size = (256, 448)
SAMPLES, SECONDS = 30, 3.0
COMPARE_LIMIT_S = 500.0


@dataclass(frozen=True)
class LatencyRequest:
    """Runs, the pairs that they make, and how they are measured. Errors name the options of
    `python -m bench.latency`.

    Attributes:
        models: Artefacts.
        compare: Names of `bench.runs.torch_forms`: PyTorch beside the artefacts, or alone.
        weights: A checkpoint, or "demo", for `compare`.
        plain: An ONNX export of the authors' formulation, which is measured beside engines.
        datasets: Names of data sets, whose sizes and factors are taken.
        sizes: (height, width) of the frames, where no data set is given; default 256x448.
        factor: With `sizes`: new frames + 1; None stands for 2.
        device: "cpu", "cuda" or "cuda:N", of artefacts and of PyTorch; None: the backend's own,
            and the CPU for PyTorch.
        backends: Of ONNX files; each is a run. Empty: as the runtime chooses.
        inference_precision: OpenVINO: what convolutions are computed in.
        threads: Of the CPU; None: all.
        streams: Engines and OpenVINO: each number is a run.
        without_cuda_graph: Engines are measured without one too.
        without_io_binding: ONNX files on a GPU are measured without it too.
        samples: Of each run, at least.
        seconds: Of each run, at least.
        stream_frames: Of the stream that shows the throughput; None: STREAM_FRAMES where there are
            engines or streams.
        cold_start: Start a process for each run's first pair.
        profile: Time every layer or node.
        compare_limit: Seconds that a run of PyTorch has for its first pair; None: COMPARE_LIMIT_S.
    """

    models: tuple[Path, ...] = ()
    compare: tuple[str, ...] = ()
    weights: str | None = None
    plain: Path | None = None
    datasets: tuple[str, ...] = ()
    sizes: tuple[Size, ...] = ()
    factor: int | None = None
    device: str | None = None
    backends: tuple[Literal["onnxruntime", "openvino"], ...] = ()
    inference_precision: InferencePrecision | None = None
    threads: int | None = None
    streams: tuple[int, ...] = ()
    without_cuda_graph: bool = False
    without_io_binding: bool = False
    samples: int = SAMPLES
    seconds: float = SECONDS
    stream_frames: int | None = None
    cold_start: bool = True
    profile: bool = False
    compare_limit: float | None = None

    def __post_init__(self) -> None:
        """Refuses what can be known to be wrong before anything is opened.

        Raises:
            MeasurementError: If something is missing, contradicts something else, or is too small.
        """
        if not self.models and not self.compare:
            raise MeasurementError("there is nothing to measure: give --model, --compare, or both")
        if bool(self.compare) != (self.weights is not None):
            options = ("--compare", "--weights") if self.compare else ("--weights", "--compare")
            raise MeasurementError(
                f"{options[0]} needs {options[1]}: give both, as --compare torch authors "
                "--weights demo"
            )
        check_names(self.compare, on_gpu=self.on_gpu)
        if self.compare_limit is not None and not can_be_limited():
            raise MeasurementError("--compare-limit does not work on Windows: leave it out")
        if self.datasets and self.factor is not None:
            raise MeasurementError(
                "a data set has a factor of its own: leave --factor, or give --size"
            )
        self._check_kinds()
        self._check_numbers()

    @property
    def engines(self) -> list[Path]:
        """The artefacts that are TensorRT engines."""
        return [path for path in self.models if is_engine(path)]

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU is named."""
        return (self.device or "").startswith("cuda")

    def cases(self) -> list[Case]:
        """The pairs that are made, each size and data set once."""
        if self.datasets:
            return [case_of_dataset(name) for name in dict.fromkeys(self.datasets)]
        sizes = dict.fromkeys(self.sizes or (SIZE,))
        return [Case(None, size, self.factor or 2, None) for size in sizes]

    def measure_options(self, threads: int) -> MeasureOptions:
        """How each case is measured, on that many threads of the CPU."""
        frames = STREAM_FRAMES if self.engines or self.streams else None
        return MeasureOptions(
            samples=self.samples,
            seconds=self.seconds,
            cold_start=self.cold_start,
            stream_frames=self.stream_frames or frames,
            profile=self.profile,
            threads=threads,
            limit_s=self.compare_limit or (COMPARE_LIMIT_S if can_be_limited() else None),
        )

    def _check_kinds(self) -> None:
        """Options that are for engines alone, or for ONNX files alone."""
        if self.plain is not None and not self.engines:
            raise MeasurementError("--plain is measured beside an engine: give one with --model")
        if self.without_cuda_graph and not self.engines:
            raise MeasurementError("--no-cuda-graph is for TensorRT engines: leave it out")
        onnx_files = len(self.models) > len(self.engines)
        if self.without_io_binding and not (onnx_files and self.on_gpu):
            raise MeasurementError(
                "--no-io-binding is for ONNX files with --device cuda: leave it out"
            )

    def _check_numbers(self) -> None:
        least = {
            "factor": 2, "samples": 1, "seconds": 0, "threads": 1, "stream_frames": 2,
            "compare_limit": 1,
        }  # fmt: skip
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                option = name.replace("_", "-")
                raise MeasurementError(f"--{option} is {value}: use {low} or more")
        for height, width in self.sizes:
            if min(height, width) < MINIMUM_SIDE:
                raise MeasurementError(
                    f"--size is {height}x{width}: frames are at least {MINIMUM_SIDE}x{MINIMUM_SIDE}"
                )
