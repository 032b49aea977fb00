"""What a Ray cluster gains and costs: two workers against one, cutting and joining, a lost worker.

    python -m bench.cluster --clip in.mp4 --model model.onnx --segment-seconds 2

All on this machine, each worker with processors of its own. For the gain to mean anything the clip
needs many more segments than workers, of equal length.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from bench.environment import MeasurementError, check_writable, write_evidence
from runtime import Interpolator, interpolate_video
from runtime.cli import command_parser, run_command
from runtime.machine import available_cpus
from runtime.manifest import file_sha256

_ROUNDS = 2
_EMPTY_JOBS = 1000


class _Measured(NamedTuple):
    """One run on the cluster.

    Attributes:
        seconds: From the first step that ended, when a worker is there, to the last.
        steps: Seconds of each kind of step on the workers, together.
        segments: Parts that were rendered.
        frames: Frames read and written.
        retries: Steps done again.
    """

    seconds: float
    steps: dict[str, float]
    segments: int
    frames: tuple[int, int]
    retries: int

    @property
    def segment_seconds(self) -> float:
        """That a segment takes a worker."""
        return self.steps["render"] / self.segments


def measure(
    clip: Path,
    model: Path,
    *,
    segment_seconds: Fraction,
    threads: int = 1,
    rounds: int = _ROUNDS,
    said: Callable[[str], object] = print,
) -> dict[str, Any]:
    """One run in this process, then one worker, two workers, and two of which one is killed.

    Args:
        clip: A video.
        model: An artefact for processors.
        segment_seconds: That a segment lasts at least.
        threads: Processors of a worker, and of the run in this process.
        rounds: How often all of it is done; medians count.
        said: Told about each run.

    Returns:
        "seconds" of each kind of run and round; "speed_up" of two workers over one; "overhead": by
        how much the steps of one worker together take longer than the run in this process, as a
        share of that; "steps": seconds of each of these steps; "lost_seconds" with a killed worker
        and "segment_seconds_rendering", what a segment takes; "jobs_per_second" that one driver
        gives out and takes back where they cost nothing.

    Raises:
        MeasurementError: If the machine is too small, or the clip gives too few segments.
        VideoError: If the clip cannot be used.
    """
    from runtime.cluster.pool import connected

    if available_cpus() < 2 * threads:
        raise MeasurementError(
            f"{available_cpus()} processors for two workers with {threads}: use a larger "
            "machine, or fewer --threads"
        )
    seconds: dict[str, list[float]] = {}
    runs: dict[str, list[_Measured]] = {"one": [], "two": [], "killed": []}
    with tempfile.TemporaryDirectory() as folder, connected("local"):
        for number in range(rounds):
            out = Path(folder) / f"{number}{clip.suffix}"
            alone = _in_this_process(clip, out, model, threads)
            seconds.setdefault("in this process", []).append(alone)
            said(f"in this process: {alone:.1f} s")
            for name, workers in (("one", 1), ("two", 2), ("killed", 2)):
                # In the middle of a segment: what a death costs on average.
                half = runs["one"][-1].segment_seconds / 2 if name == "killed" else None
                run = _on_cluster(clip, out, model, threads, segment_seconds, workers, half)
                runs[name].append(run)
                seconds.setdefault(name, []).append(run.seconds)
                said(f"{name}: {run.seconds:.1f} s, {run.segments} segments")
                if run.segments < 4:
                    raise MeasurementError(
                        f"{clip} gives {run.segments} segments: give a longer clip, key frames "
                        "nearer to each other, or fewer --segment-seconds"
                    )
        jobs_per_second = _jobs_per_second(threads)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    one = runs["one"][-1]
    worked = statistics.median(sum(run.steps.values()) for run in runs["one"])
    return {
        "seconds": {name: [round(s, 3) for s in values] for name, values in seconds.items()},
        "speed_up": median["one"] / median["two"],
        "overhead": worked / median["in this process"] - 1,
        "steps": one.steps,
        "segments": one.segments,
        "frames_in": one.frames[0],
        "frames_out": one.frames[1],
        "segment_seconds_rendering": one.segment_seconds,
        "lost_seconds": median["killed"] - median["two"],
        "retries": [run.retries for run in runs["killed"]],
        "jobs_per_second": jobs_per_second,
    }


def _in_this_process(clip: Path, out: Path, model: Path, threads: int) -> float:
    with Interpolator.open(model, threads=threads) as vfi:
        started = time.perf_counter()
        interpolate_video(clip, out, model=vfi)
        return time.perf_counter() - started


def _on_cluster(
    clip: Path,
    out: Path,
    model: Path,
    threads: int,
    segment_seconds: Fraction,
    workers: int,
    kill_after: float | None,
) -> _Measured:
    """One run; with `kill_after` a worker is killed so many seconds after a third is rendered."""
    from runtime.cluster.pool import Share
    from runtime.cluster.videos import interpolate_many
    from runtime.cluster.worker import ModelChoice

    begun: list[float] = []
    killers: list[threading.Timer] = []

    def seen(done: int, known: int) -> None:
        begun.append(time.perf_counter())
        if kill_after is not None and not killers and known and done >= known // 3:
            killers.append(
                threading.Timer(kill_after, lambda: os.kill(_one_worker(), signal.SIGKILL))
            )
            killers[0].start()

    out.unlink(missing_ok=True)
    report = interpolate_many(
        [(clip, out)],
        ModelChoice(model.absolute(), file_sha256(model), threads=threads),
        share=Share(cpus=threads),
        workers=workers,
        segment_seconds=segment_seconds,
        progress=seen,
    )
    for killer in killers:
        killer.join()
    (video,) = report.videos
    if video.error is not None:
        raise MeasurementError(f"{clip} could not be made on the cluster: {video.error}")
    return _Measured(
        begun[-1] - begun[0],
        video.worker_seconds,
        video.segments,
        (video.frames_in, video.frames_out),
        report.retries,
    )


class Nothing:
    """A worker whose jobs cost nothing."""

    def ready(self) -> dict[str, Any]:
        """See `runtime.cluster.pool.Pool`."""
        return {}

    def nothing(self) -> None:
        """A job."""


def _jobs_per_second(threads: int) -> float:
    from runtime.cluster.pool import Job, Pool, Share

    with Pool(Nothing, (), share=Share(cpus=threads), workers=2) as pool:
        for number in range(_EMPTY_JOBS):
            pool.add(Job("nothing", {}, number))
        begun = 0.0
        for _ in pool.results():
            begun = begun or time.perf_counter()  # With the first a worker is there.
        return (_EMPTY_JOBS - 1) / (time.perf_counter() - begun)


def _one_worker() -> int:
    """The process of a worker on this machine."""
    for folder in Path("/proc").iterdir():
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::_Host"):
                return int(folder.name)
        except OSError:
            continue
    raise MeasurementError("no worker is found among the processes: run this on Linux")


def _size(clip: Path) -> list[int]:
    from runtime.video.reading.source import open_source

    with open_source(clip) as source:
        return [source.info.height, source.info.width]


def _measure(args: argparse.Namespace) -> None:
    if args.json is not None:
        check_writable(args.json, "--json")
    found = measure(
        args.clip,
        args.model,
        segment_seconds=args.segment_seconds,
        threads=args.threads,
        rounds=args.rounds,
    )
    print(
        f"two workers over one: {found['speed_up']:.2f}x\n"
        f"cutting and joining: {found['overhead']:+.1%} of the time in one process\n"
        f"a killed worker: {found['lost_seconds']:.1f} s lost, where a segment takes "
        f"{found['segment_seconds_rendering']:.1f} s\n"
        f"a driver: {found['jobs_per_second']:.0f} jobs a second"
    )
    if args.json is not None:
        record = {
            "kind": "cluster",
            "format_version": 1,
            "clip": args.clip.name,
            "model": args.model.name,
            "model_sha256": file_sha256(args.model),
            "size": _size(args.clip),
            "segment_seconds": float(args.segment_seconds),
            "threads": args.threads,
            **found,
        }
        write_evidence(args.json, record)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = command_parser(
        "python -m bench.cluster",
        "Measures what a Ray cluster on this machine gains and costs.",
        "python -m bench.cluster --clip in.mp4 --model model.onnx --segment-seconds 2 "
        "--json cluster.json",
    )
    parser.add_argument("--clip", type=Path, required=True, metavar="FILE")
    parser.add_argument("--model", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--segment-seconds",
        type=Fraction,
        default=Fraction(10),
        metavar="S",
        help="that a segment lasts at least (default 10)",
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of a worker (default 1)"
    )
    parser.add_argument("--rounds", type=int, default=_ROUNDS, metavar="N", help="default 2")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence")
    run_command(parser, _measure, extra="cluster,video", argv=argv)


if __name__ == "__main__":
    main()
