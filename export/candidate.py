"""Graphs tuned for ONNX Runtime and OpenVINO, compared with their source; ready to be written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from onnx import ModelProto, helper

from export.gate.cases import gate_cases
from export.gate.gate import Requirements, gate
from export.gate.runners import Runner, onnx_runner, openvino_runner
from export.graph import passes
from export.graph.for_cpu import tuned_for_cpu
from export.request import DEFAULT_SIZE, OnnxBackend
from export.source import source_from_onnx
from runtime.backends.base import BackendName
from runtime.machine import installed_versions
from runtime.manifest import Calibration, GateReport
from runtime.model_info import ModelInfo, Precision, TunedFor
from runtime.telemetry import import_quietly

onnxruntime = import_quietly("onnxruntime")


class CheckedModel(NamedTuple):
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
    backend: BackendName = "onnxruntime"
    calibration: Calibration | None = None


def finalise(
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


def checked_from_onnx(
    path: Path,
    *,
    tuned_for: TunedFor | None = None,
    backend: OnnxBackend = "onnxruntime",
) -> CheckedModel:
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
    model, info = finalise(source.model, info, tuned_for or default_tuning(info.precision, backend))
    report = gate(
        source.reference,
        candidate_runners(model, info, backend),
        gate_cases([info.size or DEFAULT_SIZE], info),
        Requirements(info.precision),
    )
    return CheckedModel(model, info, report, source.onnx_sha256, backend)


def candidate_runners(
    model: ModelProto, info: ModelInfo, backend: OnnxBackend
) -> dict[str, Runner]:
    """A model in a backend, by its name with its version, for the gate.

    Raises:
        BackendError: If the backend is not installed.
    """
    if backend == "openvino":
        run = openvino_runner(model, info)
        return {f"OpenVINO {installed_versions().get('openvino', '')}".strip(): run}
    return {f"ONNX Runtime {onnxruntime.__version__}": onnx_runner(model, info)}


def default_tuning(precision: Precision, backend: OnnxBackend = "onnxruntime") -> TunedFor:
    """float16 is for GPUs, whose kernels want the plain graph; the others are for processors.

    OpenVINO wants the plain graph too; see `runtime.backends.ov.backend`.
    """
    return "cpu" if precision != "fp16" and backend == "onnxruntime" else "any"
