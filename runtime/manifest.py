"""The manifest beside an artefact: its `ModelInfo`, and what its build knows.

That is hashes, versions, the machine, and what the gate measured.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import ModelError
from runtime.files import written_beside
from runtime.model_info import FORMAT_VERSION, ModelInfo, record_from


@dataclass(frozen=True)
class GateReport:
    """What the comparison with the fp32 reference measured before the artefact was kept.

    Attributes:
        psnr_db: The worst PSNR over all cases, in dB; None where every case was identical.
        max_difference: The largest difference of a sample, of 1.0.
        required_db: The limit under which the artefact would have been refused.
        reference: What it was compared with.
        cases: Each case with its own figures.
        loss_db: Where real frames were compared: by how much the artefact is further from the true
            frames than the reference is, the mean over them; negative where it is nearer.
        allowed_loss_db: The limit over which the artefact would have been refused.
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
    """How an int8 artefact came by its scales.

    Attributes:
        source: Name of the video or the folder.
        frames: How many of its frames were used.
        frames_sha256: Hash of their pixels, (H, W, 3) RGB, in order.
        method: How ranges and scales were found.
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
class EngineBuild:
    """How a TensorRT engine was built, and where alone it runs.

    Attributes:
        tensorrt: Version of TensorRT.
        gpu: Name of the GPU.
        compute_capability: Of the GPU, for example "9.0".
        driver: The CUDA version of the driver.
        portable: Runs in later releases of TensorRT, up to those of the next generation (8 -> 10,
            10 -> 11).
        flags: Options of the build: optimisation level, workspace, rewrites of the graph.
        profile: "min", "opt" and "max" as [height, width] where sizes are free, else None.
        key: Hash of everything that the engine depends on.
        depends_on: That everything, by name.
        command: Builds it again.
        fallback: Why the engine is not what was asked for, where it is not.
        device_memory_bytes: What a context takes of the GPU, without weights.
        float32_tensors_seen: Of a float16 engine: how many tensors of its float32 islands the
            engine inspector shows as float32; None where the engine is strongly typed.
        portable_slowdown: Time of a pair over that of an engine for this GPU and version alone;
            None where it is not portable.
        any_gpu: Whether it runs on any GPU from Ampere on; None as `portable`.
        precision_constraints: How strictly a weakly typed build (TensorRT 8.6) of a float16 graph
            was held to the types of the graph; see `export.request.Constraints`. Else None.
        precision_constraints_reason: Why the stricter ones were not used; None for the strictest.
        convolutions: Of a float16 engine: how many convolutions of the graph run in float16
            ("fp16"), in another type ("other"), and are not named by the inspector ("unseen").
        inspector_problem: Why the engine inspector could not tell, where it could not.
        added_rewrites: Rewrites of the graph that were not asked for and without which TensorRT
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
    """The record beside an artefact: what it is, what it was built from, what it measured.

    Attributes:
        model: The artefact's self-description.
        backend: The backend that it was compared with, and that runs it by default
            ("onnxruntime", "openvino" or "tensorrt").
        artefact_sha256: Hash of the artefact itself.
        onnx_sha256: Hash of the ONNX file that it was built from.
        versions: Versions of what built and checked it.
        machine: Where it was built.
        build_seconds: How long the build took, gate included.
        gate: What the gate measured.
        engine: How it was built, where it is a TensorRT engine.
        calibration: Where it is int8.
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

    def write(self, artefact: Path) -> Path:
        """Writes the manifest of `artefact` beside it, whole or not at all; returns its path."""
        path = manifest_path(artefact)
        text = json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, indent=2)
        with written_beside(path) as beside:
            beside.write_text(text + "\n")
        return path

    @classmethod
    def read(cls, artefact: Path) -> EngineManifest:
        """Reads the manifest beside `artefact` and checks that it belongs to it.

        Raises:
            ModelError: If it is missing, damaged, of another format version, or of another file.
        """
        path = manifest_path(artefact)
        try:
            values = json.loads(path.read_text())
            version = {"format_version": values["format_version"]}
            model = ModelInfo.from_dict({**values["model"], **version}, source=str(path))
            gate = record_from(GateReport, {**values["gate"], **version}, str(path))
            engine = values["engine"]
            if engine is not None:
                engine = record_from(EngineBuild, {**engine, **version}, str(path))
            calibration = values["calibration"]
            if calibration is not None:
                calibration = record_from(Calibration, {**calibration, **version}, str(path))
            read = {
                **values,
                "model": model,
                "gate": gate,
                "engine": engine,
                "calibration": calibration,
            }
            manifest = record_from(cls, read, str(path))
        except FileNotFoundError as error:
            raise ModelError(
                f"{path} is missing: keep it beside {artefact.name}, or build the artefact again"
            ) from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ModelError(
                f"{path} cannot be read ({error}): build the artefact again"
            ) from error
        found = file_sha256(artefact)
        if found != manifest.artefact_sha256:
            raise ModelError(
                f"{artefact} has sha256 {found[:12]}, its manifest was written for "
                f"{manifest.artefact_sha256[:12]}: build the artefact again"
            )
        return manifest


def manifest_path(artefact: Path) -> Path:
    """Where the manifest of an artefact lies: model.onnx -> model.onnx.json."""
    return artefact.with_name(artefact.name + ".json")


def backend_in_manifest(artefact: Path) -> str | None:
    """The backend that the manifest beside a file names; None without one that can be read.

    Nothing is checked: whoever opens the file reads the manifest in full.
    """
    try:
        named = json.loads(manifest_path(artefact).read_text())["backend"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return named if isinstance(named, str) else None


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
