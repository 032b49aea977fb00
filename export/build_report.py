"""What python -m export.build_engine prints of an artefact that it has written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from export.gate.gate import report_lines
from runtime.manifest import EngineManifest, manifest_path


def print_report(output: Path, manifest: EngineManifest, *, nodes: int) -> None:
    """Prints what was built, what the gate measured, and where the manifest is."""
    print(f"{output}: compared with {manifest.gate.reference}")
    for line in (
        *report_lines(manifest.gate, manifest.model, nodes=nodes),
        *_calibration_lines(manifest),
        *_engine_lines(manifest),
    ):
        print(line)
    print(f"{manifest_path(output)}: built in {manifest.build_seconds:.1f} s")


def _calibration_lines(manifest: EngineManifest) -> Iterator[str]:
    made = manifest.calibration
    if made is None:
        return
    yield (
        f"  int8: {len(made.quantised)} layers, calibrated with {made.frames} frames of "
        f"{made.source}; float32: {len(made.excluded)} convolutions of the encoder and the heads"
    )
    if made.skipped:
        yield f"  skipped layers, float32 for the gate's sake: {', '.join(made.skipped)}"


def _engine_lines(manifest: EngineManifest) -> Iterator[str]:
    build = manifest.engine
    if build is None:
        return
    yield (
        f"  TensorRT {build.tensorrt} for {build.gpu} ({build.compute_capability}), "
        f"{build.device_memory_bytes / 2**20:.0f} MiB of the GPU for each stream"
    )
    if build.precision_constraints is not None:
        after = build.precision_constraints_reason
        yield f"  precision constraints: {build.precision_constraints}" + (
            f", after {after}" if after else ""
        )
    if build.convolutions is not None:
        yield "  convolutions: " + ", ".join(_convolutions(build.convolutions))
    if build.float32_tensors_seen is not None:
        yield f"  {build.float32_tensors_seen} tensors seen as float32, as they must be"
    if build.inspector_problem is not None:
        yield f"  types of layers not checked: {build.inspector_problem}"
    if build.added_rewrites is not None:
        yield f"  rewritten, for TensorRT cannot build it otherwise: {build.added_rewrites[0]}"
    if build.portable_slowdown is not None:
        yield f"  portable, at {build.portable_slowdown:.2f}x the time of an engine for this GPU"
    if build.fallback is not None:
        yield f"  not as asked: {build.fallback}"


def _convolutions(counts: Mapping[str, int]) -> Iterator[str]:
    yield f"{counts['fp16']} in float16"
    if counts["other"]:
        yield f"{counts['other']} not in float16"
    if counts["unseen"]:
        yield f"{counts['unseen']} inside fused blocks, whose type the inspector does not tell"
