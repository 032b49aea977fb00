"""What a user asks of the commands that export and build; plain data, without PyTorch or ONNX."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from export.errors import ExportError
from runtime.model_info import IOKind, Precision, TimeSteps, TunedFor, Warp

DEFAULT_SIZE = (256, 448)

Size = tuple[int, int]
"""(height, width) in pixels."""

Constraints = Literal["obey-all", "obey-islands", "prefer-islands", "none"]
"""How a weakly typed build is held to the types of the ONNX file.

"obey-all": every layer has the type of the file, or the build fails. "obey-islands": the float32
layers of a float16 graph do, the builder chooses for the others. "prefer-islands": the same as a
preference, so that the build does not fail over it. "none": the builder chooses for all layers.
"""

TracedPrecision = Literal["fp32", "fp16"]
"""What PyTorch exports; int8 is made from a float32 graph."""

OnnxBackend = Literal["onnxruntime", "openvino"]
"""Backends whose artefacts are ONNX files."""

_ENGINE_OPTIONS = (
    "min", "opt", "max", "optimization_level", "workspace", "portable", "device", "rewrite",
    "timing_cache", "force", "allow_fallback", "precision_constraints", "layers",
)  # fmt: skip
"""Fields of `BuildRequest` that TensorRT alone knows."""

_NOT_REPEATED = ("sizes", "output", "backend", "layers", "force")
"""Fields of `BuildRequest` that `BuildRequest.command` leaves out, or writes itself."""


@dataclass(frozen=True, kw_only=True)
class GraphRequest:
    """Which graph is asked for; None where nothing is said. Fields as of `ExportOptions`.

    Attributes:
        io: Type and layout of inputs and outputs.
        precision: "int8" is for `BuildRequest` alone.
        flow_scale: Relative size of the frame on which motion is estimated.
        timesteps: Time steps of one pair in one call.
        batch: Pairs in one call.
        max_batch: Most pairs in a call where their number stays free.
        dynamic: Height and width stay free.
        warp: How a warp is written.
    """

    io: IOKind | None = None
    precision: Precision | None = None
    flow_scale: float | None = None
    timesteps: int | None = None
    batch: int | None = None
    max_batch: int | None = None
    dynamic: bool = False
    warp: Warp | None = None

    def given(self) -> dict[str, Any]:
        """The fields about which something is said, by name."""
        return _given((field.name, getattr(self, field.name)) for field in fields(self))

    def options(self, size: Size | None) -> dict[str, Any]:
        """What is given, with a size unless it is None, as fields of `ExportOptions`."""
        return self.given() | ({} if size is None else {"height": size[0], "width": size[1]})


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What is asked of `export.to_onnx`.

    Attributes:
        weights: A checkpoint file, or "demo".
        output: The ONNX file.
        size: Of the frames; None for `DEFAULT_SIZE`.
        graph: Which graph.
        time: What the weights know of time; None for what their file says, or a trial shows.
    """

    weights: str
    output: Path
    size: Size | None = None
    graph: GraphRequest = GraphRequest()
    time: TimeSteps | None = None


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What is asked of `export.build_engine`; checks itself.

    The fields are named and ordered as the options of the command, which tells the meaning of those
    that TensorRT alone knows.

    Attributes:
        weights: A checkpoint file, or "demo"; None where `onnx` is given.
        onnx: A file of `export.to_onnx`; None where `weights` is given.
        backend: What will run the artefact.
        sizes: Of the frames; with several, one engine is built for each.
        graph: Which graph; with `onnx` nothing may be said about it.
        time: As of `ExportRequest`.
        tuned_for: What the graph is rewritten for; None for the default of the backend.
        calibrate: A video or a folder of images, for int8 alone.
        output: The artefact; with several sizes, their names are added.
    """

    weights: str | None = None
    onnx: Path | None = None
    backend: Literal["tensorrt"] | OnnxBackend = "tensorrt"
    sizes: tuple[Size, ...] = ()
    graph: GraphRequest = GraphRequest()
    time: TimeSteps | None = None
    tuned_for: TunedFor | None = None
    calibrate: Path | None = None
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
    force: bool = False
    allow_fallback: bool = False

    def __post_init__(self) -> None:
        """Refuses what contradicts itself.

        Raises:
            ExportError: If it does.
        """
        if (self.weights is None) == (self.onnx is None):
            raise ExportError("--weights and --onnx: give one of them")
        self._check_precision()
        if self.backend == "tensorrt":
            self._check_for_tensorrt()
        else:
            self._check_for_processors()
        self._check_against_file()

    @property
    def checkpoint(self) -> str:
        """What `weights` says, where no `onnx` is given."""
        assert self.weights is not None
        return self.weights

    @property
    def bounds(self) -> tuple[Size, Size, Size] | None:
        """Smallest, best and largest size of one engine; None where its size is fixed."""
        if self.min is None or self.opt is None or self.max is None:
            return None
        return self.min, self.opt, self.max

    def graph_options(self, size: Size | None) -> dict[str, Any]:
        """What is given of the graph that is exported for `size`, as fields of `ExportOptions`."""
        options = self.graph.options(size)
        if self.calibrate is not None:
            del options["precision"]  # What is exported is float32.
        return options

    def command(self, size: Size | None, output: Path) -> str:
        """The command that builds the artefact of this size again, as a shell reads it."""
        words = ["python", "-m", "export.build_engine"]
        for name, value in self._given().items():
            if name not in _NOT_REPEATED:
                words += [_flag(name), *_words(name, value)]
        if size is not None:
            words += ["--size", *_words("size", size)]
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
                "int8 came with --backend tensorrt: engines are fp16 or fp32, int8 is for "
                "--backend onnxruntime and openvino"
            )
        if int8 and self.calibrate is None:
            raise ExportError(
                "--precision int8 came without --calibrate: give a video or a folder of pictures "
                "of what the model will see"
            )
        if not int8 and self.calibrate is not None:
            raise ExportError("--calibrate is for --precision int8: give both or neither")

    def _check_for_tensorrt(self) -> None:
        if self.tuned_for is not None:
            raise ExportError("--tuned-for is for processors: TensorRT uses --rewrite")
        if self.min is self.opt is self.max is None:
            if self.graph.dynamic:
                raise ExportError(
                    "--dynamic is for ONNX files: give --min, --opt and --max, between which one "
                    "engine takes any size"
                )
        elif self.bounds is None or self.sizes or self.graph.dynamic:
            raise ExportError("--min, --opt and --max go together, without --size and --dynamic")

    def _check_for_processors(self) -> None:
        given = self._given()
        if foreign := [_flag(name) for name in _ENGINE_OPTIONS if name in given]:
            raise ExportError(
                f"{', '.join(foreign)} came with --backend {self.backend}: TensorRT alone knows "
                "that"
            )
        if len(self.sizes) > 1:
            raise ExportError(
                f"{len(self.sizes)} sizes came with --backend {self.backend}: give one, or "
                "--dynamic"
            )

    def _check_against_file(self) -> None:
        """Refuses options of the graph beside an ONNX file, which has them already."""
        if self.onnx is None:
            return
        given = set(self.graph_options(self.sizes[0] if self.sizes else None))
        if self.backend == "tensorrt":
            given -= {"height", "width"}  # A size fixes what the file leaves free.
        if self.time is not None:
            given.add("time")
        if given:
            raise ExportError(
                f"--onnx came with {', '.join(sorted(given))}: the file has these already, leave "
                "them out"
            )


def _given(options: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Those about which something is said; 0 says something, unlike None, False and ()."""
    return {
        name: value
        for name, value in options
        if value is not None and value is not False and value != ()
    }


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _words(name: str, value: Any) -> list[str]:
    """The value of an option as the words of a command."""
    if value is True:
        return []
    if name in ("min", "opt", "max", "size"):
        return [f"{value[0]}x{value[1]}"]
    return list(value) if isinstance(value, tuple) else [str(value)]
