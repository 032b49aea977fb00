"""Writes artefacts and their manifests, whole or not at all."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import onnx
from onnx import ModelProto

from export.candidate import CheckedModel
from export.errors import ExportError
from runtime import Interpolator
from runtime.files import alone_in, written_beside
from runtime.machine import cpu_name, gpu_driver, installed_versions
from runtime.manifest import EngineBuild, EngineManifest, file_sha256, manifest_path


def write_artefact(checked: CheckedModel, path: Path, *, started: float) -> EngineManifest:
    """Writes an ONNX artefact and its manifest; opens it once to be sure.

    Args:
        checked: What passed the gate.
        path: Of the artefact.
        started: `time.perf_counter()` of the build's begin.

    Raises:
        ExportError: If the folder is missing.
        ModelError: If the runtime does not open what was written; nothing is left then.
    """
    check_folder(path)

    def save(temporary: Path) -> None:
        onnx.save(checked.model, temporary)
        Interpolator.open(temporary, backend=checked.backend).close()

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
        save: Writes the artefact to the path that it is given. If it raises, `path` and its
            manifest are unchanged.
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
                    "gpus": [gpu.name for gpu in gpu_driver().gpus],
                },
                build_seconds=round(time.perf_counter() - started, 2),
                gate=checked.gate,
                engine=engine,
                calibration=checked.calibration,
            )
            # Until both are renamed, no other build may put its own artefact or manifest there.
            stack.enter_context(alone_in(path.parent))
            # Between here and the new manifest there is none, which is true; an old one would lie.
            manifest_path(path).unlink(missing_ok=True)
        manifest.write(path)
    return manifest


def write_onnx(model: ModelProto, path: Path) -> None:
    """Writes an ONNX file without a manifest, whole or not at all.

    Raises:
        ExportError: If the folder is missing.
    """
    check_folder(path)
    with ExitStack() as stack, written_beside(path) as temporary:
        onnx.save(model, temporary)
        stack.enter_context(alone_in(path.parent))
        manifest_path(path).unlink(missing_ok=True)  # It would be that of another file.


def check_folder(path: Path) -> None:
    """Refuses an output whose folder is missing, before any work is done.

    Raises:
        ExportError: If it is.
    """
    if not path.parent.is_dir():
        raise ExportError(f"{path.parent} is no folder: create it first")
