"""Measures speed-up and overhead of a Ray cluster: two workers, segments, a killed worker.

    python -m bench.cluster --clip in.mp4 --model model.onnx --segment-seconds 2

The cluster runs on this machine, and each worker has CPUs of its own. The speed-up is meaningful
only for a clip with many more segments than workers, all of equal length.
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
from runtime import Interpolator
from runtime.cli.arguments import parse_model_file
from runtime.cli.command import command_parser, run_command
from runtime.machine import available_cpus
from runtime.manifest import file_sha256
from runtime.video.arguments import parse_time

_PROG = "python -m bench.cluster"
_ROUNDS = 2
_EMPTY_JOBS = 1000
_MIN_SEGMENTS = 4
_LABELS = {"one": "one worker", "two": "two workers", "killed": "two workers, one of them killed"}
"""Names in the log of the kinds of runs on the cluster."""


class _Measured(NamedTuple):
    """One run on the cluster.

    Attributes:
        seconds: Time from the end of the first step, when workers have started, to that of the
            last.
        steps: Sum over the workers of the seconds of each kind of step.
        segments: Number of segments rendered.
        frames: Numbers of frames read and written.
        retries: Number of steps that were repeated.
    """

    seconds: float
    steps: dict[str, float]
    segments: int
    frames: tuple[int, int]
    retries: int

    @property
    def segment_seconds(self) -> float:
        """Mean time to render a segment."""
        return self.steps["render"] / self.segments


def measure(
    clip: Path,
    model: Path,
    *,
    segment_seconds: Fraction,
    threads: int = 1,
    rounds: int = _ROUNDS,
    log: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Times a run in this process, with one worker, with two, and with two of which one is killed.

    Args:
        clip: A video.
        model: An artefact for CPUs.
        segment_seconds: Minimum length of a segment.
        threads: CPU threads of each worker, and of the run in this process.
        rounds: Number of rounds of all four runs; figures are medians.
        log: Receives a line about each run.

    Returns:
        "seconds" of each kind of run and round; "speed_up", the time with one worker divided by
        that with two; "overhead", the extra time of all steps of one worker relative to the run in
        this process; "steps", the seconds of each of these steps; "segments", "frames_in" and
        "frames_out" of one run; "lost_seconds", the extra time with a killed worker, and its
        "retries"; "segment_seconds_rendering", the time to render a segment; "jobs_per_second",
        the number of empty jobs that one driver dispatches and collects in a second.

    Raises:
        MeasurementError: If the machine has too few CPUs, or the clip too few segments.
        VideoError: If the clip cannot be read.
    """
    from runtime.cluster.pool import connected

    if available_cpus() < 2 * threads:
        raise MeasurementError(
            f"this machine has {available_cpus()} CPUs and two workers need {2 * threads}: use a "
            "larger machine, or fewer --threads"
        )
    seconds: dict[str, list[float]] = {}
    runs: dict[str, list[_Measured]] = {"one": [], "two": [], "killed": []}
    with tempfile.TemporaryDirectory() as folder, connected("local"):
        for number in range(rounds):
            out = Path(folder) / f"{number}{clip.suffix}"
            alone = _in_this_process(clip, out, model, threads)
            seconds.setdefault("in this process", []).append(alone)
            log(f"in this process: {alone:.1f} s")
            for name, workers in (("one", 1), ("two", 2), ("killed", 2)):
                # In the middle of a segment, which is the average case.
                half = runs["one"][-1].segment_seconds / 2 if name == "killed" else None
                run = _on_cluster(clip, out, model, threads, segment_seconds, workers, half)
                runs[name].append(run)
                seconds.setdefault(name, []).append(run.seconds)
                log(f"{_LABELS[name]}: {run.seconds:.1f} s, {run.segments} segments")
                if run.segments < _MIN_SEGMENTS:
                    raise MeasurementError(
                        f"{clip} has {run.segments} segments instead of {_MIN_SEGMENTS} or more: "
                        "give a longer clip, one with more key frames, or lower --segment-seconds"
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
    from runtime import interpolate_video  # Needs PyAV.

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
    """One run; with `kill_after`, a worker is killed that long after a third of the segments."""
    from runtime.cluster.pool import Share
    from runtime.cluster.videos import interpolate_many
    from runtime.cluster.worker import ModelChoice

    step_times: list[float] = []
    killers: list[threading.Timer] = []

    def on_step(done: int, total: int) -> None:
        step_times.append(time.perf_counter())
        if kill_after is not None and not killers and total and done >= total // 3:
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
        progress=on_step,
    )
    for killer in killers:
        killer.join()
    (video,) = report.videos
    if video.error is not None:
        raise MeasurementError(
            f"the cluster could not render {clip} ({video.error}): correct the cause, or give "
            "another clip"
        )
    return _Measured(
        step_times[-1] - step_times[0],
        video.worker_seconds,
        video.segments,
        (video.frames_in, video.frames_out),
        report.retries,
    )


class EmptyWorker:
    """A worker whose jobs do nothing."""

    def ready(self) -> dict[str, Any]:
        """The properties that `runtime.cluster.pool.Pool` requests of a worker: none."""
        return {}

    def do_nothing(self) -> None:
        """A job that does nothing."""


def _jobs_per_second(threads: int) -> float:
    from runtime.cluster.pool import Pool, Share
    from runtime.video.segments.jobs import Job

    with Pool(EmptyWorker, (), share=Share(cpus=threads), workers=2) as pool:
        for number in range(_EMPTY_JOBS):
            pool.add(Job("do_nothing", {}, number))
        started = 0.0
        for _ in pool.results():
            # Workers have started when the first result arrives.
            started = started or time.perf_counter()
        return (_EMPTY_JOBS - 1) / (time.perf_counter() - started)


def _one_worker() -> int:
    """The process id of a worker on this machine."""
    for folder in Path("/proc").iterdir():
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::_Host"):
                return int(folder.name)
        except OSError:
            continue
    raise MeasurementError("no process of a worker was found in /proc: run this on Linux")


def _size(clip: Path) -> list[int]:
    from runtime.video.reading.source import open_source

    with open_source(clip) as source:
        return [source.info.height, source.info.width]


def _measure(args: argparse.Namespace) -> None:
    if args.json is not None:
        check_writable(args.json, "--json")
    figures = measure(
        args.clip,
        args.model,
        segment_seconds=args.segment_seconds,
        threads=args.threads,
        rounds=args.rounds,
    )
    print(
        f"speed-up with two workers: {figures['speed_up']:.2f}x\n"
        f"time of all steps relative to one process: {figures['overhead']:+.1%}\n"
        f"time lost with a killed worker: {figures['lost_seconds']:.1f} s (a segment takes "
        f"{figures['segment_seconds_rendering']:.1f} s)\n"
        f"empty jobs of one driver: {figures['jobs_per_second']:.0f} per second"
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
            **figures,
        }
        write_evidence(args.json, record)


def make_parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """The parser of the command, which is called as `prog`."""
    parser = command_parser(
        prog,
        "Measures the speed-up and the overhead of a Ray cluster on this machine.",
        "%(prog)s --clip in.mp4 --model model.onnx --segment-seconds 2 --json cluster.json",
    )
    parser.add_argument(
        "--clip", type=Path, required=True, metavar="FILE", help="video to measure with"
    )
    parser.add_argument(
        "--model",
        type=parse_model_file,
        required=True,
        metavar="MODEL",
        help="artefact for CPUs, or demo",
    )
    parser.add_argument(
        "--segment-seconds",
        type=parse_time,
        default=Fraction(10),
        metavar="S",
        help="minimum duration of a segment in seconds (default %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="number of CPU threads of a worker (default %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=_ROUNDS,
        metavar="N",
        help="number of rounds (default %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements as JSON")
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = _PROG) -> NoReturn:
    """The command line."""
    run_command(make_parser(prog), _measure, extra="cluster,video", argv=argv)


if __name__ == "__main__":
    main()
