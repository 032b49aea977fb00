"""Tunes graphs for ONNX Runtime and OpenVINO, and compares them with their source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from onnx import ModelProto, helper

from export.gate.cases import gate_cases, gate_sizes
from export.gate.gate import Requirements, gate
from export.gate.runners import Runner, onnx_runner, openvino_runner
from export.graph import passes
from export.graph.describe import describe
from export.graph.for_cpu import tuned_for_cpu
from export.progress import Stages
from export.request import DEFAULT_SIZE, OnnxBackend
from export.source import source_from_onnx
from runtime.backends.base import BackendName
from runtime.machine import installed_versions
from runtime.manifest import Calibration, GateReport, PrecisionProof
from runtime.model_info import ModelInfo, Precision, TunedFor
from runtime.telemetry import import_quietly

onnxruntime = import_quietly("onnxruntime")


class CheckedModel(NamedTuple):
    """A model that passed the gate, with the facts for its manifest.

    Attributes:
        model: The graph.
        info: Its metadata.
        gate: The report of the gate.
        onnx_sha256: The SHA-256 of the graph before it was tuned for a device.
        backend: The backend that it was compared in, and that runs it by default.
        calibration: How it was calibrated, if it is int8; else None.
        proofs: Results in bfloat16 and float16 in OpenVINO on this CPU.
    """

    model: ModelProto
    info: ModelInfo
    gate: GateReport
    onnx_sha256: str
    backend: BackendName = "onnxruntime"
    calibration: Calibration | None = None
    proofs: tuple[PrecisionProof, ...] = ()


def finalise(
    model: ModelProto, info: ModelInfo, tuned_for: TunedFor, *, compact: bool = False
) -> tuple[ModelProto, ModelInfo]:
    """Tunes a graph for a kind of device, adds its metadata and descriptions, and checks it.

    Args:
        model: The graph; with `tuned_for` "any" it is changed in place.
        info: Its metadata; the result has another `tuned_for`.
        tuned_for: "cpu" for ONNX Runtime's CPU kernels; "any" for no change of the graph.
        compact: Stores weights as float16 where no value changes.

    Raises:
        ExportError: If the result is not plain ONNX.
    """
    if tuned_for == "cpu":
        model = tuned_for_cpu(model)
    if compact:
        passes.halve_constants(model)
    info = replace(info, tuned_for=tuned_for)
    helper.set_model_props(model, info.to_properties())
    describe(model, info)
    passes.check(model)
    return model, info


def checked_from_onnx(
    path: Path,
    *,
    tuned_for: TunedFor | None = None,
    compact: bool = False,
    backend: OnnxBackend = "onnxruntime",
) -> CheckedModel:
    """Reads a file of `export.to_onnx`, tunes it and compares it with the file, without PyTorch.

    Args:
        path: The ONNX file.
        tuned_for: The kind of device to rewrite the graph for; by default `default_tuning`.
        compact: Stores weights as float16 where no value changes.
        backend: The backend that will run it, in which it is compared.

    Raises:
        ExportError: If the file cannot be read, is not plain ONNX, or is tuned already.
        ModelError: If the file has no metadata of ifrnet-deploy.
        BackendError: If the backend is not installed.
        GateError: If the result differs too much from the file.
    """
    source = source_from_onnx(path)
    info = source.info
    tuned_for = tuned_for or default_tuning(info.precision, backend)
    model, info = finalise(source.model, info, tuned_for, compact=compact)
    report = gate(
        source.reference,
        candidate_runners(model, info, backend),
        gate_cases(gate_sizes(info, DEFAULT_SIZE), info),
        Requirements(info.precision),
    )
    return CheckedModel(model, info, report, source.onnx_sha256, backend)


def candidate_runners(
    model: ModelProto, info: ModelInfo, backend: OnnxBackend
) -> dict[str, Runner]:
    """Runs a model in a backend, for the gate: name and version of the backend -> runner.

    Raises:
        BackendError: If the backend is not installed.
    """
    if backend == "openvino":
        run = openvino_runner(model, info)
        return {f"OpenVINO {installed_versions().get('openvino', '')}".strip(): run}
    return {f"ONNX Runtime {onnxruntime.__version__}": onnx_runner(model, info)}


def proved(checked: CheckedModel, clip: Path | None) -> CheckedModel:
    """Compares a model for OpenVINO in the faster precisions of this CPU with float32.

    Args:
        checked: The model, which passed the gate in float32.
        clip: A video or a folder of images; None for the shipped clip.

    Returns:
        The model with the results, also of a precision that does not pass.

    Raises:
        ExportError: If the clip has too few frames, or nothing moves in it.
        VideoError: If the clip cannot be read.
    """
    from export.gate.proofs import REAL_FRAMES, provable_precisions, prove  # Needs PyAV.

    precisions = provable_precisions(checked.info)
    if not precisions:
        return checked
    with Stages(1) as stages:
        stages.start(f"compare {', '.join(precisions)} with fp32")
        proofs = prove(checked.model, checked.info, precisions, clip or REAL_FRAMES)
    return checked._replace(proofs=proofs)


def default_tuning(precision: Precision, backend: OnnxBackend = "onnxruntime") -> TunedFor:
    """The kind of device that a graph is rewritten for by default.

    "any" for float16, which is for GPUs, and for OpenVINO: both are faster with the graph as
    exported. "cpu" for the others.
    """
    return "cpu" if precision != "fp16" and backend == "onnxruntime" else "any"
