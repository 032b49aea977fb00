"""The report that python -m export.build_engine prints about an artefact."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from export.gate.gate import report_lines
from runtime.manifest import EngineManifest, PrecisionProof, manifest_path


def print_report(output: Path, manifest: EngineManifest, *, nodes: int) -> None:
    """Prints how the artefact was built, the results of the gate, and the path of the manifest."""
    print(f"{output}: passed the comparison with {manifest.gate.reference}")
    for line in (
        *report_lines(manifest.gate, manifest.model, nodes=nodes),
        *_calibration_lines(manifest),
        *proof_lines(manifest.proofs),
        *_engine_lines(manifest),
    ):
        print(line)
    print(f"  built in {manifest.build_seconds:.1f} s; manifest: {manifest_path(output)}")


def proof_lines(proofs: Iterable[PrecisionProof]) -> Iterator[str]:
    """The results in bfloat16 and float16 as lines for the user, one for each."""
    for proof in proofs:
        if proof.problem is not None:
            yield f"  {proof.precision} on this CPU: not used, because {proof.problem}"
            continue
        yield (
            f"  {proof.precision} on this CPU: lowest PSNR to fp32 {_decibels(proof.made_db)} on "
            f"generated frames, {_decibels(proof.real_db)} on real frames; mean loss of PSNR to "
            f"the true frames {proof.loss_db:.3f} dB"
        )


def _decibels(value: float | None) -> str:
    return "identical" if value is None else f"{value:.1f} dB"


def _calibration_lines(manifest: EngineManifest) -> Iterator[str]:
    calibration = manifest.calibration
    if calibration is None:
        return
    yield (
        f"  layers in int8: {len(calibration.quantised)}, calibrated with {calibration.frames} "
        f"frames of {calibration.source}; convolutions of encoder and heads in float32: "
        f"{len(calibration.excluded)}"
    )
    if calibration.skipped:
        yield f"  layers kept in float32 to pass the comparison: {', '.join(calibration.skipped)}"


def _engine_lines(manifest: EngineManifest) -> Iterator[str]:
    build = manifest.engine
    if build is None:
        return
    yield (
        f"  TensorRT {build.tensorrt} for {build.gpu} ({build.compute_capability}), "
        f"{build.device_memory_bytes / 2**20:.0f} MiB of the GPU for each stream"
    )
    if build.precision_constraints is not None:
        reason = build.precision_constraints_reason
        yield f"  precision constraints: {build.precision_constraints}" + (
            f", because stricter ones failed ({reason})" if reason else ""
        )
    if build.convolutions is not None:
        yield "  convolutions: " + ", ".join(_convolutions(build.convolutions))
    if build.float32_tensors_seen is not None:
        yield f"  tensors checked to be float32: {build.float32_tensors_seen}"
    if build.inspector_problem is not None:
        yield f"  the types of the layers were not checked: {build.inspector_problem}"
    if build.added_rewrites is not None:
        yield (
            f"  rewrite {build.added_rewrites[0]} added, because TensorRT cannot build the graph "
            "without it"
        )
    if build.portable_slowdown is not None:
        yield (
            f"  portable: takes {build.portable_slowdown:.2f} times as long as an engine for this "
            "GPU only"
        )
    if build.fallback is not None:
        yield f"  fallback: {build.fallback}"


def _convolutions(counts: Mapping[str, int]) -> Iterator[str]:
    yield f"{counts['fp16']} in float16"
    if counts["other"]:
        yield f"{counts['other']} not in float16"
    if counts["unseen"]:
        yield f"{counts['unseen']} in fused blocks, whose type the inspector does not show"
