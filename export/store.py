"""Writes artefacts and their manifests atomically."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import ModelProto

from export.candidate import CheckedModel
from export.files import check_output
from runtime import Interpolator
from runtime.backends.base import PrecisionChoice
from runtime.files import exclusive_access, written_beside
from runtime.machine import cpu_name, gpu_driver, installed_versions, instruction_sets
from runtime.manifest import EngineBuild, EngineManifest, PrecisionProof, file_sha256, manifest_path


def write_artefact(checked: CheckedModel, path: Path, *, started: float) -> EngineManifest:
    """Writes an ONNX artefact and its manifest, if the runtime can open the artefact.

    Args:
        checked: The model that passed the gate.
        path: The artefact to write.
        started: `time.perf_counter()` at the start of the build.

    Raises:
        ExportError: If the folder is missing.
        ModelError: If the runtime cannot open the artefact; then `path` is unchanged.
    """
    check_output(path)

    def save(temporary: Path) -> None:
        onnx.save(checked.model, temporary)
        # With "auto" OpenVINO would read the manifest, which is not written yet.
        precision: PrecisionChoice = "fp32" if checked.backend == "openvino" else "auto"
        Interpolator.open(temporary, backend=checked.backend, precision=precision).close()

    return save_with_manifest(path, save, checked, started=started)


def save_with_manifest(
    path: Path,
    save: Callable[[Path], object],
    checked: CheckedModel,
    *,
    started: float,
    engine: EngineBuild | None = None,
) -> EngineManifest:
    """Writes an artefact to a temporary path, renames it, and writes its manifest.

    Args:
        path: The artefact; its manifest is written beside it.
        save: Writes the artefact to the path in its argument. If it raises, `path` and its manifest
            are unchanged.
        checked: The description of the artefact and the report of the gate, for the manifest.
        started: `time.perf_counter()` at the start of the build.
        engine: How a TensorRT engine was built; None for other artefacts.

    Raises:
        OSError: If a file cannot be written.
    """
    with ExitStack() as stack:
        with written_beside(path) as temporary:
            save(temporary)
            manifest = EngineManifest(
                model=checked.info,
                backend=checked.backend,
                artefact_sha256=file_sha256(temporary),
                onnx_sha256=checked.onnx_sha256,
                versions={"python": platform.python_version(), **installed_versions()},
                machine={
                    "platform": platform.platform(),
                    "processor": cpu_name(),
                    "instruction_sets": instruction_sets(),
                    "gpus": [gpu.name for gpu in gpu_driver().gpus],
                },
                build_seconds=round(time.perf_counter() - started, 2),
                gate=checked.gate,
                engine=engine,
                calibration=checked.calibration,
                proofs=checked.proofs,
            )
            # No other build may write its artefact or manifest until both are renamed.
            stack.enter_context(exclusive_access(path.parent))
            # The old manifest would not match the new artefact, so there is none in between.
            manifest_path(path).unlink(missing_ok=True)
        manifest.write(path)
    return manifest


def add_proofs(path: Path, proofs: Sequence[PrecisionProof]) -> None:
    """Adds proofs to the manifest of an artefact, in place of earlier ones of the same kind.

    Args:
        path: The artefact.
        proofs: Its results in bfloat16 and float16.

    Raises:
        ModelError: If the manifest is missing, damaged, or of another file.
        OSError: If it cannot be written.
    """

    def replaced(earlier: PrecisionProof) -> bool:
        return any(
            earlier.precision == proof.precision and earlier.conditions == proof.conditions
            for proof in proofs
        )

    with exclusive_access(path.parent):
        manifest = EngineManifest.read(path)
        others = [proof for proof in manifest.proofs if not replaced(proof)]
        replace(manifest, proofs=(*others, *proofs)).write(path)


def write_onnx(model: ModelProto, path: Path) -> None:
    """Writes an ONNX file without a manifest atomically.

    Raises:
        ExportError: If the folder is missing.
    """
    check_output(path)
    with ExitStack() as stack, written_beside(path) as temporary:
        onnx.save(model, temporary)
        stack.enter_context(exclusive_access(path.parent))
        manifest_path(path).unlink(missing_ok=True)  # It does not describe the new file.
