"""Artefacts on disk: ONNX files, and what is built from them with its manifest. No PyTorch."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import onnx
from onnx import ModelProto, helper

from export.arguments import DEFAULT_SIZE
from export.errors import ExportError
from export.gate.cases import gate_cases
from export.gate.gate import Reference, Requirements, gate
from export.gate.runners import Run, onnx_run, openvino_run
from export.graph import passes
from export.graph.for_cpu import tuned_for_cpu
from runtime import Interpolator, ModelError
from runtime.backends.onnx_format import read_self_contained
from runtime.files import written_beside
from runtime.locks import alone_in
from runtime.machine import gpu_driver, installed_versions, processor_name
from runtime.manifest import (
    Calibration,
    EngineBuild,
    EngineManifest,
    GateReport,
    ModelInfo,
    Precision,
    TunedFor,
    file_sha256,
    manifest_path,
)
from runtime.telemetry import import_quietly

onnxruntime = import_quietly("onnxruntime")


class Source(NamedTuple):
    """A plain graph, and what everything made from it is compared with.

    Attributes:
        model: The graph with its metadata, before it is tuned for anything.
        info: What it says about itself.
        onnx_sha256: Hash of its file.
        reference: What is right.
    """

    model: ModelProto
    info: ModelInfo
    onnx_sha256: str
    reference: Reference


ProcessorBackend = Literal["onnxruntime", "openvino"]


class Checked(NamedTuple):
    """A model that passed the gate.

    Attributes:
        model: The graph to keep.
        info: What it says about itself.
        gate: What the gate measured.
        onnx_sha256: Of the plain graph, before it was tuned for one kind of processor.
        backend: What it was compared in, and what runs it by default.
        calibration: Where it is int8.
    """

    model: ModelProto
    info: ModelInfo
    gate: GateReport
    onnx_sha256: str
    backend: ProcessorBackend = "onnxruntime"
    calibration: Calibration | None = None


def finished(
    model: ModelProto, info: ModelInfo, tuned_for: TunedFor
) -> tuple[ModelProto, ModelInfo]:
    """The graph tuned for `tuned_for`, with its metadata, checked to be plain ONNX.

    Raises:
        ExportError: If it is not.
    """
    if tuned_for == "cpu":
        model = tuned_for_cpu(model)
    info = replace(info, tuned_for=tuned_for)
    helper.set_model_props(model, info.to_properties())
    passes.check(model)
    return model, info


def source_from_onnx(path: Path) -> Source:
    """Reads an ONNX file of ours, without PyTorch.

    The reference is the file in ONNX Runtime, in float32 with every optimisation off: what
    PyTorch said about it was measured when it was exported.

    Args:
        path: A file of `export.to_onnx`.

    Raises:
        ExportError: If the file cannot be read, names other files for its data, is not plain ONNX,
            or is tuned or int8 already.
        ModelError: If it carries no metadata of ours.
    """
    try:
        content = read_self_contained(path)
        plain = onnx.load_model_from_string(content)
    except ModelError as error:
        raise ExportError(str(error)) from error
    except Exception as error:  # protobuf's DecodeError has no public home.
        raise ExportError(f"{path} cannot be read as ONNX ({error}): export it again") from error
    passes.check(plain)
    properties = {entry.key: entry.value for entry in plain.metadata_props}
    info = ModelInfo.from_properties(properties, source=str(path))
    if info.precision == "int8":
        raise ExportError(f"{path} is int8 already: give the float32 file of export.to_onnx")
    if info.tuned_for != "any":
        raise ExportError(
            f"{path} is tuned for {info.tuned_for} already: give the file of export.to_onnx"
        )
    return source_from_model(plain, info, hashlib.sha256(content).hexdigest())


def source_from_model(model: ModelProto, info: ModelInfo, onnx_sha256: str) -> Source:
    """A source whose reference is the graph itself, in float32 with every optimisation off."""
    half = info.precision == "fp16"
    reference = Reference(
        onnx_run(passes.in_float32(model) if half else model, info, optimised=False),
        f"the file {'in float32' if half else 'as it is'}, unoptimised",
    )
    return Source(model, info, onnx_sha256, reference)


def checked_from_onnx(
    path: Path,
    *,
    tuned_for: TunedFor | None = None,
    backend: ProcessorBackend = "onnxruntime",
) -> Checked:
    """Reads an ONNX file of ours, tunes and gates it without PyTorch.

    Args:
        path: A file of `export.to_onnx`.
        tuned_for: See `default_tuning`, which is the default.
        backend: What will run it.

    Raises:
        ExportError: If the file cannot be read, is not plain ONNX, or is tuned already.
        ModelError: If it carries no metadata of ours.
        BackendError: If the backend is not installed.
        GateError: If the result differs from the file.
    """
    source = source_from_onnx(path)
    info = source.info
    model, info = finished(source.model, info, tuned_for or default_tuning(info.precision, backend))
    report = gate(
        source.reference,
        candidate(model, info, backend),
        gate_cases([info.size or DEFAULT_SIZE], info),
        Requirements(info.precision),
    )
    return Checked(model, info, report, source.onnx_sha256, backend)


def candidate(model: ModelProto, info: ModelInfo, backend: ProcessorBackend) -> dict[str, Run]:
    """A model in a backend, by its name with its version, for the gate.

    Raises:
        BackendError: If the backend is not installed.
    """
    if backend == "openvino":
        run = openvino_run(model, info)
        return {f"OpenVINO {installed_versions().get('openvino', '')}".strip(): run}
    return {f"ONNX Runtime {onnxruntime.__version__}": onnx_run(model, info)}


def default_tuning(precision: Precision, backend: ProcessorBackend = "onnxruntime") -> TunedFor:
    """float16 is for GPUs, whose kernels want the plain graph; the others are for processors.

    OpenVINO wants the plain graph too; see `runtime.backends.ov.backend`.
    """
    return "cpu" if precision != "fp16" and backend == "onnxruntime" else "any"


def write_artefact(checked: Checked, path: Path, *, started: float) -> EngineManifest:
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

    def save(beside: Path) -> None:
        onnx.save(checked.model, beside)
        Interpolator.open(beside, backend=checked.backend).close()

    return keep(
        path,
        save,
        started=started,
        backend=checked.backend,
        model=checked.info,
        onnx_sha256=checked.onnx_sha256,
        report=checked.gate,
        calibration=checked.calibration,
    )


def keep(
    path: Path,
    save: Callable[[Path], object],
    *,
    started: float,
    backend: str,
    model: ModelInfo,
    onnx_sha256: str,
    report: GateReport,
    engine: EngineBuild | None = None,
    calibration: Calibration | None = None,
) -> EngineManifest:
    """Writes an artefact beside its place, renames it, and writes its manifest.

    Args:
        path: Of the artefact.
        save: Writes it to the path that it is given; where it raises, nothing has changed.
        started: `time.perf_counter()` of the build's begin.
        backend: This and the rest: as of `EngineManifest`.
        model: See there.
        onnx_sha256: See there.
        report: What the gate measured.
        engine: See there.
        calibration: See there.
    """
    with ExitStack() as stack:
        with written_beside(path) as beside:
            save(beside)
            manifest = EngineManifest(
                model=model,
                backend=backend,
                artefact_sha256=file_sha256(beside),
                onnx_sha256=onnx_sha256,
                versions={"python": platform.python_version(), **installed_versions()},
                machine={
                    "platform": platform.platform(),
                    "processor": processor_name(),
                    "gpus": [gpu.name for gpu in gpu_driver().gpus],
                },
                build_seconds=round(time.perf_counter() - started, 2),
                gate=report,
                engine=engine,
                calibration=calibration,
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
    with ExitStack() as stack, written_beside(path) as beside:
        onnx.save(model, beside)
        stack.enter_context(alone_in(path.parent))
        manifest_path(path).unlink(missing_ok=True)  # It would be that of another file.


def check_folder(path: Path) -> None:
    """Refuses an output whose folder is missing, before any work is done.

    Raises:
        ExportError: If it is.
    """
    if not path.parent.is_dir():
        raise ExportError(f"{path.parent} is no folder: create it first")
