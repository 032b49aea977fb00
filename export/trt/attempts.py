"""Builds a TensorRT engine, compares it with its reference, and tries the next way if it fails.

The ways differ in how strictly a weakly typed build (TensorRT 8.6) is held to the types of the
graph (`export.request.Constraints`) and in how the graph is written. The manifest records which
one was used, and why none before it.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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

STAGES = ("build engine", "gate")
_TIMED = 50
"""Inferences behind a figure of the portable engine's cost."""

_OUT_OF_MEMORY = re.compile("out ?of ?memory", re.IGNORECASE)

Fallback = tuple[str, Callable[[], SourceGraph]]
"""A safer way to write the same network: its name, and what makes it."""


@dataclass(frozen=True)
class EngineRequest:
    """What is wanted, besides the graph.

    Attributes:
        options: How the engine is built.
        rewrites: Names of `export.graph.for_tensorrt.REWRITES`.
        command: The command that builds the engine again, for the manifest.
        layers: A file for what TensorRT's engine inspector tells of the engine; None for none.
    """

    options: BuildOptions
    rewrites: tuple[str, ...] = ()
    command: str = ""
    layers: Path | None = None

    def __post_init__(self) -> None:
        check_names(self.rewrites)


class Target(NamedTuple):
    """Where engines are built and run."""

    trt: Any
    generation: Generation
    gpu: Gpu


class EngineInspection(NamedTuple):
    """What the engine inspector tells of a float16 engine; see `EngineBuild`."""

    float32_tensors_seen: int | None = None
    convolutions: ConvolutionCounts | None = None
    problem: str | None = None


class AcceptedEngine(NamedTuple):
    """An engine that passed the gate.

    Attributes:
        plan: The serialised engine.
        source: What it was built from.
        gate: What the gate measured.
        device_memory: Bytes of the GPU for each context.
        inspection: What the engine inspector tells.
        slowdown: Time of a portable engine over that of one for this GPU and version alone.
        constraints: How strictly a weakly typed build was held to the types of the graph.
        reason: Why no stricter constraints were used.
        added_rewrites: Rewrites that nobody asked for, without which nothing could be built.
        fallback: Why the engine is not what was asked for, where it is not.
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
        BackendError: If there is no such GPU or no TensorRT.
        ExportError: If this version of TensorRT is not supported.
    """
    gpu = gpu_at(device)  # First: TensorRT crashes where there is no driver.
    trt = import_tensorrt()
    return Target(trt, generation_of(trt), gpu)


def build_first_accepted(
    target: Target,
    source: SourceGraph,
    request: EngineRequest,
    fallbacks: Sequence[Fallback],
    stages: Stages,
) -> AcceptedEngine:
    """The engine as asked or, where that fails, the first fallback that passes.

    Args:
        target: Where it is built and run.
        source: The graph, and its reference.
        request: How it is built.
        fallbacks: What may be built instead, in this order. With any, a float16 engine whose
            convolutions run in float32 is accepted too.
        stages: Told about progress, and notes for the user.

    Raises:
        ExportError: If TensorRT cannot parse the graph.
        BuildError: If TensorRT can build none of them.
        GateError: If none of them passes the gate.
    """
    failed: list[str] = []
    waiting: list[Fallback] = [("as asked", lambda: source), *fallbacks]
    while True:
        name, make = waiting.pop(0)
        try:
            proved = _by_constraints(target, make(), request, stages, slow_allowed=bool(fallbacks))
        except (BuildError, GateError) as error:
            if not waiting:
                raise
            failed.append(f"{name}: {error}")
            stages.note(f"{error}; trying {waiting[0][0]}")
        else:
            if failed:
                return proved._replace(fallback=f"{name}, after {'; '.join(failed)}")
            return proved


def _by_constraints(
    target: Target,
    source: SourceGraph,
    request: EngineRequest,
    stages: Stages,
    *,
    slow_allowed: bool,
) -> AcceptedEngine:
    """The engine with the strictest constraints that passes, if need be without Round.

    Hopper has no kernel for some operators in TensorRT 8.6 (issue 4295); of those of our graphs it
    may be Round, for which there is another spelling.
    """
    try:
        return _strictest(target, source, request, stages, slow_allowed=slow_allowed)
    except BuildError as error:
        rounds = any(node.op_type == "Round" for node in source.model.graph.node)
        if not rounds or "round" in request.rewrites or _OUT_OF_MEMORY.search(str(error)):
            raise
        stages.note(f"{error}; trying without the operator Round")
        rewrites = (*request.rewrites, "round")
        without = replace(request, rewrites=rewrites)
        try:
            proved = _strictest(target, source, without, stages, slow_allowed=slow_allowed)
        except BuildError:
            raise error from None  # The operator was not the cause.
        return proved._replace(added_rewrites=("round",))


def _strictest(
    target: Target,
    source: SourceGraph,
    request: EngineRequest,
    stages: Stages,
    *,
    slow_allowed: bool,
) -> AcceptedEngine:
    """Tries the constraints of the TensorRT generation, the strictest first.

    A build that fails and an engine with slow convolutions lead to the next. An engine that differs
    from the reference ends the search: the builder would be freer with the next.
    """
    half = source.info.precision == "fp16"
    asked = request.options.constraints
    choices = (asked,) if asked and half else target.generation.constraints(half=half)
    failed: list[str] = []
    slow: AcceptedEngine | None = None
    last: ExportError | None = None
    for constraints in choices:
        try:
            proved = _proved(target, source, request, constraints, stages)
        except (BuildError, GateError) as error:
            last = error
            failed.append(f"{constraints}: {error}" if constraints else str(error))
            if isinstance(error, GateError) or _OUT_OF_MEMORY.search(str(error)):
                break
            if constraints != choices[-1]:
                stages.note(f"{error}; trying looser constraints than {constraints}")
            continue
        proved = proved._replace(reason="; ".join(failed) or None)
        found = proved.inspection.convolutions
        if found is None or not found.too_slow:
            return proved
        failed.append(f"{constraints}: {_slow(found)}" if constraints else _slow(found))
        stages.note(f"with constraints {constraints}, {_slow(found)}")
        if slow is None or found.other < _other(slow):
            slow = proved
    if slow is not None and slow_allowed:
        return slow._replace(fallback="; ".join(failed))
    if slow is not None:
        raise GateError(
            f"{'; '.join(failed)}, so the engine would be several times slower than it should be "
            "and was not kept: build it with a newer TensorRT or with --allow-fallback"
        )
    assert last is not None  # There is at least one choice.
    if len(failed) > 1:
        raise type(last)("; ".join(failed)) from last
    raise last


def _slow(found: ConvolutionCounts) -> str:
    return f"{found.other} of {found.other + found.fp16} convolutions do not run in float16"


def _other(proved: AcceptedEngine) -> int:
    found = proved.inspection.convolutions
    return found.other if found else 0


def _proved(
    target: Target,
    source: SourceGraph,
    request: EngineRequest,
    constraints: Constraints | None,
    stages: Stages,
) -> AcceptedEngine:
    """Builds one engine and compares it with the reference."""
    trt, generation, _ = target
    options = replace(request.options, constraints=constraints)
    model = rewritten_for_tensorrt(source.model, request.rewrites)
    stages.start(STAGES[0])
    plan = _built(trt, model, options, stages)
    stages.start(STAGES[1])
    with _opened(plan, source, options) as backend:
        text = backend.engine.layers()
        if request.layers is not None:
            # Before the gate: of a refused engine it is needed most.
            with written_beside(request.layers) as beside:
                beside.write_text(text)
        report = _gate(backend, source, options)
        inspection = EngineInspection()
        if source.info.precision == "fp16":
            inspection = _inspected(generation, text, model)
        if inspection.problem:
            stages.note(f"{inspection.problem}: the types of its layers were not checked")
        memory = generation.device_memory(backend.engine.handle)
        slowdown = None
        if options.portable:
            portable_ms = _milliseconds(backend, source)
    if options.portable:
        stages.start("build for this GPU alone, to compare")
        own = replace(options, portable=False)
        with _opened(_built(trt, model, own, stages), source, own) as backend:
            slowdown = round(portable_ms / _milliseconds(backend, source), 3)
        stages.note(f"portable: {slowdown:.2f}x the time of an engine for this GPU alone")
    stages.finish()
    return AcceptedEngine(plan, source, report, memory, inspection, slowdown, constraints)


def _inspected(generation: Generation, text: str, model: ModelProto) -> EngineInspection:
    """Checks the types of a float16 engine; where that cannot be done, the gate alone decides.

    Raises:
        GateError: If a float32 tensor of the graph is float16 in the engine.
    """
    try:
        layers = parse_layers(text)
    except InspectorError as error:
        return EngineInspection(problem=str(error))
    seen = generation.check_types(layers, tensor_types(model))
    return EngineInspection(seen, count_convolutions(layers, model))


def _built(trt: Any, model: ModelProto, options: BuildOptions, stages: Stages) -> bytes:
    built = engine_from_onnx(trt, model, options, stages=stages)
    for note in built.notes:
        stages.note(note)
    return built.plan


def _opened(plan: bytes, source: SourceGraph, options: BuildOptions) -> TensorRTBackend:
    return backend_from_plan(plan, source.info, device=options.device, portable=options.portable)


def _gate(backend: TensorRTBackend, source: SourceGraph, options: BuildOptions) -> GateReport:
    """At the engine's own size; where it is free, at the smallest, the best and the largest."""
    info = source.info
    frames = info.io == "frames"
    if options.profile is not None:
        sizes = dict.fromkeys((options.profile.min, options.profile.opt, options.profile.max))
    else:
        assert info.size is not None  # The builder has refused anything else.
        sizes = {info.size: None}
    run, name = source.reference.run, source.reference.name
    return gate(
        Reference(rounded_to_bytes(run), f"{name}, bytes")
        if frames
        else Reference(run, f"{name}, floats"),
        {backend.name: backend_runner(backend)},
        gate_cases(sizes, info),
        Requirements(info.precision, REQUIRED_DB_OF_ENGINES),
        Explanations(diagnose=lambda images: diagnosis(source.model, info, images)),
    )


def _milliseconds(backend: TensorRTBackend, source: SourceGraph) -> float:
    """Median time that the network takes on the GPU, without copies."""
    info = source.info
    frame0, frame1 = moving_frames(*backend.best_size, 4.0)
    img0, img1 = images_for(info, frame0, frame1, rows=info.frames_per_call)
    timestep = np.full((info.frames_per_call, 1, 1, 1), 0.5, np.float32)
    return statistics.median(
        time_parts(backend, img0[:1], img1[:1], timestep)["compute"] for _ in range(_TIMED)
    )
