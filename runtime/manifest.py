"""The manifest beside an artefact: its metadata, hashes, versions, machine and gate results."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import ModelError
from runtime.files import read_json, written_beside
from runtime.model_info import ModelInfo
from runtime.records import FORMAT_VERSION, record_from


@dataclass(frozen=True)
class GateReport:
    """The result of comparing an artefact with the fp32 reference.

    Attributes:
        psnr_db: The lowest PSNR of all cases, in dB; None if all are identical.
        max_difference: The largest absolute difference; samples are in [0, 1].
        required_db: The lowest PSNR that is accepted, in dB.
        reference: Name of the reference.
        cases: The figures of each case, a pair of frames.
        loss_db: Mean PSNR of the reference to real frames minus that of the artefact, in dB; None
            if no real frames were compared.
        allowed_loss_db: The largest loss that is accepted, in dB; None as `loss_db`.
    """

    psnr_db: float | None
    max_difference: float
    required_db: float
    reference: str
    cases: list[dict[str, Any]] = field(default_factory=list)
    loss_db: float | None = None
    allowed_loss_db: float | None = None


@dataclass(frozen=True)
class Calibration:
    """The calibration of an int8 artefact.

    Attributes:
        source: Name of the video or the folder.
        frames: Number of its frames that were used.
        frames_sha256: SHA-256 of their pixels, (H, W, 3) RGB, in order.
        method: Method by which ranges and scales were computed.
        quantised: Layers in int8.
        excluded: Convolutions that are never in int8.
        skipped: Layers that stayed float32 because the gate refused the artefact with them.
    """

    source: str
    frames: int
    frames_sha256: str
    method: str
    quantised: list[str]
    excluded: list[str]
    skipped: list[str]


@dataclass(frozen=True)
class PrecisionProof:
    """The comparison of an artefact in bfloat16 or float16 in OpenVINO with itself in float32.

    It is valid for one version of OpenVINO, one version of the preparation in
    `runtime.backends.ov.precision`, and CPUs with the same vector extensions.

    Attributes:
        precision: Type in which convolutions were computed, "bf16" or "fp16".
        openvino: Version of OpenVINO, with its build.
        preparation: Version of the preparation of the model for this type by the runtime.
        instruction_sets: Vector extensions of the CPU for low precision, or else its name.
        processor: Name of the CPU.
        problem: Why it did not pass; None if it passed.
        made_db: The lowest PSNR to float32 on generated frames, in dB; None if all are identical,
            or the model could not be compiled.
        real_db: The lowest PSNR to float32 on real frames, in dB; None as `made_db`.
        loss_db: Mean PSNR of float32 to the true frames minus that of this precision, in dB;
            None as `made_db`.
        required: Limit of each of the three figures, by its name.
        cases: The figures of each case, a pair of frames.
    """

    precision: str
    openvino: str
    preparation: int
    instruction_sets: list[str]
    processor: str
    problem: str | None
    made_db: float | None
    real_db: float | None
    loss_db: float | None
    required: dict[str, float]
    cases: list[dict[str, Any]]

    @property
    def conditions(self) -> tuple[str, int, list[str]]:
        """The version of OpenVINO, the preparation and the vector extensions it is valid for."""
        return self.openvino, self.preparation, self.instruction_sets


@dataclass(frozen=True)
class EngineBuild:
    """The build of a TensorRT engine, and the TensorRT and GPU that it runs on.

    Attributes:
        tensorrt: Version of TensorRT.
        gpu: Name of the GPU.
        compute_capability: Compute capability of the GPU, for example "9.0".
        driver: The newest CUDA version that the driver supports; None if it is unknown.
        portable: Whether it runs in later releases of TensorRT, up to those of the next generation
            (8 -> 10, 10 -> 11).
        flags: Options of the build by name: optimisation level, workspace, rewrites of the graph.
        profile: "min", "opt" and "max" as [height, width]; None if the size is fixed.
        key: SHA-256 of `depends_on` as JSON with sorted keys.
        depends_on: Everything that the engine depends on, by name.
        command: The command that builds it again.
        fallback: Why another engine than the requested one was built; None if it was not.
        device_memory_bytes: GPU memory of one execution context, without weights.
        float32_tensors_seen: Number of tensors in the float32 islands of a float16 engine that the
            engine inspector shows as float32; None for other and for strongly typed engines.
        portable_slowdown: Time of a pair relative to that of an engine that is not portable; None
            if it is not portable.
        any_gpu: Whether a portable engine runs on any GPU from Ampere on; None if it is not
            portable, or was built before this was recorded.
        precision_constraints: How strictly a weakly typed build (TensorRT 8.6) of a float16 graph
            follows the types of the graph; None for other builds.
        precision_constraints_reason: Why stricter constraints were not used; None for the
            strictest.
        convolutions: Number of convolutions of a float16 graph that run in float16 ("fp16"), in
            another type ("other"), and that the inspector does not name ("unseen").
        inspector_problem: Why the engine inspector gave no result; None if it did.
        added_rewrites: Rewrites of the graph that were not requested but without which TensorRT
            could not build the engine; None for none.
    """

    tensorrt: str
    gpu: str
    compute_capability: str
    driver: str | None
    portable: bool
    flags: dict[str, Any]
    profile: dict[str, list[int]] | None
    key: str
    depends_on: dict[str, Any]
    command: str
    fallback: str | None
    device_memory_bytes: int
    float32_tensors_seen: int | None
    portable_slowdown: float | None
    any_gpu: bool | None = None
    precision_constraints: str | None = None
    precision_constraints_reason: str | None = None
    convolutions: dict[str, int] | None = None
    inspector_problem: str | None = None
    added_rewrites: list[str] | None = None


@dataclass(frozen=True)
class EngineManifest:
    """The manifest of an artefact.

    Attributes:
        model: Metadata of the model.
        backend: The backend that it was compared in and that runs it by default: "onnxruntime",
            "openvino" or "tensorrt".
        artefact_sha256: SHA-256 of the artefact.
        onnx_sha256: SHA-256 of the file of export.to_onnx that it was built from.
        versions: Version of each package that built and checked it, by name.
        machine: The machine that built it: "platform", "processor", "instruction_sets", "gpus".
        build_seconds: Time of the build and the gate, in seconds.
        gate: Result of the gate.
        engine: The build of a TensorRT engine; None for other artefacts.
        calibration: The calibration of an int8 artefact; None for others.
        proofs: Results in bfloat16 and float16 in OpenVINO; not in the file if there are none.
    """

    model: ModelInfo
    backend: str
    artefact_sha256: str
    onnx_sha256: str
    versions: dict[str, str]
    machine: dict[str, Any]
    build_seconds: float
    gate: GateReport
    engine: EngineBuild | None = None
    calibration: Calibration | None = None
    proofs: tuple[PrecisionProof, ...] = ()

    def write(self, artefact: Path) -> Path:
        """Writes the manifest beside `artefact`, atomically; returns its path."""
        path = manifest_path(artefact)
        values = {"format_version": FORMAT_VERSION, **asdict(self), "model": self.model.to_dict()}
        if not self.proofs:
            del values["proofs"]  # An earlier version reads a manifest without them.
        text = json.dumps(values, indent=2)
        with written_beside(path) as temporary:
            temporary.write_text(text + "\n")
        return path

    @classmethod
    def read(cls, artefact: Path) -> EngineManifest:
        """Reads the manifest beside `artefact` and checks that it belongs to it.

        Raises:
            ModelError: If it is missing, damaged, of another format version, or of another file, or
                declares stacked I/O.
        """
        path = manifest_path(artefact)
        try:
            values = read_json(path)
        except FileNotFoundError as error:
            raise ModelError(
                f"{path} is missing: put it beside {artefact.name}, or build the artefact again"
            ) from error
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{path} cannot be read ({error}): build the artefact again"
            ) from error
        manifest = record_from(cls, values, str(path), required={"engine", "calibration"})
        manifest.model.check_separate(str(path))
        sha256 = file_sha256(artefact)
        if sha256 != manifest.artefact_sha256:
            raise ModelError(
                f"{artefact} has sha256 {sha256[:12]}, its manifest was written for "
                f"{manifest.artefact_sha256[:12]}: build the artefact again"
            )
        return manifest


def manifest_path(artefact: Path) -> Path:
    """The path of the manifest of an artefact: model.onnx -> model.onnx.json."""
    return artefact.with_name(artefact.name + ".json")


def backend_in_manifest(artefact: Path) -> str | None:
    """The backend that the manifest beside a file names; None without a readable manifest.

    Nothing else is checked: `EngineManifest.read` does that when the file is opened.
    """
    try:
        backend = read_json(manifest_path(artefact))["backend"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return backend if isinstance(backend, str) else None


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
