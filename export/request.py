"""The requests of the commands that export and build; plain data without PyTorch or ONNX."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from export.errors import ExportError
from runtime.model_info import IOKind, Precision, TimeSteps, TunedFor, Warp

DEFAULT_SIZE = (256, 448)
"""(height, width) in pixels at which a graph of free size is traced, and the size of an engine or
of a graph with a free number of pairs if none is given."""

Size = tuple[int, int]
"""(height, width) in pixels."""

_LARGE = 1920 * 1080
"""Pixels. Above it measurements show a gain by a lower flow scale (bench/results/flow_scale)."""

Constraints = Literal["obey-all", "obey-islands", "prefer-islands", "none"]
"""How strictly a weakly typed build (TensorRT 8.6) keeps the types of the ONNX file.

"obey-all": every layer has the type of the file, or the build fails. "obey-islands": the float32
layers of a float16 graph have the type of the file, or the build fails; the builder chooses the
types of the others. "prefer-islands": as "obey-islands", but the build does not fail if the builder
chooses another type. "none": the builder chooses all types.
"""

TracedPrecision = Literal["fp32", "fp16"]
"""Precisions that PyTorch exports; int8 is quantised from a float32 graph."""

OnnxBackend = Literal["onnxruntime", "openvino"]
"""Backends whose artefacts are ONNX files, tuned for CPUs."""

_ENGINE_OPTIONS = (
    "min", "opt", "max", "optimization_level", "workspace", "portable", "device", "rewrite",
    "timing_cache", "rebuild", "allow_fallback", "precision_constraints", "layers",
)  # fmt: skip
"""Fields of `BuildRequest` that apply to TensorRT only."""

_NOT_COPIED = ("sizes", "output", "backend", "layers", "rebuild")
"""Fields of `BuildRequest` that `BuildRequest.command` omits or writes for one artefact."""


@dataclass(frozen=True, kw_only=True)
class GraphRequest:
    """The options of an exported graph; None is the default of `ExportOptions`.

    Attributes:
        io: Type and layout of inputs and outputs.
        precision: Type of the network; "int8" only as part of a `BuildRequest`.
        flow_scale: Relative size of the frame on which motion is estimated.
        timesteps: Time steps of one pair in one call.
        batch: Pairs in one call.
        max_batch: Maximum number of pairs in a call, if that number is free.
        dynamic: Whether height and width are free.
        warp: The operators that compute a warp.
        tta: Whether the result is the mean with that of the flipped frames.
    """

    io: IOKind | None = None
    precision: Precision | None = None
    flow_scale: float | None = None
    timesteps: int | None = None
    batch: int | None = None
    max_batch: int | None = None
    dynamic: bool = False
    warp: Warp | None = None
    tta: bool = False

    def given(self) -> dict[str, Any]:
        """The options that were given, by name."""
        return _given((field.name, getattr(self, field.name)) for field in fields(self))

    def options(self, size: Size | None, *, free: bool = True) -> dict[str, Any]:
        """The options that were given, and the size, as fields of `ExportOptions`.

        Args:
            size: (height, width) in pixels; None if none was given.
            free: Whether height and width are free if `size` is None. With `max_batch` they are
                not: a graph has a free number of pairs or a free size.
        """
        if size is not None:
            return self.given() | {"height": size[0], "width": size[1]}
        return self.given() | ({"dynamic": True} if free and self.max_batch is None else {})


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """A request to `export.to_onnx`.

    Attributes:
        weights: A checkpoint file, or "demo".
        output: The ONNX file to write.
        size: (height, width) of the frames in pixels; None for a free size.
        graph: The options of the graph.
        time: The time steps that the weights were trained for; None for those stated by the file
            or published, or else found by a trial.
    """

    weights: str
    output: Path
    size: Size | None = None
    graph: GraphRequest = GraphRequest()
    time: TimeSteps | None = None


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """A request to `export.build_engine`, validated.

    The fields have the names and the order of the command's options; the help of the command
    describes those that apply to TensorRT only.

    Attributes:
        weights: A checkpoint file, or "demo"; None if `onnx` is given.
        onnx: A file of `export.to_onnx`; None if `weights` is given.
        backend: The backend that will run the artefact.
        sizes: (height, width) of the frames in pixels; one engine is built for each. If there are
            none, a graph for a CPU has a free size, and an engine `DEFAULT_SIZE`.
        graph: The options of the graph; none may be given together with `onnx`.
        time: The time steps that the weights were trained for; None for those stated by the file
            or published, or else found by a trial.
        tuned_for: The kind of device that the graph is rewritten for; None for the default of the
            backend.
        compact: Whether weights are stored as float16 where no value changes.
        calibrate: A video or a folder of images, for int8 only.
        real_frames: A video or a folder of images on which OpenVINO's bfloat16 and float16 are
            compared with float32; None for those of `calibrate`, or else the shipped clip.
        output: The artefact to write; with several sizes, each file name has its size.
    """

    weights: str | None = None
    onnx: Path | None = None
    backend: Literal["tensorrt"] | OnnxBackend = "tensorrt"
    sizes: tuple[Size, ...] = ()
    graph: GraphRequest = GraphRequest()
    time: TimeSteps | None = None
    tuned_for: TunedFor | None = None
    compact: bool = False
    calibrate: Path | None = None
    real_frames: Path | None = None
    output: Path
    min: Size | None = None
    opt: Size | None = None
    max: Size | None = None
    optimization_level: int | None = None
    workspace: int | None = None
    portable: bool = False
    device: int | None = None
    rewrite: tuple[str, ...] = ()
    precision_constraints: Constraints | None = None
    layers: Path | None = None
    timing_cache: Path | None = None
    rebuild: bool = False
    allow_fallback: bool = False

    def __post_init__(self) -> None:
        """Checks the request.

        Raises:
            ExportError: If options contradict each other.
        """
        if self.weights is None and self.onnx is None:
            raise ExportError("neither --weights nor --onnx was given: give one of them")
        if self.weights is not None and self.onnx is not None:
            raise ExportError("--weights was given with --onnx: give only one of them")
        if self.graph.io == "stacked":
            raise ExportError(
                "--io stacked was given: use export.to_onnx, since the files that build_engine "
                "writes are for our own runtime"
            )
        self._check_precision()
        if self.backend == "tensorrt":
            self._check_for_tensorrt()
        else:
            self._check_for_onnx_backends()
        self._check_against_file()

    @property
    def checkpoint(self) -> str:
        """`weights`, in a request without `onnx`."""
        assert self.weights is not None
        return self.weights

    @property
    def bounds(self) -> tuple[Size, Size, Size] | None:
        """Minimum, optimum and maximum size of an engine with a range of sizes; else None."""
        if self.min is None or self.opt is None or self.max is None:
            return None
        return self.min, self.opt, self.max

    def graph_options(self, size: Size | None) -> dict[str, Any]:
        """The options of the graph to export for `size`, as fields of `ExportOptions`."""
        free = self.backend != "tensorrt" and self.onnx is None
        options = self.graph.options(size, free=free)
        if self.calibrate is not None:
            del options["precision"]  # int8 is quantised from a float32 graph.
        return options

    def command(self, size: Size | None, output: Path) -> str:
        """The shell command that builds the artefact of this size again."""
        words = ["python", "-m", "export.build_engine"]
        for name, value in self._given().items():
            if name not in _NOT_COPIED:
                words += [_option(name), *_values(name, value)]
        if size is not None:
            words += ["--size", *_values("size", size)]
        return shlex.join([*words, "--output", str(output)])

    def _given(self) -> dict[str, Any]:
        """The options that were given, by name, in the order of the command."""
        options: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            options |= value.given() if field.name == "graph" else {field.name: value}
        return _given(options.items())

    def _check_precision(self) -> None:
        int8 = self.graph.precision == "int8"
        if int8 and self.backend == "tensorrt":
            raise ExportError(
                "--precision int8 was given with --backend tensorrt: use fp16 or fp32, or "
                "--backend onnxruntime or openvino"
            )
        if int8 and self.calibrate is None:
            raise ExportError(
                "--precision int8 was given without --calibrate: give a video or a folder of "
                "images like those that the model will process"
            )
        if not int8 and self.calibrate is not None:
            raise ExportError(
                "--calibrate was given without --precision int8: give both or neither"
            )
        if self.real_frames is not None and self.backend != "openvino":
            raise ExportError(
                f"--real-frames was given with --backend {self.backend}: leave it out, or use "
                "--backend openvino"
            )

    def _check_for_tensorrt(self) -> None:
        if self.tuned_for is not None:
            raise ExportError("--tuned-for was given with --backend tensorrt: use --rewrite")
        if self.compact:
            raise ExportError("--compact was given with --backend tensorrt: leave it out")
        if self.min is self.opt is self.max is None:
            if self.graph.dynamic:
                raise ExportError(
                    "--dynamic was given with --backend tensorrt: give --min, --opt and --max"
                )
            return
        bounds = ("min", "opt", "max")
        if missing := [_option(name) for name in bounds if getattr(self, name) is None]:
            raise ExportError(
                f"the range of sizes lacks {' and '.join(missing)}: give --min, --opt and --max"
            )
        if self.sizes or self.graph.dynamic:
            raise ExportError(
                "--min, --opt and --max were given with --size or --dynamic: leave those out"
            )

    def _check_for_onnx_backends(self) -> None:
        given = self._given()
        if foreign := [_option(name) for name in _ENGINE_OPTIONS if name in given]:
            raise ExportError(
                f"--backend {self.backend} was given with {', '.join(foreign)}: leave out options "
                "for TensorRT"
            )
        if len(self.sizes) > 1:
            raise ExportError(
                f"{len(self.sizes)} sizes were given with --backend {self.backend}: give one, or "
                "none for a free size"
            )

    def _check_against_file(self) -> None:
        """Refuses options of the graph together with an ONNX file, which fixes them."""
        if self.onnx is None:
            return
        given = set(self.graph_options(self.sizes[0] if self.sizes else None))
        if self.backend == "tensorrt":
            given -= {"height", "width"}  # An engine may have a fixed size where the file has none.
        if self.time is not None:
            given.add("time")
        if given:
            raise ExportError(
                f"--onnx was given with {', '.join(_option(name)[2:] for name in sorted(given))}: "
                "the file fixes these, leave them out"
            )


def flow_scale_note(graph: GraphRequest, sizes: Iterable[Size]) -> str | None:
    """A note for the user about sizes above 1920x1080 for which no flow scale was given.

    Args:
        graph: The options of the graph to export.
        sizes: (height, width) of the frames in pixels.

    Returns:
        One line; None if a flow scale was given, the size of the graph is free or no size is large.
    """
    large = [f"{height}x{width}" for height, width in sizes if height * width > _LARGE]
    if graph.flow_scale is not None or graph.dynamic or not large:
        return None
    return (
        f"note: {', '.join(large)} without --flow-scale: with 0.5 the model was 3.5 times as fast "
        "at 4K on a CPU and lost at most 0.7 dB of PSNR; --flow-scale 1 switches this note off"
    )


def _given(options: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The options whose value is not None, False or (); 0 is a value."""
    return {
        name: value
        for name, value in options
        if value is not None and value is not False and value != ()
    }


def _option(name: str) -> str:
    return "--steps-per-call" if name == "timesteps" else "--" + name.replace("_", "-")


def _values(name: str, value: Any) -> list[str]:
    """The value of an option as arguments of a command."""
    if value is True:
        return []
    if name in ("min", "opt", "max", "size"):
        return [f"{value[0]}x{value[1]}"]
    if name == "device":
        return [f"cuda:{value}"]
    return list(value) if isinstance(value, tuple) else [str(value)]
