"""Artefacts -> a model repository of NVIDIA Triton Inference Server.

    python -m export.triton --model small.engine --output repository
    tritonserver --model-repository repository

Nothing is built here: what was gated is copied with its manifest, beside a configuration that is
written with Triton's own schema (tritonclient's ModelConfig). The model's self-description goes
into the configuration's parameters, where the client (`runtime.backends.triton.backend`) finds it.
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
"""A parameter of the configuration: hash of the artefact of its newest version."""

QUEUE_DELAY_US = 2000
"""A tenth of a frame's time at 50 frames a second: a batch may wait so long to be filled."""

_PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan", "python": ""}
_FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan", "python": "model.py"}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Serving:
    """How an artefact is served; None stands for what suits it.

    Attributes:
        backend: Triton's backend: "onnxruntime" for ONNX files, "tensorrt" for engines, "python"
            for ONNX files through this package inside the server, which is the way for OpenVINO.
        device: Where instances run; by default engines on GPUs, and ONNX files on processors
            where they are tuned for them.
        gpus: Indices; by default all GPUs of the server.
        instances: Copies of the model on each GPU, or in all on a processor.
        threads: Processors of one instance.
        queue_delay_us: How long requests may wait for others, in microseconds, where the model
            takes several pairs.
        warm_up: Height and width of the first request, which the server sends to itself; needed
            where sizes are free.
        versions_served: The newest so many are served.
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
                raise ExportError(f"{name} is {value}: use 1 or more")
        if self.queue_delay_us < 0 or min(self.gpus, default=0) < 0:
            raise ExportError("a queue delay or the index of a GPU is below 0: use 0 or more")
        if self.device == "cpu" and self.gpus:
            raise ExportError("GPUs came with device cpu: give one of both")


class Artefact(NamedTuple):
    """An artefact with what it says about itself.

    Attributes:
        path: Of the file.
        info: Its self-description.
        manifest: None where it has none.
        sha256: Of the file.
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
    """Adds one version of a model to a repository; makes the repository where there is none.

    Args:
        artefact: Of `export.build_engine`, or an ONNX file of `export.to_onnx`.
        repository: The folder that `tritonserver --model-repository` is given.
        name: Under which it is served; by default the artefact's, without its suffix.
        version: 1 or more. Other versions of the same model must have the same inputs and output.
        serving: How.

    Returns:
        The folder of the model. It is there whole or not at all.

    Raises:
        ExportError: If the version is there already, another version has other inputs or another
            output, or Triton cannot serve the artefact that way.
        ModelError: If the artefact is missing, damaged or not one of ours.
    """
    return add_artefact(read_artefact(artefact), repository, name, version, serving or Serving())


def add_artefact(
    read: Artefact, repository: Path, name: str | None, version: int, serving: Serving
) -> Path:
    """See `write_served_model`."""
    name = read.path.stem if name is None else name
    if not _NAME.fullmatch(name):
        raise ExportError(f"{name!r} is no name of a model: use letters, digits, _, . and -")
    if version < 1:
        raise ExportError(f"version {version}: use 1 or more")
    serving = _with_defaults(read, serving)
    config = model_config(name, read.info, serving, sha256=read.sha256, profile=_best_size(read))
    folder = repository / name
    place = folder / str(version)
    if place.exists():
        raise ExportError(f"{place} is there already: give another --version or --name")
    if (folder / CONFIG).exists():
        _check_fits(config, folder / CONFIG)
    repository.mkdir(parents=True, exist_ok=True)
    with _staged(repository) as stage:
        _fill(stage / name / str(version), read, serving)
        _write_config(config, stage / name / CONFIG)
        if not folder.exists():
            (stage / name).rename(folder)
        else:
            # The version first: a configuration may serve what is not there yet, but what is
            # there should not wait for a configuration.
            (stage / name / str(version)).rename(place)
            newest = max(int(p.name) for p in folder.iterdir() if p.name.isdigit())
            if version == newest:
                (stage / name / CONFIG).replace(folder / CONFIG)
    return folder


def model_config(
    name: str,
    info: ModelInfo,
    serving: Serving,
    *,
    sha256: str,
    profile: tuple[int, int] | None = None,
) -> Any:
    """A `ModelConfig` of Triton's schema.

    Args:
        name: Of the model.
        info: What it is.
        serving: How it is served; backend and device are not None.
        sha256: Of the artefact.
        profile: Height and width that it is best at, where sizes are free and that is known.
    """
    from tritonclient.grpc import model_config_pb2 as schema

    assert serving.backend is not None
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
    for key, value in {**info.to_properties(), SHA256: sha256, **_tuning(serving)}.items():
        config.parameters[key].string_value = value
    size = info.size or serving.warm_up or profile
    if size is not None:
        _add_warm_up(config, info, size)
    return config


def read_artefact(path: Path) -> Artefact:
    """An artefact and what is known of it."""
    if not path.is_file():
        raise ExportError(f"{path} does not exist: make one with python -m export.build_engine")
    if path.suffix.lower() == ".onnx":
        _, info = read_onnx(path)
        manifest = EngineManifest.read(path) if manifest_path(path).exists() else None
    else:
        manifest = EngineManifest.read(path)
        info = manifest.model
    return Artefact(path, info, manifest, file_sha256(path))


def _with_defaults(artefact: Artefact, serving: Serving) -> Serving:
    """With backend and device chosen.

    Raises:
        ExportError: If Triton cannot serve the artefact with what was asked for.
    """
    engine = artefact.path.suffix.lower() != ".onnx"
    gated_in = artefact.manifest.backend if artefact.manifest else "onnxruntime"
    suits: TritonBackendName = (
        "tensorrt" if engine else "python" if gated_in == "openvino" else "onnxruntime"
    )
    backend = serving.backend or suits
    if engine != (backend == "tensorrt"):
        raise ExportError(
            f"backend {backend} came with {artefact.path.name}: engines are for tensorrt, ONNX "
            "files for onnxruntime and python"
        )
    for_processors = artefact.info.tuned_for == "cpu" or artefact.info.precision == "int8"
    device: Device
    if serving.device is not None:
        device = serving.device
    elif serving.gpus or backend == "tensorrt":
        device = "gpu"
    else:
        device = "cpu" if for_processors or backend == "python" else "gpu"
    if device == "cpu" and backend == "tensorrt":
        raise ExportError(f"device cpu came with {artefact.path.name}: engines run on a GPU")
    if device == "gpu" and backend == "python":
        raise ExportError(
            "device gpu came with the Python backend, which is for processors: use onnxruntime, "
            "or an engine"
        )
    if serving.threads is not None and backend == "tensorrt":
        raise ExportError("threads came with an engine: they are for ONNX files")
    if serving.warm_up is not None and artefact.info.size is not None:
        raise ExportError("a size to warm up with came with a fixed size: leave it out")
    return replace(serving, backend=backend, device=device)


def _best_size(artefact: Artefact) -> tuple[int, int] | None:
    """Of an engine with a profile."""
    build = artefact.manifest.engine if artefact.manifest else None
    if build is None or build.profile is None:
        return None
    height, width = build.profile["opt"]
    return height, width


def _tuning(serving: Serving) -> dict[str, str]:
    """Parameters that a backend understands."""
    if serving.backend == "onnxruntime":
        # As in the runtime: the plan made ahead takes twice the memory and is no faster.
        threads = {} if serving.threads is None else {"intra_op_thread_count": str(serving.threads)}
        return {"enable_mem_pattern": "0", **threads}
    if serving.backend == "python" and serving.threads is not None:
        return {THREADS: str(serving.threads)}
    return {}


def _add_warm_up(config: Any, info: ModelInfo, size: tuple[int, int]) -> None:
    """One request before the model is ready; with free pairs another with as many as fit."""
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


def _fill(place: Path, artefact: Artefact, serving: Serving) -> None:
    """The files of one version."""
    assert serving.backend is not None
    place.mkdir(parents=True)
    target = place / _FILES[serving.backend]
    if serving.backend == "python":
        shutil.copyfile(Path(__file__).with_name("model_stub.py"), target)
        target = place / "model.onnx"
    shutil.copyfile(artefact.path, target)
    if artefact.manifest is not None:
        shutil.copyfile(manifest_path(artefact.path), manifest_path(target))


def _write_config(config: Any, path: Path) -> None:
    from google.protobuf import text_format

    with written_beside(path) as beside:
        beside.write_text(text_format.MessageToString(config))


def _check_fits(config: Any, path: Path) -> None:
    """Refuses a version whose clients would have to be others."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as schema

    try:
        there = text_format.Parse(path.read_text(), schema.ModelConfig())
    except text_format.ParseError as error:
        raise ExportError(f"{path} is no configuration of Triton ({error}): remove it") from error

    def seen_by_clients(one: Any) -> tuple[Any, ...]:
        said = {
            key: one.parameters[key].string_value
            for key in _SHARED_PARAMETERS
            if key in one.parameters
        }
        return list(one.input), list(one.output), one.max_batch_size, one.backend, said

    if seen_by_clients(config) != seen_by_clients(there):
        raise ExportError(
            f"{path} is of a model with other inputs, another output, backend or time steps: "
            "give another --name"
        )


_SHARED_PARAMETERS = ("ifrnet.io", "ifrnet.divisor", "ifrnet.time_steps", "ifrnet.flow_scale")
"""What versions of one model have in common, besides what they take and give."""


@contextmanager
def _staged(repository: Path) -> Iterator[Path]:
    """A folder on the same disk, beside the repository: a server may be looking into it."""
    parent = repository.resolve().parent
    with tempfile.TemporaryDirectory(
        prefix=f".{repository.name}.{os.getpid()}.", suffix=".partial", dir=parent
    ) as stage:
        yield Path(stage)
