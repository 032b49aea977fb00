"""What runs on the machines of a cluster: a model that was opened once, and the steps of videos.

Pictures never cross the network: a worker reads the source and writes compressed segments where
all machines see the same paths.
"""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.backends.base import BackendName
from runtime.errors import ModelError, VideoError
from runtime.interpolator import Interpolator
from runtime.machine import cache_folder
from runtime.manifest import file_sha256
from runtime.video.interpolate import interpolate_video
from runtime.video.options import VideoReport
from runtime.video.segments.join import join
from runtime.video.segments.plan import Look, Scan, look, scan
from runtime.video.segments.render import Rendered, render


@dataclass(frozen=True)
class ModelChoice:
    """What the workers open.

    Attributes:
        path: Of the artefact; every machine sees it.
        sha256: Of that file.
        backend: See `Interpolator.open`.
        device: See there.
        threads: See there.
        onnx: What an engine is built from on a worker whose GPU it does not fit; None: refused.
        build: More options for `export.build_engine` then.
    """

    path: Path
    sha256: str
    backend: BackendName | None = None
    device: str | None = None
    threads: int | None = None
    onnx: Path | None = None
    build: str = ""


def open_on_worker(choice: ModelChoice) -> Interpolator:
    """Opens the model on this machine; where an engine does not fit its GPU, builds one, once.

    Raises:
        ModelError: If the file is not there, is another than the driver's, or does not fit.
        BackendError: If the backend is not available, or the build fails.
    """
    where = socket.gethostname()
    if not choice.path.is_file():
        raise ModelError(
            f"{choice.path} is not there on {where}: put the model where all workers see it"
        )
    if file_sha256(choice.path) != choice.sha256:
        raise ModelError(f"{choice.path} is another file on {where}: give all workers the same")
    opened = {"backend": choice.backend, "device": choice.device, "threads": choice.threads}
    try:
        return Interpolator.open(choice.path, **opened)  # type: ignore[arg-type]
    except ModelError:
        if choice.onnx is None or choice.path.suffix == ".onnx":
            raise
    return Interpolator.open(_built_here(choice.onnx, choice.build), **opened)  # type: ignore[arg-type]


def _built_here(onnx: Path, options: str) -> Path:
    """An engine for this machine's GPU; `build_engine` builds only where there is none that fits.

    Raises:
        ModelError: If it cannot be built.
    """
    from filelock import FileLock

    folder = cache_folder() / "engines"
    folder.mkdir(parents=True, exist_ok=True)
    engine = folder / f"{onnx.stem}-{file_sha256(onnx)[:16]}.engine"
    command = [
        sys.executable, "-m", "export.build_engine", "--onnx", str(onnx), "--backend", "tensorrt",
        "--output", str(engine), *shlex.split(options),
    ]  # fmt: skip
    with FileLock(f"{engine}.lock"):  # One build on a machine, however many workers it has.
        built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        said = (built.stderr or built.stdout).strip().splitlines()
        raise ModelError(
            f"no engine could be built on {socket.gethostname()} "
            f"({said[-1] if said else built.returncode}): run {shlex.join(command)} there"
        )
    return engine


class VideoWorker:
    """Does the steps of `runtime.video.segments` with a model that was opened once."""

    def __init__(self, choice: ModelChoice) -> None:
        self._vfi = open_on_worker(choice)

    def ready(self) -> dict[str, Any]:
        """What this worker is."""
        return {"backend": self._vfi.backend, "time_steps": self._vfi.info.time_steps}

    def scan(self, **what: Any) -> Scan:
        """See `runtime.video.segments.plan.scan`."""
        if not what["path"].is_file():
            raise VideoError(
                f"{what['path']} is not there on {socket.gethostname()}: put the videos where all "
                "workers see them"
            )
        return scan(**what)

    def look(self, **what: Any) -> Look:
        """See `runtime.video.segments.plan.look`."""
        return look(**what)

    def render(self, **what: Any) -> Rendered:
        """See `runtime.video.segments.render.render`."""
        return render(self._vfi, **what)

    def join(self, **what: Any) -> list[str]:
        """See `runtime.video.segments.join.join`."""
        return join(**what)

    def whole(self, **what: Any) -> VideoReport:
        """A video that cannot be cut; see `interpolate_video`."""
        return interpolate_video(model=self._vfi, **what)
