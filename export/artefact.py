"""Artefacts on disk: ONNX files, and what is built from them with its manifest. No PyTorch."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import onnx
from onnx import ModelProto

from export import graph
from export.arguments import DEFAULT_SIZE
from export.errors import ExportError
from export.verify import gate, gate_cases, onnx_run
from runtime import Interpolator
from runtime.files import written_beside
from runtime.machine import gpu_driver, installed_versions, processor_name
from runtime.manifest import EngineManifest, GateReport, ModelInfo, file_sha256, manifest_path


def model_from_onnx(path: Path) -> tuple[ModelProto, ModelInfo, GateReport]:
    """Reads an ONNX file of ours and gates it without PyTorch.

    The reference is the same graph in ONNX Runtime with every optimisation off: what PyTorch
    said about the graph was measured when it was exported.

    Raises:
        ExportError: If the file cannot be read or is not plain ONNX.
        ModelError: If it carries no metadata of ours.
        GateError: If the optimised graph differs from the plain one.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError has no public home.
        raise ExportError(f"{path} cannot be read as ONNX ({error}): export it again") from error
    graph.check(model)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    info = ModelInfo.from_properties(properties, source=str(path))
    report = gate(
        onnx_run(model, info, optimised=False),
        {"ONNX Runtime": onnx_run(model, info)},
        gate_cases(
            [info.size or DEFAULT_SIZE],
            steps_per_call=info.steps_per_call,
            time_steps=info.time_steps,
        ),
        precision=info.precision,
        reference_name="the same graph, unoptimised",
    )
    return model, info, report


def write_artefact(
    model: ModelProto, info: ModelInfo, report: GateReport, path: Path, *, started: float
) -> EngineManifest:
    """Writes an ONNX artefact for ONNX Runtime and its manifest; opens it once to be sure.

    Args:
        model: What passed the gate.
        info: What it says about itself.
        report: What the gate measured.
        path: Of the artefact.
        started: `time.perf_counter()` of the build's begin.

    Raises:
        ExportError: If the folder is missing.
        ModelError: If the runtime does not open what was written; nothing is left then.
    """
    check_folder(path)
    with written_beside(path) as beside:
        onnx.save(model, beside)
        Interpolator.open(beside, backend="onnxruntime").close()
        sha256 = file_sha256(beside)
        # Between here and the new manifest there is none, which is true; an old one would lie.
        manifest_path(path).unlink(missing_ok=True)
    manifest = EngineManifest(
        model=info,
        backend="onnxruntime",
        artefact_sha256=sha256,
        onnx_sha256=sha256,
        versions={"python": platform.python_version(), **installed_versions()},
        machine={
            "platform": platform.platform(),
            "processor": processor_name(),
            "gpus": [gpu.name for gpu in gpu_driver().gpus],
        },
        build_seconds=round(time.perf_counter() - started, 2),
        gate=report,
    )
    manifest.write(path)
    return manifest


def write_onnx(model: ModelProto, path: Path) -> None:
    """Writes an ONNX file without a manifest, whole or not at all.

    Raises:
        ExportError: If the folder is missing.
    """
    check_folder(path)
    with written_beside(path) as beside:
        onnx.save(model, beside)
        manifest_path(path).unlink(missing_ok=True)  # It would be that of another file.


def check_folder(path: Path) -> None:
    """Refuses an output whose folder is missing, before any work is done.

    Raises:
        ExportError: If it is.
    """
    if not path.parent.is_dir():
        raise ExportError(f"{path.parent} is no folder: create it first")
