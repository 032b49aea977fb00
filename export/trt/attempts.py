"""Builds a TensorRT engine, compares it with its reference, and tries other options if it fails.

The attempts differ in how strictly a weakly typed build (TensorRT 8.6) keeps the types of the graph
(`export.request.Constraints`) and in the operators of the graph. The manifest records the options
that were used, and why each earlier attempt failed.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from onnx import ModelProto

from export.errors import BuildError, ExportError, GateError
from export.gate.cases import gate_cases, moving_frames
from export.gate.diagnosis import diagnosis
from export.gate.gate import REQUIRED_DB_OF_ENGINES, Explanations, Reference, Requirements, gate
from export.gate.runners import backend_runner, images_for, rounded_to_bytes
from export.graph.for_tensorrt import check_names, rewritten_for_tensorrt
from export.progress import Stages
from export.request import Constraints
from export.source import SourceGraph
from export.trt.build import BuildOptions, engine_from_onnx, tensor_types
from export.trt.inspector import ConvolutionCounts, InspectorError, count_convolutions, parse_layers
from export.trt.versions import Generation, generation_of
from runtime.backends.trt.backend import TensorRTBackend, backend_from_plan
from runtime.backends.trt.engine import gpu_at, import_tensorrt
from runtime.backends.trt.profiling import time_parts
from runtime.files import written_beside
from runtime.machine import Gpu
from runtime.manifest import GateReport

STAGES = ("build engine", "compare with reference")
_INFERENCES = 50
"""Number of inferences whose median time gives the slowdown of a portable engine."""

_OUT_OF_MEMORY = re.compile("out ?of ?memory", re.IGNORECASE)

Fallback = tuple[str, Callable[[], SourceGraph]]
"""A safer graph of the same network: its name, and a function that returns it."""


@dataclass(frozen=True)
class EngineRequest:
    """The engine to build, apart from the graph.

    Attributes:
        options: How the engine is built.
        rewrites: Names of `export.graph.for_tensorrt.REWRITES` to apply to the graph.
        command: The command that builds the engine again, for the manifest.
        layers: The file for the layers as the engine inspector shows them; None to write none.

    Raises:
        ExportError: If the name of a rewrite is unknown.
    """

    options: BuildOptions
    rewrites: tuple[str, ...] = ()
    command: str = ""
    layers: Path | None = None

    def __post_init__(self) -> None:
        check_names(self.rewrites)


class Target(NamedTuple):
    """The TensorRT and the GPU that engines are built with.

    Attributes:
        trt: The module `tensorrt`.
        generation: How this generation of TensorRT is driven.
        gpu: The GPU.
    """

    trt: Any
    generation: Generation
    gpu: Gpu


class EngineInspection(NamedTuple):
    """The types of a float16 engine; the attributes are those of `runtime.manifest.EngineBuild`."""

    float32_tensors_seen: int | None = None
    convolutions: ConvolutionCounts | None = None
    problem: str | None = None


class AcceptedEngine(NamedTuple):
    """An engine that passed the gate.

    Attributes:
        plan: The serialised engine.
        source: The graph that it was built from, and its reference.
        gate: The report of the gate.
        device_memory: GPU memory of each execution context in bytes.
        inspection: The types of a float16 engine.
        slowdown: Time of a portable engine divided by that of an engine for this GPU and version
            only; None for other engines.
        constraints: How strictly a weakly typed build kept the types of the graph.
        reason: Why stricter constraints failed; None if none did.
        added_rewrites: Rewrites that were not requested, but without which the build fails.
        fallback: Name of the fallback, and why it was built; None for the requested engine.
    """

    plan: bytes
    source: SourceGraph
    gate: GateReport
    device_memory: int
    inspection: EngineInspection
    slowdown: float | None
    constraints: Constraints | None
    reason: str | None = None
    added_rewrites: tuple[str, ...] = ()
    fallback: str | None = None


def target_at(device: int) -> Target:
    """The GPU with this index and the TensorRT that is installed.

    Raises:
        BackendError: If there is no such GPU, or TensorRT is not installed.
        ExportError: If this version of TensorRT is not supported.
    """
    gpu = gpu_at(device)  # First, because TensorRT crashes without a driver.
    trt = import_tensorrt()
    return Target(trt, generation_of(trt), gpu)


def build_first_accepted(
    target: Target,
    source: SourceGraph,
    request: EngineRequest,
    fallbacks: Sequence[Fallback],
    stages: Stages,
) -> AcceptedEngine:
    """Builds the requested engine or, if that fails, the first fallback that passes the gate.

    Args:
        target: The TensorRT and the GPU to build with.
        source: The graph, and its reference.
        request: The engine to build.
        fallbacks: The graphs to build instead, in this order. If there are any, a float16 engine
            whose convolutions run in float32 is accepted too.
        stages: Shows the progress, and notes for the user.

    Raises:
        ExportError: If TensorRT cannot parse the graph.
        BuildError: If TensorRT can build none of them.
        GateError: If none of them passes the gate.
    """
    failures: list[str] = []
    remaining: list[Fallback] = [("the requested engine", lambda: source), *fallbacks]
    while True:
        name, make = remaining.pop(0)
        try:
            engine = _build_with_or_without_round(
                target, make(), request, stages, slow_allowed=bool(fallbacks)
            )
        except (BuildError, GateError) as error:
            if not remaining:
                raise
            failures.append(f"{name} failed: {error}")
            stages.note(f"trying {remaining[0][0]}: {error}")
        else:
            if failures:
                return engine._replace(fallback=f"{name}, because {'; '.join(failures)}")
            return engine


def _build_with_or_without_round(
    target: Target,
    source: SourceGraph,
    request: EngineRequest,
    stages: Stages,
    *,
    slow_allowed: bool,
) -> AcceptedEngine:
    """Builds an engine; if the build fails, tries again with Round replaced by other operators.

    On Hopper, TensorRT 8.6 has no kernels for some operators (TensorRT issue 4295), which may
    include Round.
    """
    try:
        return _build_strictest(target, source, request, stages, slow_allowed=slow_allowed)
    except BuildError as error:
        rounds = any(node.op_type == "Round" for node in source.model.graph.node)
        if not rounds or "round" in request.rewrites or _OUT_OF_MEMORY.search(str(error)):
            raise
        stages.note(f"trying again without the operator Round: {error}")
        without = replace(request, rewrites=(*request.rewrites, "round"))
        try:
            engine = _build_strictest(target, source, without, stages, slow_allowed=slow_allowed)
        except BuildError:
            raise error from None  # Round was not the cause.
        return engine._replace(added_rewrites=("round",))


def _build_strictest(
    target: Target,
    source: SourceGraph,
    request: EngineRequest,
    stages: Stages,
    *,
    slow_allowed: bool,
) -> AcceptedEngine:
    """Builds with the constraints of the TensorRT generation, the strictest first.

    The next constraints are tried if a build fails or its convolutions are slow. An engine that
    differs from the reference ends the search, because looser constraints would not help.
    """
    half = source.info.precision == "fp16"
    requested = request.options.constraints
    choices = (requested,) if requested and half else target.generation.constraints(half=half)
    failures: list[str] = []
    slow: list[tuple[int, AcceptedEngine]] = []
    last: ExportError | None = None
    for constraints in choices:
        try:
            engine = _build_and_check(target, source, request, constraints, stages)
        except (BuildError, GateError) as error:
            last = error
            failures.append(f"{constraints}: {error}" if constraints else str(error))
            if isinstance(error, GateError) or _OUT_OF_MEMORY.search(str(error)):
                break
            if constraints != choices[-1]:
                stages.note(f"trying looser constraints than {constraints}: {error}")
            continue
        engine = engine._replace(reason="; ".join(failures) or None)
        counts = engine.inspection.convolutions
        if counts is None or not counts.too_slow:
            return engine
        problem = (
            f"{counts.other} of {counts.other + counts.fp16} convolutions do not run in float16"
        )
        failures.append(f"{constraints}: {problem}" if constraints else problem)
        stages.note(f"with constraints {constraints}, {problem}")
        slow.append((counts.other, engine))
    if slow and slow_allowed:
        _, engine = min(slow, key=itemgetter(0))
        return engine._replace(fallback="; ".join(failures))
    if slow:
        raise GateError(
            f"{'; '.join(failures)}, so the engine is several times slower than it should be and "
            "was not written: use a newer TensorRT or --allow-fallback"
        )
    assert last is not None  # There is at least one choice.
    if len(failures) > 1:
        raise type(last)("; ".join(failures)) from last
    raise last


def _build_and_check(
    target: Target,
    source: SourceGraph,
    request: EngineRequest,
    constraints: Constraints | None,
    stages: Stages,
) -> AcceptedEngine:
    """Builds one engine, compares it with the reference, and checks its types.

    Raises:
        BuildError: If TensorRT cannot build it.
        GateError: If it differs too much from the reference, or a float32 tensor is float16.
    """
    trt, generation, _ = target
    options = replace(request.options, constraints=constraints)
    model = rewritten_for_tensorrt(source.model, request.rewrites)
    stages.start(STAGES[0])
    plan = _plan(trt, model, options, stages)
    stages.start(STAGES[1])
    with _opened(plan, source, options) as backend:
        text = backend.engine.layers()
        if request.layers is not None:
            # Before the gate, because a failed engine needs it most.
            with written_beside(request.layers) as temporary:
                temporary.write_text(text)
        report = _gate(backend, source, options)
        inspection = EngineInspection()
        if source.info.precision == "fp16":
            inspection = _inspect(generation, text, model)
        if inspection.problem:
            stages.note(inspection.problem)
        memory = generation.device_memory(backend.engine.handle)
        slowdown = None
        if options.portable:
            portable_ms = _milliseconds(backend, source)
    if options.portable:
        stages.start("build comparison engine")
        not_portable = replace(options, portable=False)
        with _opened(_plan(trt, model, not_portable, stages), source, not_portable) as backend:
            slowdown = round(portable_ms / _milliseconds(backend, source), 3)
        stages.note(f"portable: takes {slowdown:.2f} times as long as an engine for this GPU only")
    stages.finish()
    return AcceptedEngine(plan, source, report, memory, inspection, slowdown, constraints)


def _inspect(generation: Generation, text: str, model: ModelProto) -> EngineInspection:
    """Checks the types of a float16 engine, if the inspector's text can be read.

    Raises:
        GateError: If a float32 tensor of the graph is float16 in the engine.
    """
    try:
        layers = parse_layers(text)
    except InspectorError as error:
        return EngineInspection(problem=str(error))
    seen = generation.check_types(layers, tensor_types(model))
    return EngineInspection(seen, count_convolutions(layers, model))


def _plan(trt: Any, model: ModelProto, options: BuildOptions, stages: Stages) -> bytes:
    built = engine_from_onnx(trt, model, options, stages=stages)
    for note in built.notes:
        stages.note(note)
    return built.plan


def _opened(plan: bytes, source: SourceGraph, options: BuildOptions) -> TensorRTBackend:
    return backend_from_plan(plan, source.info, device=options.device, portable=options.portable)


def _gate(backend: TensorRTBackend, source: SourceGraph, options: BuildOptions) -> GateReport:
    """Runs the gate at the engine's size, or at minimum, optimum and maximum of its profile."""
    info = source.info
    frames = info.io == "frames"
    if options.profile is not None:
        sizes = dict.fromkeys((options.profile.min, options.profile.opt, options.profile.max))
    else:
        assert info.size is not None  # The builder refuses other engines.
        sizes = {info.size: None}
    run, name = source.reference.run, source.reference.name
    return gate(
        Reference(rounded_to_bytes(run), f"{name} as bytes")
        if frames
        else Reference(run, f"{name} as floats"),
        {backend.name: backend_runner(backend)},
        gate_cases(sizes, info),
        Requirements(info.precision, REQUIRED_DB_OF_ENGINES),
        Explanations(diagnose=lambda images: diagnosis(source.model, info, images)),
    )


def _milliseconds(backend: TensorRTBackend, source: SourceGraph) -> float:
    """Median time of an inference on the GPU in milliseconds, without copies."""
    info = source.info
    frame0, frame1 = moving_frames(*backend.best_size, 4.0)
    img0, img1 = images_for(info, frame0, frame1, rows=info.frames_per_call)
    timestep = np.full((info.frames_per_call, 1, 1, 1), 0.5, np.float32)
    return statistics.median(
        time_parts(backend, img0[:1], img1[:1], timestep)["compute"] for _ in range(_INFERENCES)
    )
