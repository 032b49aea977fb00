"""Writes artefacts into a model repository of NVIDIA Triton Inference Server.

    python -m export.triton --model small.engine --output repository
    tritonserver --model-repository repository

Artefacts are copied with their manifests; nothing is built. The configuration is written with
Triton's own schema (tritonclient's ModelConfig), and its parameters contain the metadata of the
model, which the client (`runtime.backends.triton.backend`) reads.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from export.errors import ExportError
from runtime.backends.onnx_format import read_onnx
from runtime.backends.triton import THREADS
from runtime.backends.triton.backend import config_ports
from runtime.files import written_beside
from runtime.manifest import EngineManifest, file_sha256, manifest_path
from runtime.model_info import OUTPUT, ModelInfo

TritonBackendName = Literal["onnxruntime", "tensorrt", "python"]
Device = Literal["gpu", "cpu"]

CONFIG = "config.pbtxt"
SHA256 = "ifrnet-deploy.artefact_sha256"
"""A parameter of the configuration: the SHA-256 of the newest version's artefact."""

QUEUE_DELAY_US = 2000
"""Default queue delay in microseconds: a tenth of the duration of a frame at 50 frames a second."""

_PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan", "python": ""}
_FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan", "python": "model.py"}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Serving:
    """How an artefact is served; None is the default for that artefact.

    Attributes:
        backend: Triton's backend: "tensorrt" for engines, "onnxruntime" for ONNX files, or "python"
            for ONNX files that this package runs in the server, which OpenVINO requires.
        device: Where instances run; by default "cpu" for ONNX files that are tuned for CPUs or
            served by the Python backend, else "gpu".
        gpus: Indices of the GPUs; by default all of the server.
        instances: Number of instances on each GPU, or in total on a CPU.
        threads: CPU threads of an instance.
        queue_delay_us: Maximum time in microseconds that a request waits to be batched, if the
            number of pairs is free.
        warm_up: (height, width) in pixels of the request with which the server warms the model up
            before it is ready; needed if sizes are free.
        versions_served: Number of versions that are served, the newest ones.

    Raises:
        ExportError: If a value is out of range or contradicts another.
    """

    backend: TritonBackendName | None = None
    device: Device | None = None
    gpus: tuple[int, ...] = ()
    instances: int = 1
    threads: int | None = None
    queue_delay_us: int = QUEUE_DELAY_US
    warm_up: tuple[int, int] | None = None
    versions_served: int = 1

    def __post_init__(self) -> None:
        for name in ("instances", "threads", "versions_served"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ExportError(f"--{name.replace('_', '-')} is {value}: use 1 or more")
        if self.queue_delay_us < 0 or min(self.gpus, default=0) < 0:
            raise ExportError("--queue-delay or --gpus has a value below 0: use 0 or more")
        if self.device == "cpu" and self.gpus:
            raise ExportError("--gpus was given with --device cpu: give only one of them")


class Artefact(NamedTuple):
    """An artefact to serve.

    Attributes:
        path: The file.
        info: Its metadata.
        manifest: Its manifest; None for an ONNX file without one.
        sha256: The SHA-256 of the file, 64 hexadecimal digits.
    """

    path: Path
    info: ModelInfo
    manifest: EngineManifest | None
    sha256: str


def write_served_model(
    artefact: Path,
    repository: Path,
    *,
    name: str | None = None,
    version: int = 1,
    serving: Serving | None = None,
) -> Path:
    """Adds a version of a model to a repository, atomically; creates the repository if needed.

    Args:
        artefact: An artefact of `export.build_engine`, or an ONNX file of `export.to_onnx`.
        repository: The folder for `tritonserver --model-repository`.
        name: Name of the served model; by default the file name without suffix.
        version: Version of the model, 1 or more. All versions have the same inputs and output.
        serving: How it is served; by default with the defaults for that artefact.

    Returns:
        The folder of the model.

    Raises:
        ExportError: If the artefact is missing, the version exists already, another version has
            other inputs or another output, or Triton cannot serve the artefact with `serving`.
        ModelError: If the artefact is damaged, has no metadata of ifrnet-deploy, or is an engine
            without its manifest.
    """
    return add_artefact(read_artefact(artefact), repository, name, version, serving or Serving())


def add_artefact(
    artefact: Artefact, repository: Path, name: str | None, version: int, serving: Serving
) -> Path:
    """Adds an artefact of `read_artefact` to a repository; see `write_served_model`."""
    name = artefact.path.stem if name is None else name
    if not _NAME.fullmatch(name):
        raise ExportError(f"--name is {name!r}: use letters, digits, _, . and -")
    if version < 1:
        raise ExportError(f"--model-version is {version}: use 1 or more")
    serving = _with_defaults(artefact, serving)
    config = _model_config(name, artefact, serving)
    folder = repository / name
    version_folder = folder / str(version)
    if version_folder.exists():
        raise ExportError(
            f"{version_folder} exists already: give another --model-version or --name"
        )
    if (folder / CONFIG).exists():
        _check_compatible(config, folder / CONFIG)
    repository.mkdir(parents=True, exist_ok=True)
    with _staged(repository) as stage:
        _copy_files(artefact, stage / name / str(version), serving)
        _write_config(config, stage / name / CONFIG)
        if not folder.exists():
            (stage / name).rename(folder)
        else:
            # The version first: a server that loads it at once can use the existing
            # configuration, which was checked to fit.
            (stage / name / str(version)).rename(version_folder)
            newest = max(int(p.name) for p in folder.iterdir() if p.name.isdigit())
            if version == newest:
                (stage / name / CONFIG).replace(folder / CONFIG)
    return folder


def _model_config(name: str, artefact: Artefact, serving: Serving) -> Any:
    """The `ModelConfig` of a model; backend and device of `serving` are not None."""
    from tritonclient.grpc import model_config_pb2 as schema

    assert serving.backend is not None
    info = artefact.info
    config = schema.ModelConfig(
        name=name,
        platform=_PLATFORMS[serving.backend],
        backend=serving.backend,
        default_model_filename=_FILES[serving.backend],
        max_batch_size=info.max_pairs or 0,
    )
    for port, (kind, dims) in config_ports(info).items():
        values = {"name": port, "data_type": schema.DataType.Value(kind), "dims": dims}
        (config.output if port == OUTPUT else config.input).add(**values)
    config.version_policy.latest.num_versions = serving.versions_served
    group = config.instance_group.add(count=serving.instances, gpus=serving.gpus)
    group.kind = group.KIND_CPU if serving.device == "cpu" else group.KIND_GPU
    if info.max_pairs is not None:
        config.dynamic_batching.preferred_batch_size.append(info.max_pairs)
        config.dynamic_batching.max_queue_delay_microseconds = serving.queue_delay_us
    for key, value in {
        **info.to_properties(),
        SHA256: artefact.sha256,
        **_thread_parameters(serving),
    }.items():
        config.parameters[key].string_value = value
    size = info.size or serving.warm_up or _profile_size(artefact)
    if size is not None:
        _add_warm_up(config, info, size)
    return config


def read_artefact(path: Path) -> Artefact:
    """Reads the metadata and the manifest of an artefact.

    Raises:
        ExportError: If the file does not exist.
        ModelError: If it is damaged, has no metadata, or is an engine without its manifest.
    """
    if not path.is_file():
        raise ExportError(
            f"{path} does not exist: give an artefact of python -m export.build_engine"
        )
    if path.suffix.lower() == ".onnx":
        _, _, info, manifest = read_onnx(path)
    else:
        manifest = EngineManifest.read(path)
        info = manifest.model
    return Artefact(path, info, manifest, file_sha256(path))


def _with_defaults(artefact: Artefact, serving: Serving) -> Serving:
    """Fills in the defaults for backend and device.

    Raises:
        ExportError: If Triton cannot serve the artefact with these options.
    """
    engine = artefact.path.suffix.lower() != ".onnx"
    gated_in = artefact.manifest.backend if artefact.manifest else "onnxruntime"
    default: TritonBackendName = (
        "tensorrt" if engine else "python" if gated_in == "openvino" else "onnxruntime"
    )
    backend = serving.backend or default
    if engine != (backend == "tensorrt"):
        raise ExportError(
            f"--backend {backend} was given with {artefact.path.name}: use tensorrt for engines, "
            "onnxruntime or python for ONNX files"
        )
    for_cpu = artefact.info.tuned_for == "cpu" or artefact.info.precision == "int8"
    device: Device
    if serving.device is not None:
        device = serving.device
    elif serving.gpus or backend == "tensorrt":
        device = "gpu"
    else:
        device = "cpu" if for_cpu or backend == "python" else "gpu"
    if device == "cpu" and backend == "tensorrt":
        raise ExportError(
            f"--device cpu was given with the engine {artefact.path.name}: give --device cuda, or "
            "an ONNX file"
        )
    if device == "gpu" and backend == "python":
        raise ExportError(
            "--device cuda was given with --backend python, which runs on the CPU: use "
            "--backend onnxruntime, or an engine"
        )
    if serving.threads is not None and backend == "tensorrt":
        raise ExportError("--threads was given with an engine: leave it out, or give an ONNX file")
    if serving.warm_up is not None and artefact.info.size is not None:
        raise ExportError("--warm-up was given with a model of fixed size: leave it out")
    return replace(serving, backend=backend, device=device)


def _profile_size(artefact: Artefact) -> tuple[int, int] | None:
    """(height, width) at which an engine with a range of sizes is fastest; else None."""
    build = artefact.manifest.engine if artefact.manifest else None
    if build is None or build.profile is None:
        return None
    height, width = build.profile["opt"]
    return height, width


def _thread_parameters(serving: Serving) -> dict[str, str]:
    """Parameters of the configuration for memory and threads of the backend."""
    if serving.backend == "onnxruntime":
        # As in the runtime: ONNX Runtime's memory pattern takes twice the memory and is no faster.
        threads = {} if serving.threads is None else {"intra_op_thread_count": str(serving.threads)}
        return {"enable_mem_pattern": "0", **threads}
    if serving.backend == "python" and serving.threads is not None:
        return {THREADS: str(serving.threads)}
    return {}


def _add_warm_up(config: Any, info: ModelInfo, size: tuple[int, int]) -> None:
    """Adds a warm-up request of one pair and, if the number is free, one of the maximum."""
    for pairs in (1,) if info.max_pairs is None else (1, info.max_pairs):
        warm_up = config.model_warmup.add(
            name=f"{size[0]}x{size[1]}, {pairs} at a time", batch_size=pairs
        )
        for port in config.input:
            free = iter(size)
            entry = warm_up.inputs[port.name]
            entry.data_type = port.data_type
            entry.dims.extend(next(free) if n == -1 else n for n in port.dims)
            entry.zero_data = True


def _copy_files(artefact: Artefact, folder: Path, serving: Serving) -> None:
    """Copies the files of a version into a new folder."""
    assert serving.backend is not None
    folder.mkdir(parents=True)
    target = folder / _FILES[serving.backend]
    if serving.backend == "python":
        shutil.copyfile(Path(__file__).with_name("model_stub.py"), target)
        target = folder / "model.onnx"
    shutil.copyfile(artefact.path, target)
    if artefact.manifest is not None:
        shutil.copyfile(manifest_path(artefact.path), manifest_path(target))


def _write_config(config: Any, path: Path) -> None:
    from google.protobuf import text_format

    with written_beside(path) as temporary:
        temporary.write_text(text_format.MessageToString(config))


def _check_compatible(config: Any, path: Path) -> None:
    """Checks that clients of the existing versions can use a new one.

    Raises:
        ExportError: If they cannot, or the existing configuration cannot be read.
    """
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as schema

    try:
        existing = text_format.Parse(path.read_text(), schema.ModelConfig())
    except text_format.ParseError as error:
        raise ExportError(
            f"{path} is not a configuration of Triton ({error}): remove it"
        ) from error

    def seen_by_clients(one: Any) -> tuple[Any, ...]:
        shared = {
            key: one.parameters[key].string_value
            for key in _SHARED_PARAMETERS
            if key in one.parameters
        }
        return list(one.input), list(one.output), one.max_batch_size, one.backend, shared

    if seen_by_clients(config) != seen_by_clients(existing):
        raise ExportError(
            f"{path} describes a model with other inputs, output, backend or time steps: give "
            "another --name"
        )


_SHARED_PARAMETERS = ("ifrnet.io", "ifrnet.divisor", "ifrnet.time_steps", "ifrnet.flow_scale")
"""Parameters that all versions of a model share, besides inputs, output and backend."""


@contextmanager
def _staged(repository: Path) -> Iterator[Path]:
    """A temporary folder beside the repository, since a server may watch the repository itself."""
    parent = repository.resolve().parent
    with tempfile.TemporaryDirectory(
        prefix=f".{repository.name}.{os.getpid()}.", suffix=".partial", dir=parent
    ) as stage:
        yield Path(stage)
