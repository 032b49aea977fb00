"""The worker on a machine of a cluster: opens the model once and runs the steps of videos.

Ray transports no images: workers read sources and write compressed segments at paths that all
machines share.
"""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.backends.base import BackendName, PrecisionChoice
from runtime.errors import ModelError, VideoError
from runtime.files import distrust, make_private_folder
from runtime.interpolator import Interpolator
from runtime.machine import cache_folder
from runtime.manifest import file_sha256
from runtime.video.segments.plan import Scan
from runtime.video.segments.steps import Steps


@dataclass(frozen=True)
class ModelChoice:
    """The model that the workers open.

    Attributes:
        path: The model file, at the same path on every machine.
        sha256: Hash of that file, hexadecimal.
        backend: "onnxruntime", "openvino" or "tensorrt"; None for the default of
            `Interpolator.open`.
        device: "cpu", "cuda" or "cuda:N"; None for the default of `Interpolator.open`.
        threads: Number of CPUs for each worker; None for all.
        precision: As for `Interpolator.open`; with "auto", workers on different CPUs may compute in
            different precisions.
        onnx: ONNX file from which a worker builds an engine if that at `path` does not fit its GPU;
            None to fail.
        build: Further options of `export.build_engine` for that build, as on a command line.
    """

    path: Path
    sha256: str
    backend: BackendName | None = None
    device: str | None = None
    threads: int | None = None
    precision: PrecisionChoice = "auto"
    onnx: Path | None = None
    build: str = ""


def open_on_worker(choice: ModelChoice) -> Interpolator:
    """Opens the model on this machine; if the engine does not fit the GPU, builds one from ONNX.

    Raises:
        ModelError: If the file is missing, its hash differs, or it does not fit this machine.
        BackendError: If the backend is not available, or the build fails.
    """
    where = socket.gethostname()
    if not choice.path.is_file():
        raise ModelError(
            f"{choice.path} does not exist on {where}: put the model where all workers see it"
        )
    if file_sha256(choice.path) != choice.sha256:
        raise ModelError(f"{choice.path} is another file on {where}: give all workers the same")
    opened = {
        "backend": choice.backend,
        "device": choice.device,
        "threads": choice.threads,
        "precision": choice.precision,
    }
    try:
        return Interpolator.open(choice.path, **opened)  # type: ignore[arg-type]
    except ModelError:
        if choice.onnx is None or choice.path.suffix == ".onnx":
            raise
    return Interpolator.open(_built_here(choice.onnx, choice.build), **opened)  # type: ignore[arg-type]


def _built_here(onnx: Path, options: str) -> Path:
    """Builds an engine for this machine's GPU; reuses one that fits.

    Args:
        onnx: The ONNX file.
        options: Further options of `export.build_engine`, as on a command line.

    Raises:
        ModelError: If no engine can be built.
    """
    from filelock import FileLock

    folder = cache_folder() / "engines"
    make_private_folder(folder)
    if why := distrust(folder):
        raise ModelError(
            f"engines cannot be kept on {socket.gethostname()}, {why}: make it yours alone "
            "(chmod 700), or set XDG_CACHE_HOME"
        )
    engine = folder / f"{onnx.stem}-{file_sha256(onnx)[:16]}.engine"
    command = [
        sys.executable, "-m", "export.build_engine", "--onnx", str(onnx), "--backend", "tensorrt",
        "--output", str(engine), *shlex.split(options),
    ]  # fmt: skip
    with FileLock(f"{engine}.lock"):  # One build at a time for all workers on a machine.
        built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        output = (built.stderr or built.stdout).strip().splitlines()
        raise ModelError(
            f"no engine could be built on {socket.gethostname()} "
            f"({output[-1] if output else built.returncode}): run {shlex.join(command)} there"
        )
    return engine


class VideoWorker(Steps):
    """Runs the steps of `runtime.video.segments` with a model that it opens once.

    `Pool` calls the methods by name; the names are also those of the steps in reports.
    """

    def __init__(self, choice: ModelChoice) -> None:
        super().__init__(open_on_worker(choice))

    def ready(self) -> dict[str, Any]:
        """The backend of this worker, and the time steps that its weights were trained for."""
        return {"backend": self.vfi.backend, "time_steps": self.vfi.info.time_steps}

    def scan(self, **arguments: Any) -> Scan:
        """Scans a video, with the arguments of `runtime.video.segments.plan.scan`.

        Raises:
            VideoError: If the file does not exist on this machine, or cannot be read.
        """
        path = arguments["path"]
        if not path.is_file():
            raise VideoError(
                f"{path} does not exist on {socket.gethostname()}: put the videos where all "
                "workers see them"
            )
        return super().scan(**arguments)
