"""The request of a latency measurement: runs, frame sizes, what is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.environment import MeasurementError
from bench.harness.measure import STREAM_FRAMES, MeasureOptions
from bench.harness.opening import can_limit_time
from bench.runs.artefact import is_engine
from bench.runs.case import Case, case_of_dataset
from bench.runs.frames import Size
from bench.runs.torch_forms import check_names
from runtime.backends.base import PrecisionChoice
from runtime.errors import counted
from runtime.frames import MINIMUM_SIDE

SIZE: Size = (256, 448)
SAMPLES, SECONDS = 30, 3.0
COMPARE_LIMIT_S = 500.0


@dataclass(frozen=True)
class LatencyRequest:
    """What `python -m bench.latency` measures. Error messages name its options.

    Attributes:
        models: Artefacts: engines and ONNX files.
        compare: PyTorch baselines, by names of `bench.runs.torch_forms`.
        weights: A checkpoint, or "demo", for `compare`.
        plain: An ONNX export of the authors' formulation to measure beside engines.
        datasets: Names of data sets; each gives a size and a factor.
        roots: Folders of `datasets`, one for all or one for each, whose frames are then used;
            empty: frames are made.
        sizes: (height, width) of the frames, without data sets; empty stands for 256x448.
        factor: New frames per pair + 1, for `sizes`; None stands for 2.
        device: "cpu", "cuda" or "cuda:N" for artefacts and PyTorch; None stands for the backend's
            default, and for the CPU with PyTorch.
        backends: Backends for ONNX files, each of which is a run; empty: the runtime's default.
        inference_precisions: Precisions of convolutions in OpenVINO, each of which is a run.
        threads: Number of CPU threads; None: all available CPUs.
        streams: Numbers of streams for engines and OpenVINO; each is a run.
        without_cuda_graph: Whether engines are also measured without a CUDA graph.
        without_io_binding: Whether ONNX files on a GPU are also measured without I/O binding.
        samples: Minimum number of samples of each run.
        seconds: Minimum sum of the samples of each run.
        stream_frames: Frames of the stream that measures throughput; None stands for
            STREAM_FRAMES with engines or `streams`, and for no such measurement without.
        cold_start: Whether the cold start of each run is measured.
        profile: Whether every layer or node is timed.
        compare_limit: Time limit in seconds of the first pair of each PyTorch run; None stands for
            COMPARE_LIMIT_S.
    """

    models: tuple[Path, ...] = ()
    compare: tuple[str, ...] = ()
    weights: str | None = None
    plain: Path | None = None
    datasets: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()
    sizes: tuple[Size, ...] = ()
    factor: int | None = None
    device: str | None = None
    backends: tuple[Literal["onnxruntime", "openvino"], ...] = ()
    inference_precisions: tuple[PrecisionChoice, ...] = ("auto",)
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
        """Checks the request without opening any file.

        Raises:
            MeasurementError: If options are missing, contradict each other, or are too small.
        """
        if not self.models and not self.compare:
            raise MeasurementError("neither --model nor --compare was given: give one, or both")
        if self.compare and self.weights is None:
            raise MeasurementError(
                "--compare was given without --weights: give both, for example --compare torch "
                "authors --weights demo"
            )
        check_names(self.compare, on_gpu=self.on_gpu)
        if self.compare_limit is not None and not can_limit_time():
            raise MeasurementError("--compare-limit does not work on Windows: leave it out")
        if self.datasets and self.factor is not None:
            raise MeasurementError(
                "--factor was given with --dataset, which has a factor of its own: leave --factor "
                "out, or give --size"
            )
        if len(self.roots) not in (0, 1, len(self.datasets)) or (self.roots and not self.datasets):
            raise MeasurementError(
                f"--root has {counted(len(self.roots), 'folder')} and --dataset "
                f"{counted(len(self.datasets), 'name')}: give one folder for all data sets, or one "
                "for each"
            )
        self._check_kinds()
        self._check_numbers()

    @property
    def engines(self) -> list[Path]:
        """The artefacts that are TensorRT engines."""
        return [path for path in self.models if is_engine(path)]

    @property
    def on_gpu(self) -> bool:
        """Whether `device` is a GPU."""
        return (self.device or "").startswith("cuda")

    def cases(self) -> list[Case]:
        """The cases to measure, each size or data set once."""
        if self.datasets:
            roots: Sequence[Path | None] = self.roots or (None,)
            several = roots if len(roots) > 1 else [*roots] * len(self.datasets)
            by_name = dict(zip(self.datasets, several, strict=True))
            return [case_of_dataset(name, root) for name, root in by_name.items()]
        sizes = dict.fromkeys(self.sizes or (SIZE,))
        return [Case(None, size, self.factor or 2, None) for size in sizes]

    def measure_options(self, threads: int) -> MeasureOptions:
        """The options of each case, with `threads` CPU threads."""
        frames = STREAM_FRAMES if self.engines or self.streams else None
        return MeasureOptions(
            samples=self.samples,
            seconds=self.seconds,
            cold_start=self.cold_start,
            stream_frames=self.stream_frames or frames,
            profile=self.profile,
            threads=threads,
            limit_s=self.compare_limit or (COMPARE_LIMIT_S if can_limit_time() else None),
        )

    def _check_kinds(self) -> None:
        """Refuses options that apply to none of the models."""
        if self.plain is not None and not self.engines:
            raise MeasurementError(
                "--plain was given without an engine to compare with: give one with --model"
            )
        if self.without_cuda_graph and not self.engines:
            raise MeasurementError("--no-cuda-graph was given without an engine: leave it out")
        onnx_files = len(self.models) > len(self.engines)
        if self.without_io_binding and not (onnx_files and self.on_gpu):
            raise MeasurementError(
                "--no-io-binding was given without an ONNX file on --device cuda: leave it out"
            )

    def _check_numbers(self) -> None:
        minima = {
            "factor": 2, "samples": 1, "seconds": 0, "threads": 1, "stream_frames": 2,
            "compare_limit": 1,
        }  # fmt: skip
        for name, low in minima.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                option = name.replace("_", "-")
                raise MeasurementError(f"--{option} is {value}: use {low} or more")
        for height, width in self.sizes:
            if min(height, width) < MINIMUM_SIDE:
                raise MeasurementError(
                    f"--size is {height}x{width}: use {MINIMUM_SIDE}x{MINIMUM_SIDE} or more"
                )
