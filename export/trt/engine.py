"""A plain graph -> a TensorRT engine that proved itself on this GPU, and its manifest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.graph import passes
from export.progress import Stages
from export.source import Source, source_from_model
from export.store import check_folder, save_with_manifest
from export.trt import cache
from export.trt.attempts import Fallback, Proved, Request, Target, first_that_passes, target_at
from export.trt.build import BuildOptions
from runtime.machine import gpu_driver
from runtime.manifest import EngineBuild, EngineManifest

__all__ = [
    "Fallback", "Request", "Target", "fallback_to_float32", "fixed_size", "target_at",
    "write_engine",
]  # fmt: skip


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
        fallbacks: Tried in this order where an engine cannot be built or fails the gate.
        stages: Told about progress, and notes for the user.

    Returns:
        The manifest that lies beside the engine now.

    Raises:
        ExportError: If the engine cannot be built.
        GateError: If every engine differs too much from the reference; nothing is written.
        BackendError: If it cannot be run.
    """
    for file in (path, *filter(None, [request.layers])):
        check_folder(file)
    _check_profile(source, request.options)
    request = replace(request, options=replace(request.options, max_pairs=source.info.max_pairs))
    stages = stages or Stages.silent()
    started = time.perf_counter()
    depends_on = _depends_on(target, source, request)
    if path.exists() and not force:
        reason = cache.why_stale(path, depends_on, fallback_allowed=bool(fallbacks))
        if reason is None and request.layers is not None and not request.layers.exists():
            reason = f"{request.layers} is missing"
        if reason is None:
            stages.note(f"{path} is up to date; --force builds it again")
            return EngineManifest.read(path)
        stages.note(f"{path} is built again: {reason}")
    made = first_that_passes(target, source, request, fallbacks, stages)
    return save_with_manifest(
        path,
        lambda temporary: temporary.write_bytes(made.plan),
        started=started,
        backend="tensorrt",
        model=made.source.info,
        onnx_sha256=made.source.onnx_sha256,
        report=made.gate,
        engine=_build_record(target, request, depends_on, made),
    )


def _build_record(
    target: Target,
    request: Request,
    depends_on: dict[str, Any],
    made: Proved,
) -> EngineBuild:
    found = made.inspection
    return EngineBuild(
        tensorrt=target.trt.__version__,
        gpu=target.gpu.name,
        compute_capability=target.gpu.compute_capability,
        driver=gpu_driver().cuda_version,
        portable=request.options.portable,
        flags=_flags(request),
        profile=depends_on["profile"],
        key=cache.key_of(depends_on),
        depends_on=depends_on,
        command=request.command,
        fallback=made.fallback,
        device_memory_bytes=made.device_memory,
        float32_tensors_seen=found.float32_tensors_seen,
        portable_slowdown=made.slowdown,
        any_gpu=request.options.any_gpu if request.options.portable else None,
        precision_constraints=made.constraints,
        precision_constraints_reason=made.reason,
        convolutions=found.convolutions.record() if found.convolutions else None,
        inspector_problem=found.problem,
        added_rewrites=list(made.added_rewrites) or None,
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
    if source.info.image_size(size) != size:
        raise ExportError(f"size {height}x{width} is no multiple of {source.info.divisor}")
    model = passes.with_size(source.model, height, width, axes=source.info.layout.size_axes)
    return source._replace(model=model, info=replace(source.info, height=height, width=width))


def fallback_to_float32(source: Source) -> Fallback:
    """The same graph computed in float32."""

    def make() -> Source:
        info = replace(source.info, precision="fp32")
        model = passes.in_float32(source.model)
        made = source_from_model(model, info, source.onnx_sha256)
        return made._replace(reference=source.reference)

    return "fp32", make


def _check_profile(source: Source, options: BuildOptions) -> None:
    """Planes of a graph with float I/O are multiples of the divisor; frames are padded inside."""
    multiple = source.info.divisor
    for name, size in asdict(options.profile).items() if options.profile else ():
        if source.info.image_size(size) != size:
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
