"""The methods that are compared: this runtime, PyTorch, blending, and FFmpeg's minterpolate."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from bench.alternatives.clips import HalvedClip, blend
from bench.environment import MeasurementError
from bench.runs.case import Case
from runtime import Interpolator
from runtime.backends.base import BackendName, PrecisionChoice
from runtime.video.colour import ColourConverter

Images = list[NDArray[np.uint8]]


class Method(Protocol):
    """A method that interpolates the middle frame of each pair of a clip.

    Attributes:
        name: Name for reports.
        how: Versions and options, for the evidence.
    """

    name: str
    how: dict[str, Any]

    def run(self) -> tuple[float, Images]:
        """Interpolates the whole clip.

        Returns:
            Seconds from frames in memory to frames in memory, and the new frames, uint8 RGB.
        """
        ...

    def close(self) -> None:
        """Releases models, processes and files."""
        ...


class Runtime:
    """An opened `Interpolator`, of an artefact or of PyTorch.

    Args:
        vfi: The interpolator, which `close` closes.
        clip: The clip.
        name: Name for reports.
        how: Versions and options.
    """

    def __init__(self, vfi: Interpolator, clip: HalvedClip, name: str, how: dict[str, Any]) -> None:
        self.name, self.how = name, how
        self._vfi, self._clip = vfi, clip

    def run(self) -> tuple[float, Images]:
        """See `Method`."""
        started = time.perf_counter()
        frames: Images = list(self._vfi.stream(self._clip.given))
        return time.perf_counter() - started, frames[1::2]

    def close(self) -> None:
        """See `Method`."""
        self._vfi.close()


class Blending:
    """The mean of the two frames: the lowest quality that an interpolation should have.

    Args:
        clip: The clip.
    """

    def __init__(self, clip: HalvedClip) -> None:
        self.name, self.how = "mean of the two frames", {"numpy": np.__version__}
        self._clip = clip

    def run(self) -> tuple[float, Images]:
        """See `Method`."""
        given = self._clip.given
        started = time.perf_counter()
        means = list(itertools.starmap(blend, itertools.pairwise(given)))
        return time.perf_counter() - started, means

    def close(self) -> None:
        """See `Method`."""


class Minterpolate:
    """FFmpeg's filter for motion-compensated interpolation, on the frames as they were decoded.

    Args:
        clip: The clip.
        options: Options of the filter besides `fps`, such as "mi_mode=mci:mc_mode=aobmc"; "" for
            its defaults.
    """

    def __init__(self, clip: HalvedClip, options: str) -> None:
        self.name = f"minterpolate {options or 'with its defaults'}"
        self.how = {
            "libavfilter": ".".join(map(str, av.library_versions["libavfilter"])),
            "options": options,
        }
        self._clip, self._options = clip, options

    def run(self) -> tuple[float, Images]:
        """See `Method`.

        Raises:
            MeasurementError: If the filter leaves out the middle frame of a pair.
        """
        clip, step = self._clip, 1 / self._clip.rate
        new: dict[Fraction, VideoFrame] = {}
        started = time.perf_counter()
        graph = self._graph()
        # The filter looks ahead: without frames after the last one it leaves out the last pair.
        last = clip.decoded[-1]
        for number, frame in enumerate([*clip.decoded, last, last, None]):
            if frame is not None:
                frame.pts, frame.time_base = number, step
            graph.push(frame)
            with contextlib.suppress(BlockingIOError, EOFError):
                while True:
                    pulled = graph.pull()
                    new[pulled.pts * pulled.time_base] = pulled
        seconds = time.perf_counter() - started
        converter = ColourConverter()
        wanted = [(number + Fraction(1, 2)) * step for number in range(len(clip.true))]
        if missing := [moment for moment in wanted if moment not in new]:
            raise MeasurementError(
                f"minterpolate left out {len(missing)} of {len(wanted)} frames: give other options"
            )
        return seconds, [converter.rgb_from_frame(new[moment], 8) for moment in wanted]

    def close(self) -> None:
        """See `Method`."""

    def _graph(self) -> Any:
        clip = self._clip
        graph = av.filter.Graph()
        first = clip.decoded[0]
        source = graph.add_buffer(
            width=first.width, height=first.height, format=first.format, time_base=1 / clip.rate
        )
        options = f"fps={2 * clip.rate}" + (f":{self._options}" if self._options else "")
        try:
            middle = graph.add("minterpolate", options)
        except (ValueError, av.error.FFmpegError) as error:
            raise MeasurementError(
                f"minterpolate does not accept {self._options!r} ({error}): give options that "
                "FFmpeg documents for this filter"
            ) from error
        sink = graph.add("buffersink")
        source.link_to(middle)
        middle.link_to(sink)
        graph.configure()
        return graph


def opened_models(
    models: Sequence[str],
    clip: HalvedClip,
    *,
    backends: Sequence[BackendName],
    precisions: Sequence[PrecisionChoice],
    threads: int,
) -> Iterator[Method]:
    """Opens each model in each backend and precision; ONNX Runtime has one precision.

    Raises:
        ModelError: If a file cannot be opened.
        BackendError: If a backend is not available.
    """
    names: set[str] = set()
    for model in models:
        for backend in backends:
            one: Sequence[PrecisionChoice] = ("auto",)
            for precision in one if backend == "onnxruntime" else precisions:
                vfi = Interpolator.open(
                    model, backend=backend, precision=precision, threads=threads, device="cpu"
                )
                name = f"{Path(model).name} on {vfi.backend}"
                if name in names:
                    vfi.close()
                    continue
                names.add(name)
                how = {"model": Path(model).name, "backend": vfi.backend, "notes": [*vfi.notes]}
                yield Runtime(vfi, clip, name, how)


def opened_pytorch(
    names: Sequence[str], weights: str, clip: HalvedClip, threads: int
) -> Iterator[Method]:
    """Opens each formulation in PyTorch, as `bench.latency --compare` does on a CPU.

    Raises:
        MeasurementError: If a name is unknown, or the checkpoint cannot be loaded.
    """
    if not names:
        return
    from bench.runs.pytorch import pytorch_runs  # Needs PyTorch.

    case = Case(None, clip.size, 2, None)
    for run in pytorch_runs(names, weights, threads=threads):
        yield Runtime(Interpolator(run.open(case)), clip, run.name, {"pytorch": run.form.how})
