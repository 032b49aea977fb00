"""Builds a TensorRT engine that passes the gate on this GPU, and writes it with its manifest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from export.candidate import CheckedModel
from export.errors import ExportError
from export.files import check_output
from export.graph import passes
from export.progress import Stages
from export.source import SourceGraph, source_from_model
from export.store import save_with_manifest
from export.trt import cache
from export.trt.attempts import (
    AcceptedEngine,
    EngineRequest,
    Fallback,
    Target,
    build_first_accepted,
    target_at,
)
from export.trt.build import BuildOptions
from runtime.machine import gpu_driver
from runtime.manifest import EngineBuild, EngineManifest

__all__ = [
    "EngineRequest", "Fallback", "Target", "fallback_to_float32", "fixed_size", "target_at",
    "write_engine",
]  # fmt: skip


def write_engine(
    target: Target,
    source: SourceGraph,
    path: Path,
    request: EngineRequest,
    *,
    force: bool = False,
    fallbacks: Sequence[Fallback] = (),
    stages: Stages | None = None,
) -> EngineManifest:
    """Builds an engine, compares it with its reference and writes it, unless it is up to date.

    Args:
        target: The TensorRT and the GPU to build with.
        source: The graph, and its reference.
        path: The engine to write; its manifest is written beside it.
        request: The engine to build.
        force: Builds the engine even if it is up to date.
        fallbacks: Graphs to build instead, in this order, if an engine cannot be built or fails
            the gate.
        stages: Shows the progress, and notes for the user.

    Returns:
        The manifest of the engine at `path`.

    Raises:
        ExportError: If the engine cannot be built.
        GateError: If every engine differs too much from the reference; nothing is written.
        BackendError: If an engine cannot be run.
    """
    for file in (path, *filter(None, [request.layers])):
        check_output(file)
    _check_profile(source, request.options)
    request = replace(request, options=replace(request.options, max_pairs=source.info.max_pairs))
    stages = stages or Stages.silent()
    started = time.perf_counter()
    depends_on = _dependencies(target, source, request)
    if path.exists() and not force:
        reason = cache.stale_reason(path, depends_on, fallback_allowed=bool(fallbacks))
        if reason is None and request.layers is not None and not request.layers.exists():
            reason = f"{request.layers} is missing"
        if reason is None:
            stages.note(f"{path} is up to date; --rebuild builds it again")
            return EngineManifest.read(path)
        stages.note(f"{path} is built again: {reason}")
    accepted = build_first_accepted(target, source, request, fallbacks, stages)
    model, info, onnx_sha256, _ = accepted.source
    return save_with_manifest(
        path,
        lambda temporary: temporary.write_bytes(accepted.plan),
        CheckedModel(model, info, accepted.gate, onnx_sha256, "tensorrt"),
        started=started,
        engine=_build_record(target, request, depends_on, accepted),
    )


def _build_record(
    target: Target,
    request: EngineRequest,
    depends_on: dict[str, Any],
    accepted: AcceptedEngine,
) -> EngineBuild:
    inspection = accepted.inspection
    return EngineBuild(
        tensorrt=target.trt.__version__,
        gpu=target.gpu.name,
        compute_capability=target.gpu.compute_capability,
        driver=gpu_driver().cuda_version,
        portable=request.options.portable,
        flags=_flags(request),
        profile=depends_on["profile"],
        key=cache.dependency_hash(depends_on),
        depends_on=depends_on,
        command=request.command,
        fallback=accepted.fallback,
        device_memory_bytes=accepted.device_memory,
        float32_tensors_seen=inspection.float32_tensors_seen,
        portable_slowdown=accepted.slowdown,
        any_gpu=request.options.any_gpu if request.options.portable else None,
        precision_constraints=accepted.constraints,
        precision_constraints_reason=accepted.reason,
        convolutions=inspection.convolutions.record() if inspection.convolutions else None,
        inspector_problem=inspection.problem,
        added_rewrites=list(accepted.added_rewrites) or None,
    )


def fixed_size(source: SourceGraph, size: tuple[int, int]) -> SourceGraph:
    """Fixes the free height and width of a graph to `size`, (height, width) in pixels.

    Raises:
        ExportError: If they are fixed already, or a graph with float I/O cannot have that size.
    """
    if source.info.size is not None:
        raise ExportError(
            f"the file has the fixed size {source.info.height}x{source.info.width}: leave out "
            "--size, or export it again without --size"
        )
    height, width = size
    if source.info.image_size(size) != size:
        raise ExportError(
            f"size {height}x{width} is not a multiple of {source.info.divisor}: use one that is"
        )
    model = passes.with_size(source.model, height, width, axes=source.info.layout.size_axes)
    return source._replace(model=model, info=replace(source.info, height=height, width=width))


def fallback_to_float32(source: SourceGraph) -> Fallback:
    """The fallback that computes the same graph in float32."""

    def make() -> SourceGraph:
        info = replace(source.info, precision="fp32")
        model = passes.in_float32(source.model)
        plain = source_from_model(model, info, source.onnx_sha256)
        return plain._replace(reference=source.reference)

    return "fp32", make


def _check_profile(source: SourceGraph, options: BuildOptions) -> None:
    """Checks that the sizes are multiples of the divisor, if the graph has float I/O."""
    multiple = source.info.divisor
    for name, size in asdict(options.profile).items() if options.profile else ():
        if source.info.image_size(size) != size:
            raise ExportError(
                f"--{name} {size[0]}x{size[1]} is not a multiple of {multiple}, as float I/O "
                "needs: use multiples for both sides, or a graph with --io frames"
            )


def _dependencies(target: Target, source: SourceGraph, request: EngineRequest) -> dict[str, Any]:
    """Everything that the engine depends on, in types that JSON preserves."""
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


def _flags(request: EngineRequest) -> dict[str, Any]:
    return {**request.options.flags(), "rewrites": list(request.rewrites)}
