"""A plain ONNX export in TensorRT as a baseline of `bench.latency`.

The engine is built as a user would build it without this project: TensorRT parses the file, and
the FP16 flag is set in versions that have it. The engine does not pass the quality gate; its PSNR
is recorded. Its inputs and output are float32 planes, and frames are converted on the host, so
only the time of the network ("compute") is comparable with an engine of this project.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.environment import MeasurementError
from bench.records.latency import Execution, PlainRecord, RunDetails
from bench.runs.agreement import agreement
from bench.runs.artefact import (
    UNKNOWN,
    ArtefactRun,
    Kind,
    call_inputs,
    execution_as_run,
    execution_names,
)
from bench.runs.case import Case
from bench.runs.frames import Size, moving_frames
from runtime.backends.base import Backend, OpenOptions
from runtime.backends.cuda.runtime import Cuda
from runtime.backends.onnx_format import read_self_contained
from runtime.backends.trt.backend import TensorRTBackend, backend_from_plan
from runtime.backends.trt.engine import gpu_at, import_tensorrt, logger_for
from runtime.errors import first_line
from runtime.manifest import file_sha256
from runtime.model_info import ModelInfo
from runtime.telemetry import import_quietly

_FLOATS = {"tensor(float)"}
_DIVISOR = 16
"""Height and width of a file at flow scale 1 are multiples of it."""


class _Built(NamedTuple):
    plan: bytes
    fp16_flag: bool
    seconds: float


@dataclass
class PlainFile:
    """A plain ONNX export, whose engine is built once, when it is first needed.

    Args:
        path: An ONNX file with float32 inputs img0 and img1 (1, 3, H, W) and timestep
            (1, 1, 1, 1), and the output imgt (1, 3, H, W); all shapes are fixed.
        device: Index of the GPU.

    Attributes:
        size: (height, width) of the inputs.
        version: Version of TensorRT.

    Raises:
        ModelError: If the file cannot be read or has external weights.
        MeasurementError: If ONNX Runtime cannot load it, or it has other inputs or outputs.
        BackendError: If TensorRT or the GPU is not available.
    """

    path: Path
    device: int
    size: Size = field(init=False)
    version: str = field(init=False)
    _built: _Built | MeasurementError | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        gpu_at(self.device)  # First, as importing TensorRT crashes without a driver.
        self.version = import_tensorrt().__version__
        session = self._session()
        ports = (*session.get_inputs(), *session.get_outputs())
        kinds = {port.name: port.type for port in ports}
        shapes = {port.name: tuple(port.shape) for port in ports}
        image = shapes.get("img0", ())
        wanted = {"img0": image, "img1": image, "timestep": (1, 1, 1, 1), "imgt": image}
        fixed = len(image) == 4 and all(isinstance(n, int) for n in image)
        if not fixed or shapes != wanted or image[:2] != (1, 3) or {*kinds.values()} != _FLOATS:
            found = ", ".join(f"{name} {kinds[name]} {list(shapes[name])}" for name in shapes)
            raise MeasurementError(
                f"{self.path.name} has the inputs and outputs {found}: export it with float32 img0 "
                "and img1 (1, 3, H, W), timestep (1, 1, 1, 1) and imgt (1, 3, H, W) of fixed size"
            )
        self.size = image[2], image[3]

    def reference_image(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Runs the file in ONNX Runtime in float32 on the CPU.

        Args:
            img0: First frame, float32 (1, 3, H, W) in [0, 1].
            img1: Second frame, like `img0`.
            timestep: (1, 1, 1, 1) in (0, 1).

        Returns:
            The new frame, (1, 3, H, W).
        """
        feed = {"img0": img0, "img1": img1, "timestep": timestep}
        imgt: NDArray[np.float32] = self._session().run(["imgt"], feed)[0]
        return imgt

    def built(self) -> _Built:
        """The engine and details of its build; a failed build is not repeated.

        Raises:
            MeasurementError: If TensorRT cannot parse or build the file; every call raises it.
        """
        if self._built is None:
            try:
                self._built = _build(self.path, self.device)
            except MeasurementError as error:
                self._built = error
        if isinstance(self._built, MeasurementError):
            raise self._built
        return self._built

    def _session(self) -> Any:
        onnxruntime = import_quietly("onnxruntime")
        content = read_self_contained(self.path)
        try:
            return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        except Exception as error:  # Its exceptions share no other base class.
            why = first_line(error)
            raise MeasurementError(
                f"ONNX Runtime cannot load {self.path.name} ({why}): export it again"
            ) from error


def _build(path: Path, device: int) -> _Built:
    content, trt = read_self_contained(path), import_tensorrt()
    log = logger_for(trt)
    log.take_errors()  # Discards errors of earlier builds.
    started = time.perf_counter()
    with Cuda(device).current():
        builder = trt.Builder(log)
        flags = trt.NetworkDefinitionCreationFlag
        explicit = 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0
        network = builder.create_network(explicit)
        parser = trt.OnnxParser(network, log)
        if not parser.parse(content):
            errors = "; ".join(str(parser.get_error(k)) for k in range(parser.num_errors))
            raise MeasurementError(
                f"TensorRT {trt.__version__} cannot parse {path.name} ({errors}): export it again, "
                "or leave --plain out"
            )
        config = builder.create_builder_config()
        # TensorRT 11 has no such flag and computes a float32 file in float32.
        fp16_flag = hasattr(trt.BuilderFlag, "FP16")
        if fp16_flag:
            config.set_flag(trt.BuilderFlag.FP16)
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        errors = "; ".join(log.take_errors()) or "no reason given"
        raise MeasurementError(
            f"TensorRT {trt.__version__} cannot build {path.name} ({errors}): export it again, or "
            "leave --plain out"
        )
    return _Built(bytes(plan), fp16_flag, time.perf_counter() - started)


@dataclass(frozen=True)
class PlainRun:
    """A plain ONNX export in TensorRT, with or without a CUDA graph.

    Attributes:
        file: The export and its engine.
        model: Metadata; the file has none, so they are assumed (see `plain_runs`).
        cuda_graph: Whether launches are captured in a CUDA graph.
        kind: Always "plain".
        on_gpu: Always true.
    """

    file: PlainFile
    model: ModelInfo
    cuda_graph: bool
    kind: Kind = "plain"
    on_gpu: bool = True

    @property
    def name(self) -> str:
        """See `Run`."""
        title = f"{self.file.path.name} on tensorrt {self.file.version} cuda:{self.file.device}"
        return ", ".join([title, *execution_names(self._execution)])

    @property
    def variant(self) -> str:
        """See `Run`."""
        return self.model.variant

    def takes(self, size: Size) -> bool:
        """Whether it accepts frames of `size`, (height, width)."""
        return self.model.image_size(size) == self.model.size

    def info(self, case: Case) -> ModelInfo:
        """See `Run`."""
        del case
        return self.model

    def open(self, case: Case) -> Backend:
        """See `Run`; the first call builds the engine.

        Raises:
            MeasurementError: If TensorRT cannot build it.
        """
        del case
        return backend_from_plan(
            self.file.built().plan,
            self.model,
            device=self.file.device,
            portable=False,
            cuda_graph=self.cuda_graph,
        )

    def evidence(self, case: Case, backend: Backend) -> RunDetails:
        """See `Run`."""
        path, built = self.file.path, self.file.built()
        assert isinstance(backend, TensorRTBackend)
        inputs = call_inputs(self.model, moving_frames(case.size))
        pair = backend.put(inputs[0]), backend.put(inputs[1])
        (imgt,) = backend.submit([pair], inputs[2])
        file: PlainRecord = {
            "file": path.name,
            "sha256": file_sha256(path),
            "bytes": path.stat().st_size,
            "flow_scale": self.model.flow_scale,
            "fp16_flag": built.fp16_flag,
            "build_seconds": built.seconds,
            **execution_as_run(backend, self._execution),
        }
        expected, found = self.file.reference_image(*inputs), backend.download(imgt)()
        reference = "the same file in ONNX Runtime in float32"
        return {
            "artefact": file,
            "pytorch": None,
            "agreement": agreement(expected, found, reference),
        }

    def request(self, case: Case) -> None:
        """See `Run`. It is None, because the engine is in memory only."""

    @property
    def _execution(self) -> Execution:
        return {"streams": 1, "cuda_graph": self.cuda_graph}


def plain_runs(
    path: Path, engines: Sequence[ArtefactRun], *, device: str | None
) -> tuple[PlainRun, PlainRun]:
    """Two runs of a plain ONNX export: with a CUDA graph and without.

    Args:
        path: The export; `PlainFile` describes its inputs and outputs.
        engines: Engines to compare with, at least one. The export has no metadata: its variant is
            taken to be that of the engines, or unknown if theirs differ.
        device: "cuda", "cuda:N" or None, the same as for the engines.

    Raises:
        ModelError: If the file cannot be read or has external weights.
        MeasurementError: If ONNX Runtime cannot load it, or it has other inputs or outputs.
        BackendError: If TensorRT or the GPU is not available.
    """
    index = OpenOptions(device).cuda_device()
    assert index is not None  # Engines run on a GPU only.
    file = PlainFile(path, index)
    variants = {engine.variant for engine in engines}
    model = replace(
        engines[0].model,
        variant=variants.pop() if len(variants) == 1 else UNKNOWN,
        weights_sha256=UNKNOWN,
        precision="fp32",
        io="float",
        divisor=_DIVISOR,
        flow_scale=1.0,
        steps_per_call=1,
        pairs_per_call=1,
        max_pairs=None,
        height=file.size[0],
        width=file.size[1],
        warp="gridsample",
        tuned_for="any",
    )
    return PlainRun(file, model, True), PlainRun(file, model, False)
