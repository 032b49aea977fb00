"""Cases and runs of `bench.latency`, and artefacts as runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.records.latency import ArtefactRecord, Execution, RunDetails
from bench.runs.case import Case
from bench.runs.frames import FramePair, Size
from runtime import Interpolator
from runtime.backends.base import Backend, BackendName, HostBackend, OpenOptions, PrecisionChoice
from runtime.backends.ort.binding import BoundBackend
from runtime.backends.ov.backend import OpenVinoBackend
from runtime.backends.registry import open_backend
from runtime.backends.trt.backend import TensorRTBackend
from runtime.errors import counted
from runtime.frames import to_planes
from runtime.manifest import file_sha256
from runtime.model_info import ModelInfo

Kind = Literal["artefact", "pytorch", "plain"]
"""An artefact of this project, PyTorch, or a plain ONNX export in TensorRT. The last two are
baselines."""
UNKNOWN = "unknown"
"""The variant of a file without metadata."""


def call_inputs(
    info: ModelInfo, pair: FramePair
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """The inputs of one call of a model: img0, img1 and evenly spaced time steps.

    Args:
        info: The model.
        pair: Two uint8 frames (H, W, 3).

    Returns:
        img0 and img1, one pair as `Backend.put` takes it; timestep (T, 1, 1, 1) in (0, 1).
    """
    img0, img1 = (f[None] if info.io == "frames" else to_planes(f, info.divisor) for f in pair)
    count = info.frames_per_call
    steps = np.arange(1, count + 1, dtype=np.float32) / np.float32(count + 1)
    return img0, img1, steps.reshape(-1, 1, 1, 1)


class Run(Protocol):
    """A model with its options, which can be opened as a `Backend` and measured.

    Attributes:
        name: Unique name, in tables and in the evidence.
        kind: Artefact or kind of baseline.
        variant: Variant of the network.
        on_gpu: Whether it runs on a GPU.
    """

    @property
    def name(self) -> str: ...  # noqa: D102  # These are the attributes above.

    @property
    def kind(self) -> Kind: ...  # noqa: D102

    @property
    def variant(self) -> str: ...  # noqa: D102

    @property
    def on_gpu(self) -> bool: ...  # noqa: D102

    def info(self, case: Case) -> ModelInfo:
        """The model's metadata in this case."""
        ...

    def open(self, case: Case) -> Backend:
        """Loads the model; the caller closes the backend."""
        ...

    def evidence(self, case: Case, backend: Backend) -> RunDetails:
        """Describes what was measured. It is called after the measurement.

        Args:
            case: The case that was measured.
            backend: The backend that `open` returned, still open.

        Returns:
            "artefact": the file and its options, None for PyTorch;
            "pytorch": formulation, precision and weights, None for files;
            "agreement": what `bench.runs.agreement.agreement` returns, None if the images are not
            compared.
        """
        ...

    def request(self, case: Case) -> dict[str, Any] | None:
        """JSON data from which `bench.harness.cold_start` can open the run in a fresh process.

        It is None if the cold start is not measured.
        """
        ...


@dataclass(frozen=True)
class ArtefactRun:
    """An artefact opened with one set of options.

    Attributes:
        name: Unique name, in tables and in the evidence.
        path: Path of the file.
        file: Name of the file; its path if two files have the same name.
        options: Options with which it is opened.
        model: Metadata of the artefact.
        on_gpu: Whether it runs on a GPU.
        limits: Minimum and maximum (height, width) of an engine with dynamic shapes.
        execution: How it is run, where there is a choice.
        backend: Backend that was requested; None: the runtime's default.
        kind: Always "artefact".
    """

    name: str
    path: Path
    file: str
    options: OpenOptions
    model: ModelInfo
    on_gpu: bool
    limits: tuple[Size, Size] | None
    execution: Execution
    backend: BackendName | None = None
    kind: Kind = "artefact"

    @property
    def variant(self) -> str:
        """See `Run`."""
        return self.model.variant

    @property
    def sizes(self) -> str:
        """The frame sizes that it accepts, as text for error messages."""
        if self.model.size is not None:
            fixed = "{}x{}".format(*self.model.size)
            return fixed if self.model.io == "frames" else f"{fixed} and sizes that pad to it"
        return "any size" if self.limits is None else "{}x{} to {}x{}".format(*sum(self.limits, ()))

    def takes(self, size: Size) -> bool:
        """Whether it accepts frames of `size`, (height, width)."""
        fed = self.model.image_size(size)
        if self.model.size is not None:
            return fed == self.model.size
        if self.limits is None:
            return True
        return all(a <= n <= b for a, n, b in zip(self.limits[0], fed, self.limits[1], strict=True))

    def info(self, case: Case) -> ModelInfo:
        """See `Run`."""
        del case
        return self.model

    def open(self, case: Case) -> Backend:
        """See `Run`."""
        del case
        return open_backend(self.path, self.options, backend=self.backend)

    def evidence(self, case: Case, backend: Backend) -> RunDetails:
        """See `Run`."""
        del case
        model = self.model
        file: ArtefactRecord = {
            "file": self.path.name,
            "sha256": file_sha256(self.path),
            "bytes": self.path.stat().st_size,
            "weights_sha256": model.weights_sha256,
            "variant": model.variant,
            "precision": model.precision,
            "io": model.io,
            "tuned_for": model.tuned_for,
            "flow_scale": model.flow_scale,
            "frames_per_call": model.frames_per_call,
            **execution_as_run(backend, self.execution),
        }
        return {"artefact": file, "pytorch": None, "agreement": None}

    def request(self, case: Case) -> dict[str, Any]:
        """See `Run`."""
        return {
            "model": str(self.path.resolve()),
            "options": vars(self.options),
            "backend": self.backend,
            "size": case.size,
            "factor": case.factor,
        }


def artefact_runs(
    paths: Sequence[Path],
    *,
    device: str | None,
    threads: int,
    streams: Sequence[int] = (1,),
    cuda_graphs: Sequence[bool] = (True,),
    io_bindings: Sequence[bool] = (True,),
    backends: Sequence[BackendName | None] = (None,),
    precisions: Sequence[PrecisionChoice] = ("auto",),
) -> list[ArtefactRun]:
    """The runs of artefacts: each file with each choice of options that applies to it.

    Every file is opened once for each backend and precision, and closed again.

    Args:
        paths: Artefacts; repeated ones are measured once.
        device: "cpu", "cuda" or "cuda:N"; None: the backend's default.
        threads: Number of CPU threads, for ONNX files.
        streams: Numbers of streams to measure, for engines and OpenVINO.
        cuda_graphs: Use of a CUDA graph to measure, for engines. An engine with dynamic shapes
            runs without one in any case.
        io_bindings: Use of I/O binding to measure, for ONNX files on CUDA.
        backends: Backends to measure, for ONNX files; None stands for the runtime's default.
        precisions: Precisions of convolutions in OpenVINO to measure.

    Raises:
        ModelError: If a file cannot be loaded.
        BackendError: If its backend or the device is not available.
    """
    runs: dict[tuple[Path, str], ArtefactRun] = {}
    files = [path.name for path in {path.resolve(): path for path in paths}.values()]
    for path, backend_name, precision in itertools.product(paths, backends, precisions):
        shown = str(path) if files.count(path.name) > 1 else path.name
        requested = None if is_engine(path) else backend_name
        options = OpenOptions(
            device, threads=None if is_engine(path) else threads, precision=precision
        )
        with Interpolator(backend := open_backend(path, options, backend=requested)) as vfi:
            title, model, limits = f"{shown} on {vfi.backend}", vfi.info, _limits(backend)
            engine = isinstance(backend, TensorRTBackend)
            bound = isinstance(backend, BoundBackend)
            computed_in = backend.precision if isinstance(backend, OpenVinoBackend) else None
        on_gpu = engine or (device or "").startswith("cuda")
        several = engine or vfi.backend.startswith("openvino")
        choices = itertools.product(
            streams if several else (None,),
            cuda_graphs if engine else (None,),
            io_bindings if bound else (None,),
        )
        for count, graph, binding in choices:
            recorded = None if graph is None else graph and model.size is not None
            execution: Execution = {}
            if count is not None and (engine or count != 1):
                execution["streams"] = count
            if computed_in is not None:
                execution["inference_precision"] = computed_in
            if recorded is not None:
                execution["cuda_graph"] = recorded
            if binding is not None:
                execution["io_binding"] = binding
            name = ", ".join([title, *execution_names(execution)])
            chosen = replace(
                options, cuda_graph=graph, streams=execution.get("streams"), io_binding=binding
            )
            run = ArtefactRun(
                name, path, shown, chosen, model, on_gpu, limits, execution, requested
            )
            runs.setdefault((path.resolve(), name), run)
    return list(runs.values())


def execution_as_run(backend: Backend, execution: Execution) -> Execution:
    """`execution`, with the reason if a CUDA graph was requested and could not be captured."""
    problem = backend.cuda_graph_problem if isinstance(backend, TensorRTBackend) else None
    if problem is None:
        return execution
    return {**execution, "cuda_graph": False, "cuda_graph_problem": problem}


def execution_names(execution: Execution) -> Iterator[str]:
    """Yields the parts of a run's name that describe streams, CUDA graph and I/O binding."""
    if "streams" in execution:
        yield counted(execution["streams"], "stream")
    if "cuda_graph" in execution:
        yield "CUDA graph" if execution["cuda_graph"] else "no CUDA graph"
    if "io_binding" in execution:
        yield "I/O binding" if execution["io_binding"] else "no I/O binding"


def is_engine(path: Path) -> bool:
    """Whether the file is a TensorRT engine, by its suffix."""
    return path.suffix.lower() in (".engine", ".plan")


def calls_of_a_pair(info: ModelInfo, factor: int) -> list[tuple[int, int]]:
    """The calls of the model with which the runtime interpolates one pair.

    The runtime interpolates a small pair with a model that records its calls.

    Args:
        info: The model.
        factor: Ratio of the new frame rate to the old.

    Returns:
        (pairs, time steps) of each call, including those that fill up the last call.

    Raises:
        FrameError: If the weights cannot interpolate at this factor.
    """
    # Without a fixed size: the number of calls does not depend on it.
    backend = _CallRecorder(ModelInfo(**{**vars(info), "height": None, "width": None}))
    vfi = Interpolator(backend)
    frame = np.zeros((16, 16, 3), np.uint8)
    vfi.interpolate(frame, frame, timesteps=vfi.steps_for_factor(factor))
    return backend.calls


class _CallRecorder(HostBackend):
    """A model that returns black frames and records the shape of each call."""

    name = "call recorder"

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        self.calls: list[tuple[int, int]] = []

    def run(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[Any]:
        """See `HostBackend.run`."""
        self.calls.append((len(img0), len(timestep)))
        return np.zeros((len(timestep), *img1.shape[1:]), img1.dtype)

    def close(self) -> None:
        """See `Backend.close`."""


def _limits(backend: Backend) -> tuple[Size, Size] | None:
    if not isinstance(backend, TensorRTBackend) or backend.engine.limits is None:
        return None
    low, high = map(backend.info.layout.size_of, backend.engine.limits)
    return low, high
