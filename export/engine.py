"""A plain graph -> a TensorRT engine that proved itself on this GPU, and its manifest."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from onnx import ModelProto

from export import graph, trt_cache
from export.artefact import Source, check_folder, keep, source_from_model
from export.errors import ExportError, GateError
from export.faults import diagnosis
from export.second_opinion import second_opinion
from export.stages import Stages
from export.trt_base import Generation, generation_of
from export.trt_build import FREE_AXES, BuildOptions, engine_from_onnx, tensor_types
from export.tuning_trt import check_names, rewritten_for_tensorrt
from export.verify import (
    REQUIRED_DB_OF_ENGINES,
    backend_run,
    gate,
    gate_cases,
    images_for,
    moving_frames,
    rounded_to_bytes,
)
from runtime.backends.trt import TensorRTBackend, backend_from_plan
from runtime.backends.trt_engine import gpu_at, import_tensorrt
from runtime.machine import Gpu, gpu_driver
from runtime.manifest import (
    EngineBuild,
    EngineManifest,
    GateReport,
)

STAGES = ("build engine", "gate")
_TIMED = 50
"""Inferences behind a figure of the portable engine's cost."""

Fallback = tuple[str, Callable[[], Source]]
"""A safer way to say the same network, and how to get it."""


@dataclass(frozen=True)
class Request:
    """What is wanted, besides the graph.

    Attributes:
        options: How the engine is built.
        rewrites: Of `tuning_trt.REWRITES`.
        command: Builds it again; kept in the manifest.
    """

    options: BuildOptions
    rewrites: tuple[str, ...] = ()
    command: str = ""

    def __post_init__(self) -> None:
        check_names(self.rewrites)


class Target(NamedTuple):
    """Where engines are built and run."""

    trt: Any
    generation: Generation
    gpu: Gpu


class _Proved(NamedTuple):
    plan: bytes
    gate: GateReport
    device_memory: int
    float32_tensors_seen: int | None
    slowdown: float | None


def target_at(device: int) -> Target:
    """The GPU with this index and the TensorRT that is installed.

    Raises:
        BackendError: If there is no such GPU or no TensorRT.
        ExportError: If it is a TensorRT that this version does not know.
    """
    gpu = gpu_at(device)  # First: TensorRT crashes where there is no driver.
    trt = import_tensorrt()
    return Target(trt, generation_of(trt), gpu)


def write_engine(
    target: Target,
    source: Source,
    path: Path,
    request: Request,
    *,
    force: bool = False,
    fallbacks: Sequence[Fallback] = (),
    stages: Stages | None = None,
) -> EngineManifest:
    """Builds, gates and writes an engine, unless the one at `path` is what would be built.

    Args:
        target: See `target_at`.
        source: The graph, and what is right.
        path: Of the engine; its manifest goes beside it.
        request: How.
        force: Build even where the engine is up to date.
        fallbacks: Tried in this order where an engine fails the gate.
        stages: Told about progress, and notes for the user.

    Returns:
        The manifest that lies beside the engine now.

    Raises:
        ExportError: If the engine cannot be built.
        GateError: If every engine differs too much from the reference; nothing is written.
        BackendError: If it cannot be run.
    """
    check_folder(path)
    _check_profile(source, request.options)
    request = replace(request, options=replace(request.options, max_pairs=source.info.max_pairs))
    stages = stages or Stages.silent()
    started = time.perf_counter()
    depends_on = _depends_on(target, source, request)
    if path.exists() and not force:
        reason = trt_cache.why_stale(path, depends_on, fallback_allowed=bool(fallbacks))
        if reason is None:
            stages.note(f"{path} is up to date; --force builds it again")
            return EngineManifest.read(path)
        stages.note(f"{path} is built again: {reason}")
    made, source, fallback = _first_that_passes(target, source, request, fallbacks, stages)
    return keep(
        path,
        lambda beside: beside.write_bytes(made.plan),
        started=started,
        backend="tensorrt",
        model=source.info,
        onnx_sha256=source.onnx_sha256,
        report=made.gate,
        engine=_build_record(target, request, depends_on, made, fallback),
    )


def _build_record(
    target: Target,
    request: Request,
    depends_on: dict[str, Any],
    made: _Proved,
    fallback: str | None,
) -> EngineBuild:
    return EngineBuild(
        tensorrt=target.trt.__version__,
        gpu=target.gpu.name,
        compute_capability=target.gpu.compute_capability,
        driver=gpu_driver().cuda_version,
        portable=request.options.portable,
        flags=_flags(request),
        profile=depends_on["profile"],
        key=trt_cache.key_of(depends_on),
        depends_on=depends_on,
        command=request.command,
        fallback=fallback,
        device_memory_bytes=made.device_memory,
        float32_tensors_seen=made.float32_tensors_seen,
        portable_slowdown=made.slowdown,
    )


def fixed_size(source: Source, size: tuple[int, int]) -> Source:
    """A source whose free height and width are fixed, for a static engine.

    Raises:
        ExportError: If they are fixed already.
    """
    if source.info.size is not None:
        raise ExportError(
            f"the file has the fixed size {source.info.height}x{source.info.width}: leave out "
            "--size, or export with --dynamic"
        )
    height, width = size
    if source.info.io == "float" and (height % source.info.divisor or width % source.info.divisor):
        raise ExportError(f"size {height}x{width} is no multiple of {source.info.divisor}")
    model = graph.with_size(source.model, height, width, axes=FREE_AXES[source.info.io])
    return source._replace(model=model, info=replace(source.info, height=height, width=width))


def fallback_to_float32(source: Source) -> Fallback:
    """The same graph computed in float32."""

    def make() -> Source:
        info = replace(source.info, precision="fp32")
        model = graph.in_float32(source.model)
        made = source_from_model(model, info, source.onnx_sha256)
        return made._replace(reference=source.reference, reference_name=source.reference_name)

    return "fp32", make


def _check_profile(source: Source, options: BuildOptions) -> None:
    """Planes of a graph with float I/O are multiples of the divisor; frames are padded inside."""
    multiple = source.info.divisor
    for name, size in asdict(options.profile).items() if options.profile else ():
        if source.info.io == "float" and any(n % multiple for n in size):
            raise ExportError(
                f"--{name} {size[0]}x{size[1]} is no multiple of {multiple}, which a graph with "
                "float I/O needs"
            )


def _depends_on(target: Target, source: Source, request: Request) -> dict[str, Any]:
    """Everything that the engine depends on, as JSON would give it back."""
    profile = request.options.profile
    return {
        "onnx": source.onnx_sha256,
        "size": list(source.info.size) if source.info.size else None,
        "profile": profile and {name: list(size) for name, size in asdict(profile).items()},
        "tensorrt": target.trt.__version__,
        "gpu": target.gpu.name,
        "compute_capability": target.gpu.compute_capability,
        "tool": source.info.tool_version,
        **_flags(request),
    }


def _flags(request: Request) -> dict[str, Any]:
    return {**request.options.flags(), "rewrites": list(request.rewrites)}


def _first_that_passes(
    target: Target,
    source: Source,
    request: Request,
    fallbacks: Sequence[Fallback],
    stages: Stages,
) -> tuple[_Proved, Source, str | None]:
    """The engine as asked or, where it fails the gate, the first fallback that does not."""
    waiting = list(fallbacks)
    failed: list[str] = []
    name = "as asked"
    while True:
        try:
            proved = _proved(target, source, request, stages)
        except GateError as error:
            if not waiting:
                raise
            failed.append(f"{name}: {error}")
            name, make = waiting.pop(0)
            stages.note(f"{error}; trying {name}")
            source = make()
        else:
            return proved, source, f"{name}, after {'; '.join(failed)}" if failed else None


def _proved(target: Target, source: Source, request: Request, stages: Stages) -> _Proved:
    """Builds one engine and runs it against the reference."""
    trt, generation, _ = target
    options = request.options
    model = rewritten_for_tensorrt(source.model, request.rewrites)
    stages.start(STAGES[0])
    plan = _built(trt, model, options, stages)
    stages.start(STAGES[1])
    with _opened(plan, source, options) as backend:
        report = _gate(backend, source, options)
        seen = None
        if source.info.precision == "fp16":
            seen = generation.proved_types(backend.engine.layers(), tensor_types(model))
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
    return _Proved(plan, report, memory, seen, slowdown)


def _built(trt: Any, model: ModelProto, options: BuildOptions, stages: Stages) -> bytes:
    built = engine_from_onnx(trt, model, options, stages=stages)
    for note in built.notes:
        stages.note(note)
    return built.plan


def _opened(plan: bytes, source: Source, options: BuildOptions) -> TensorRTBackend:
    return backend_from_plan(plan, source.info, device=options.device, portable=options.portable)


def _gate(backend: TensorRTBackend, source: Source, options: BuildOptions) -> GateReport:
    """At the engine's own size; where it is free, at the smallest, the best and the largest."""
    info = source.info
    frames = info.io == "frames"
    if options.profile is not None:
        sizes = dict.fromkeys((options.profile.min, options.profile.opt, options.profile.max))
    else:
        assert info.size is not None  # The builder has refused anything else.
        sizes = {info.size: None}
    return gate(
        rounded_to_bytes(source.reference) if frames else source.reference,
        {backend.name: backend_run(backend)},
        gate_cases(sizes, info),
        precision=info.precision,
        reference_name=f"{source.reference_name}, {'bytes' if frames else 'floats'}",
        limits=REQUIRED_DB_OF_ENGINES,
        look=lambda pictures: {"polygraphy": second_opinion(pictures.expected, pictures.made)},
        diagnose=lambda pictures: diagnosis(source.model, info, pictures),
    )


def _milliseconds(backend: TensorRTBackend, source: Source) -> float:
    """Median time that the network takes on the GPU, without copies."""
    info = source.info
    frame0, frame1 = moving_frames(*backend.best_size, 4.0)
    img0, img1 = images_for(info, frame0, frame1, rows=info.frames_per_call)
    timestep = np.full((info.frames_per_call, 1, 1, 1), 0.5, np.float32)
    return statistics.median(
        backend.timed(img0[:1], img1[:1], timestep)["compute"] for _ in range(_TIMED)
    )
