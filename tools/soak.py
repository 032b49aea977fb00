"""Repeats inferences, openings and videos many times, and checks that nothing grows.

make soak
python tools/soak.py --inferences 1000 --openings 50 --videos 5
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.frame import VideoFrame

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.environment import MeasurementError, check_writable, write_evidence
from runtime import Interpolator, VideoOptions, interpolate_video
from runtime.backends.base import BackendName
from runtime.cli.command import command_parser, run_command
from runtime.files import SHIPPED_MODELS

FORMAT_VERSION = 1
BACKENDS: tuple[BackendName, ...] = ("onnxruntime", "openvino")
MOST_MIB = 32.0
"""Growth of the resident memory from the second tenth of a step to the last that is accepted."""

_SIZES = ((32, 48), (48, 80))
_THREADS = 8


class Usage(NamedTuple):
    """What this process uses."""

    mib: float
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Step:
    """The result of one step.

    Attributes:
        name: What was repeated.
        count: How often.
        seconds: Time that it took.
        start_mib: Median of the resident memory in the second tenth, in MiB.
        growth_mib: Median of the last tenth minus `start_mib`.
        descriptors: Growth of the number of open files.
        threads: Growth of the number of threads.
        different: Number of results that were not bit for bit those of the first run.
    """

    name: str
    count: int
    seconds: float
    start_mib: float
    growth_mib: float
    descriptors: int
    threads: int
    different: int

    @property
    def is_flat(self) -> bool:
        """Whether nothing grew, and all results were the same."""
        grew = self.growth_mib > MOST_MIB or self.descriptors > 0 or self.threads > 0
        return not grew and self.different == 0


def usage() -> Usage:
    """The resident memory, the open files and the threads of this process; Linux only."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Usage(
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        len(os.listdir("/proc/self/task")),  # noqa: PTH208
    )


def repeated(name: str, count: int, once: Callable[[int], bool]) -> Step:
    """Repeats a call, and measures often what the process uses.

    Args:
        name: Name of the step.
        count: Number of calls, at least 10.
        once: Called with the number of the call; returns whether its result was right.
    """
    every = max(1, count // 100)
    used: list[Usage] = []
    different, began = 0, time.monotonic()
    for number in range(count):
        different += not once(number)
        if number % every == 0:
            gc.collect()
            used.append(usage())
    used.append(usage())
    seconds = time.monotonic() - began
    tenth = max(1, len(used) // 10)
    first, last = used[tenth : 2 * tenth], used[-tenth:]
    start = median(one.mib for one in first)
    return Step(
        name,
        count,
        round(seconds, 1),
        round(start, 1),
        round(median(one.mib for one in last) - start, 1),
        last[-1].descriptors - max(one.descriptors for one in first),
        last[-1].threads - max(one.threads for one in first),
        different,
    )


def steps(
    folder: Path, *, inferences: int, openings: int, videos: int, calls: int
) -> Iterator[Step]:
    """Runs all steps; yields the result of each.

    Args:
        folder: An empty folder for caches and videos.
        inferences: Number of inferences with each backend.
        openings: Number of openings with each backend.
        videos: Number of videos.
        calls: Number of inferences in each of eight threads.
    """
    rng = np.random.default_rng(0)
    pairs = [rng.integers(0, 256, (2, *size, 3), np.uint8) for size in _SIZES]
    for backend in BACKENDS:
        model = SHIPPED_MODELS / f"demo_{backend}.onnx"
        options: dict[str, Any] = {"backend": backend, "threads": 1}
        if backend == "openvino":
            options["cache"] = folder / "cache"
        with Interpolator.open(model, **options) as vfi:
            expected = [vfi.interpolate(*pair) for pair in pairs]

            def right(number: int, vfi: Any = vfi, expected: Any = expected) -> bool:
                kind = number % len(pairs)
                return np.array_equal(vfi.interpolate(*pairs[kind]), expected[kind])

            yield repeated(f"{backend}: inferences", inferences, right)
            with ThreadPoolExecutor(_THREADS) as pool:
                all_started = threading.Barrier(_THREADS)  # Otherwise threads start when needed.
                list(pool.map(lambda _, started=all_started: started.wait(), range(_THREADS)))

                def together(_: int, right: Any = right, pool: Any = pool) -> bool:
                    return all(pool.map(right, range(_THREADS)))

                yield repeated(f"{backend}: inferences in {_THREADS} threads", calls, together)

        def opened(number: int, model: Any = model, options: Any = options,
                   expected: Any = expected) -> bool:  # fmt: skip
            kind = number % len(pairs)
            with Interpolator.open(model, **options) as vfi:
                return np.array_equal(vfi.interpolate(*pairs[kind]), expected[kind])

        yield repeated(f"{backend}: openings", openings, opened)
    yield repeated("videos", videos, _videos(folder))


def _videos(folder: Path) -> Callable[[int], bool]:
    """A function that interpolates a video, and compares its bytes with those of the first one."""
    source, out = folder / "in.mkv", folder / "out.mkv"
    rng = np.random.default_rng(0)
    with av.open(str(source), "w") as written:
        stream: Any = written.add_stream("libx264", rate=25)
        stream.height, stream.width = 64, 96
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            picture = rng.integers(0, 256, (64, 96, 3), np.uint8)
            frame = VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            written.mux(stream.encode(frame))
        written.mux(stream.encode(None))
    frames: list[list[bytes]] = []

    def once(_: int) -> bool:
        options = VideoOptions(codec="ffv1", cuts=None, overwrite=True)
        interpolate_video(source, out, model="demo", options=options, threads=1)
        with av.open(str(out)) as read:
            frames.append([bytes(packet) for packet in read.demux(video=0)])
        del frames[2:]
        return frames[-1] == frames[0]

    return once


def _soak(args: argparse.Namespace) -> int:
    if not Path("/proc/self/statm").exists():
        raise MeasurementError("this system has no /proc, from which memory is read: use Linux")
    if args.json is not None:
        check_writable(args.json, "--json")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for step in steps(
            Path(folder),
            inferences=args.inferences,
            openings=args.openings,
            videos=args.videos,
            calls=max(10, args.inferences // 10),
        ):
            results.append(step)
            verdict = "flat" if step.is_flat else "GROWS"
            print(
                f"{verdict}: {step.count} {step.name} in {step.seconds} s: {step.start_mib} MiB "
                f"{step.growth_mib:+} MiB, {step.descriptors:+} files, {step.threads:+} threads, "
                f"{step.different} results differ",
                flush=True,
            )
    if args.json is not None:
        write_evidence(
            args.json,
            {
                "kind": "soak",
                "format_version": FORMAT_VERSION,
                "most_mib": MOST_MIB,
                "steps": [asdict(step) for step in results],
            },
        )
    return 0 if all(step.is_flat for step in results) else 1


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = command_parser(
        "python tools/soak.py", (__doc__ or "").partition("\n")[0], "%(prog)s --json soak.json"
    )
    parser.add_argument("--inferences", type=int, default=10_000, help="with each backend")
    parser.add_argument("--openings", type=int, default=1000, help="with each backend")
    parser.add_argument("--videos", type=int, default=50, help="videos in this process")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    return parser


if __name__ == "__main__":
    run_command(make_parser(), _soak, extra="bench,cpu,openvino,video")
