"""Times the video pipeline and its stages, with a model that takes no time.

It also measures the peak memory of the pipeline, and the difference between new and original
frames of a still scene.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from bench.harness.cold_start import peak_host_bytes
from runtime import Interpolator, interpolate_video
from runtime.backends.base import HostBackend
from runtime.machine import available_cpus
from runtime.model_info import ModelInfo
from runtime.video.options import VideoOptions
from runtime.video.planes import plane_views
from runtime.video.reading.info import DecodedFrame
from runtime.video.reading.source import open_source
from runtime.video.writing.sink import open_sink

_ROUNDS = 3
_FACTOR = 2
_SLOWEST = 1.5
"""Time of the model that is made the slowest stage, relative to that of the pipeline."""

_STILL = {"yuv420p": "frames", "yuv422p": "frames", "yuv444p": "frames", "yuv420p10le": "float"}
"""Pixel formats in which new and original frames are compared, with the input of the model."""


class PassThrough(HostBackend):
    """A model that returns the first frame after sleeping for `seconds`, without using the CPU."""

    name = "pass-through"

    def __init__(self, io: Any = "frames", seconds: float = 0.0) -> None:
        self._seconds = seconds
        self.info = ModelInfo(
            variant="none", weights_sha256="", precision="fp32", io=io, divisor=16,
            flow_scale=1.0, time_steps="arbitrary", steps_per_call=1, pairs_per_call=1,
            height=None, width=None, warp="gridsample", tuned_for="any", tool_version="0",
        )  # fmt: skip

    def run(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[Any]:
        """Returns a copy of `img0`."""
        del img1, timestep
        if self._seconds:
            time.sleep(self._seconds)
        return img0.copy()

    def close(self) -> None:
        """Does nothing."""


def decode(clip: Path) -> list[DecodedFrame]:
    """Decodes all frames of a clip into memory."""
    with open_source(clip) as source:
        return [item for item in source if isinstance(item, DecodedFrame)]


def encode(clip: Path, frames: Sequence[DecodedFrame], out: Path) -> None:
    """Writes each frame twice without conversion, in the pixel format of `clip`."""
    with open_source(clip) as source:
        info = source.info
    with open_sink(out, like=info, rate=_FACTOR * info.rate, audio="none", overwrite=True) as sink:
        for number in range(_FACTOR * len(frames)):
            sink.write(frames[number // _FACTOR].frame, number / (_FACTOR * info.rate))


def measure(clip: Path) -> dict[str, Any]:
    """Times decoding, encoding and the whole pipeline in interleaved rounds.

    Args:
        clip: A video whose frames all fit into memory.

    Returns:
        "seconds" of each stage and round, and "cpu_seconds", the sum over its threads; "cpus", the
        mean number of CPUs that each stage keeps busy, and "cpus_available"; "frames", the number
        of frames written; "frames_per_second" of each stage, from its median; "share", the speed of
        the pipeline divided by that of its slower stage alone; "idle", the share of time for which
        a model that is the slowest stage waits for frames, and "model_seconds", the time of that
        model for a pair; "clip", "size" and "pixel_format".

    Raises:
        VideoError: If the clip cannot be read, or the output cannot be written.
    """
    frames = decode(clip)
    again = VideoOptions(overwrite=True)
    with tempfile.TemporaryDirectory() as folder, Interpolator(PassThrough()) as vfi:
        out = Path(folder) / f"out{clip.suffix}"
        stages: dict[str, Callable[[], object]] = {
            "decode": lambda: decode(clip),
            "encode": lambda: encode(clip, frames, out),
            "pipeline": lambda: interpolate_video(
                clip, out, model=vfi, factor=_FACTOR, options=again
            ),
        }
        seconds: dict[str, list[float]] = {name: [] for name in stages}
        cpu_seconds: dict[str, list[float]] = {name: [] for name in stages}
        for number in range(1 + _ROUNDS):
            for name, stage in stages.items():
                started, worked = time.perf_counter(), time.process_time()
                stage()
                if number:  # The first round fills caches.
                    seconds[name].append(time.perf_counter() - started)
                    cpu_seconds[name].append(time.process_time() - worked)
        median = {name: statistics.median(rounds) for name, rounds in seconds.items()}
        slow = _SLOWEST * median["pipeline"] / len(frames)
        with Interpolator(PassThrough(seconds=slow)) as slowest:
            idle = interpolate_video(clip, out, model=slowest, factor=_FACTOR, options=again).idle
    written = _FACTOR * len(frames)
    first = frames[0].frame
    return {
        "clip": clip.name,
        "size": f"{first.height}x{first.width}",
        "pixel_format": first.format.name,
        "frames": written,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "cpus": {name: sum(cpu_seconds[name]) / sum(rounds) for name, rounds in seconds.items()},
        "cpus_available": available_cpus(),
        "frames_per_second": {name: written / value for name, value in median.items()},
        "share": max(median["decode"], median["encode"]) / median["pipeline"],
        "model_seconds": slow,
        "idle": idle,
    }


def write_clip(clip: Path, size: tuple[int, int] | None, count: int, path: Path) -> None:
    """Writes the first `count` frames of a clip; a shorter clip is repeated.

    Args:
        clip: The video.
        size: (height, width) to scale to; None: the size of the video.
        count: Number of frames to write.
        path: Path of the new clip.
    """
    with open_source(clip) as source:
        info = source.info
    height, width = size or (info.height, info.width)
    with av.open(f"file:{path}", "w") as out:
        stream: Any = out.add_stream("libx264", rate=info.rate, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        again = chain.from_iterable(_frames(clip) for _ in repeat(None))
        for number, frame in enumerate(islice(again, count)):
            scaled = frame.reformat(width=width, height=height, format="yuv420p")
            scaled.pts, scaled.time_base = number, 1 / info.rate
            out.mux(stream.encode(scaled))
        out.mux(stream.encode(None))


def _frames(clip: Path) -> Iterator[VideoFrame]:
    with open_source(clip) as source:
        yield from (item.frame for item in source if isinstance(item, DecodedFrame))


def peak_memory(clip: Path) -> int | None:
    """Peak resident memory of a fresh process that doubles the frame rate of a clip.

    Returns:
        The number of bytes; None where the system does not report it.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (clip,))


def _peak_memory(clip: Path) -> int | None:
    with tempfile.TemporaryDirectory() as folder, Interpolator(PassThrough()) as vfi:
        interpolate_video(clip, Path(folder) / "out.mp4", model=vfi, factor=_FACTOR)
    return peak_host_bytes()


def flicker(clip: Path) -> dict[str, float]:
    """Measures the difference between new and original frames of a still scene.

    The first frame of the clip is repeated three times in each of several pixel formats, and goes
    through the pipeline with a lossless codec.

    Returns:
        The largest mean difference of a plane in 8-bit levels, by pixel format.
    """
    frame = next(_frames(clip))
    differences = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, io in _STILL.items():
            source, out = Path(folder) / f"{name}.mkv", Path(folder) / f"{name}.out.mkv"
            _write_still(frame.reformat(format=name), source)
            with Interpolator(PassThrough(io)) as vfi:
                options = VideoOptions(codec="ffv1")
                interpolate_video(source, out, model=vfi, factor=_FACTOR, options=options)
            real, new = (_planes_in(written) for written in islice(_frames(out), 2))
            levels = 4 if name.endswith("10le") else 1
            means = [abs((b - a).mean()) / levels for a, b in zip(real, new, strict=True)]
            differences[name] = float(max(means))
    return differences


def _write_still(frame: VideoFrame, path: Path) -> None:
    with av.open(f"file:{path}", "w") as out:
        stream: Any = out.add_stream("ffv1", rate=25)
        stream.width, stream.height = frame.width, frame.height
        stream.pix_fmt = frame.format.name
        for number in range(3):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def _planes_in(frame: VideoFrame) -> list[NDArray[np.float64]]:
    return [plane.astype(np.float64) for plane in plane_views(frame)]
