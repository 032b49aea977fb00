"""What bench.latency measures: a pair of some size, made by an artefact or by another run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.data.protocols import LATENCY_SETS, PROTOCOLS
from runtime import Interpolator
from runtime.backends.base import Backend, BackendName, HostBackend, InferencePrecision, OpenOptions
from runtime.backends.ort.binding import BoundBackend
from runtime.backends.registry import open_backend
from runtime.backends.trt.backend import TensorRTBackend
from runtime.frames import to_planes
from runtime.manifest import file_sha256
from runtime.model_info import ModelInfo

Size = tuple[int, int]
FramePair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
Kind = Literal["artefact", "pytorch", "plain"]
"""An artefact of ours, PyTorch, or a plain export through TensorRT; the last two are baselines."""
UNKNOWN = "unknown"
"""Variant of a file that does not say it."""


@dataclass(frozen=True)
class Case:
    """What a pair is: its size, and how many frames it becomes.

    Attributes:
        dataset: Short name of the data set whose size and factor these are; None where the size
            was given.
        size: (height, width) of the frames.
        factor: New frame rate over old: factor - 1 new frames.
        flow_scale: Of the data set's protocol; None without one.
    """

    dataset: str | None
    size: Size
    factor: int
    flow_scale: float | None

    @property
    def size_text(self) -> str:
        """HEIGHTxWIDTH."""
        return f"{self.size[0]}x{self.size[1]}"


def case_of_dataset(name: str) -> Case:
    """The case that a data set of `LATENCY_SETS` stands for."""
    protocol = PROTOCOLS[LATENCY_SETS[name]]
    assert protocol.frame_size is not None  # All of LATENCY_SETS have one.
    return Case(name, protocol.frame_size, protocol.factor, protocol.flow_scale)


def noise_frames(size: Size) -> FramePair:
    """Two uint8 frames (H, W, 3) of noise, the second four pixels on; time depends on no picture.

    Args:
        size: (height, width).
    """
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return frame, np.roll(frame, 4, axis=1)


def moving_frames(size: Size) -> FramePair:
    """Two uint8 frames (H, W, 3) of waves that move by up to 8 pixels, for comparing pictures.

    Noise has no motion that a network could find, and the pictures made of it compare badly.

    Args:
        size: (height, width).
    """
    rng = np.random.default_rng(0)
    y, x = (axis.astype(np.float32) for axis in np.mgrid[: size[0], : size[1]])
    frames = [np.full((*size, 3), 127.5, np.float32) for _ in range(2)]
    for length in (97.0, 53.0, 31.0, 17.0, 9.0):
        angle, colour = rng.uniform(0, np.pi), rng.uniform(8, 24, 3)
        across = (x * np.cos(angle) + y * np.sin(angle)).astype(np.float32)
        for frame, shift in zip(frames, (0.0, rng.uniform(-8, 8)), strict=True):
            frame += np.sin((across + shift) * (2 * np.pi / length))[..., None] * colour
    first, second = (np.rint(frame.clip(0, 255)).astype(np.uint8) for frame in frames)
    return first, second


def call_inputs(
    info: ModelInfo, pair: FramePair
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """What one call of a model takes: two images of `Backend.put`, and its time steps."""
    img0, img1 = (f[None] if info.io == "frames" else to_planes(f, info.divisor) for f in pair)
    count = info.frames_per_call
    steps = np.arange(1, count + 1, dtype=np.float32) / np.float32(count + 1)
    return img0, img1, steps.reshape(-1, 1, 1, 1)


class Run(Protocol):
    """Something that makes the frames of a pair.

    Attributes:
        name: Unique; in tables and in the evidence.
        kind: What it is.
        variant: Of the network.
        on_gpu: Whether it computes there.
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
        """What it says about itself, in this case."""
        ...

    def open(self, case: Case) -> Backend:
        """Loads it; the caller closes it."""
        ...

    def evidence(self, case: Case, backend: Backend) -> dict[str, Any]:
        """What exactly was measured, known once it has been, and before it is closed.

        Args:
            case: What was measured.
            backend: What `open` gave.

        Returns:
            "artefact": the file, None for PyTorch; "pytorch": how it computed, None for files;
            "agreement": see `bench.quality.metrics.agreement`, None where it is compared elsewhere.
        """
        ...

    def request(self, case: Case) -> dict[str, Any] | None:
        """What a process needs that shall open it itself; None: none is started for it.

        See `bench.harness.cold_start`.
        """
        ...


@dataclass(frozen=True)
class ArtefactRun:
    """An artefact with one choice of options.

    Attributes:
        name: See `Run`.
        path: Where the file lies.
        file: Its name; its path where two files have the same name.
        options: How it is opened.
        model: What it says about itself.
        on_gpu: See `Run`.
        limits: Least and greatest (height, width) of an engine whose size is free.
        lanes: "streams", "cuda_graph" and "io_binding" as it really runs, where there is a choice.
        backend: What runs it, as was asked for; None: the default.
    """

    name: str
    path: Path
    file: str
    options: OpenOptions
    model: ModelInfo
    on_gpu: bool
    limits: tuple[Size, Size] | None
    execution: dict[str, Any]
    backend: BackendName | None = None
    kind: Kind = "artefact"

    @property
    def variant(self) -> str:
        """See `Run`."""
        return self.model.variant

    @property
    def sizes(self) -> str:
        """The sizes that it takes, for errors."""
        if self.model.size is not None:
            fixed = "{}x{}".format(*self.model.size)
            return fixed if self.model.io == "frames" else f"{fixed} and what pads to it"
        return "any size" if self.limits is None else "{}x{} to {}x{}".format(*sum(self.limits, ()))

    def takes(self, size: Size) -> bool:
        """Whether it makes frames of `size`, (height, width)."""
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

    def evidence(self, case: Case, backend: Backend) -> dict[str, Any]:
        """See `Run`."""
        del case
        model = self.model
        file = {
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
    precision: InferencePrecision | None = None,
) -> list[ArtefactRun]:
    """Every run of these files, each opened once and closed again.

    Args:
        paths: Artefacts; one that is named twice is measured once.
        device: As of `Interpolator.open`.
        threads: Of processors.
        streams: Of engines and of OpenVINO; each number is a run.
        cuda_graphs: Of engines; each is a run. One whose size is free has none, whatever was
            asked for.
        io_bindings: Of ONNX files on CUDA; each is a run.
        backends: Of ONNX files; each is a run, None the default.
        precision: As of `Interpolator.open`.

    Raises:
        ModelError: If a file cannot be loaded.
        BackendError: If its backend or the device is missing.
    """
    found: dict[tuple[Path, str], ArtefactRun] = {}
    files = [path.name for path in {path.resolve(): path for path in paths}.values()]
    for path, backend_name in itertools.product(paths, backends):
        shown = str(path) if files.count(path.name) > 1 else path.name
        asked = None if is_engine(path) else backend_name
        options = OpenOptions(
            device, threads=None if is_engine(path) else threads, precision=precision
        )
        with Interpolator(backend := open_backend(path, options, backend=asked)) as vfi:
            title, model, limits = f"{shown} on {vfi.backend}", vfi.info, _limits(backend)
            engine = isinstance(backend, TensorRTBackend)
            bound = isinstance(backend, BoundBackend)
        on_gpu = engine or (device or "").startswith("cuda")
        several = engine or title.split(" on ")[-1].startswith("openvino")
        choices = itertools.product(
            streams if several else (None,),
            cuda_graphs if engine else (None,),
            io_bindings if bound else (None,),
        )
        for count, graph, binding in choices:
            recorded = None if graph is None else graph and model.size is not None
            execution: dict[str, Any] = {}
            if engine or count not in (None, 1):
                execution["streams"] = count
            if recorded is not None:
                execution["cuda_graph"] = recorded
            if binding is not None:
                execution["io_binding"] = binding
            name = ", ".join([title, *execution_names(execution)])
            chosen = replace(
                options, cuda_graph=graph, streams=execution.get("streams"), io_binding=binding
            )
            made = ArtefactRun(name, path, shown, chosen, model, on_gpu, limits, execution, asked)
            found.setdefault((path.resolve(), name), made)
    return list(found.values())


def execution_as_run(backend: Backend, execution: dict[str, Any]) -> dict[str, Any]:
    """`lanes` with the reason where a CUDA graph was asked for and could not be recorded."""
    problem = backend.cuda_graph_problem if isinstance(backend, TensorRTBackend) else None
    if problem is None:
        return execution
    return {**execution, "cuda_graph": False, "cuda_graph_problem": problem}


def execution_names(execution: Mapping[str, Any]) -> Iterator[str]:
    """Number of streams and the use of a CUDA graph, where there is a choice, for names of runs."""
    if "streams" in execution:
        yield f"{execution['streams']} {'stream' if execution['streams'] == 1 else 'streams'}"
    if "cuda_graph" in execution:
        yield "CUDA graph" if execution["cuda_graph"] else "no CUDA graph"
    if "io_binding" in execution:
        yield "I/O binding" if execution["io_binding"] else "no I/O binding"


def is_engine(path: Path) -> bool:
    """Whether the suffix is that of a TensorRT engine."""
    return path.suffix.lower() in (".engine", ".plan")


def calls_of_a_pair(info: ModelInfo, factor: int) -> list[tuple[int, int]]:
    """The calls of the model in which the runtime makes the frames of one pair.

    Found by letting it: (pairs, time steps) of each call, with what fills up the last one.

    Raises:
        FrameError: If the weights cannot make this factor.
    """
    # Sizes are free here, for the number of calls depends on none.
    backend = _Counting(ModelInfo(**{**vars(info), "height": None, "width": None}))
    vfi = Interpolator(backend)
    frame = np.zeros((16, 16, 3), np.uint8)
    vfi.interpolate(frame, frame, timesteps=vfi.steps_for_factor(factor))
    return backend.calls


class _Counting(HostBackend):
    """A model that makes black frames, and notes what it was asked for."""

    name = "counting"

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
