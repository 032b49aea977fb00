"""Command that interpolates many videos on a Ray cluster, long ones in segments.

python -m runtime.cluster IN... --output DIR --model model.onnx --factor 2 --address local
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, get_args

from runtime.backends.base import BackendName
from runtime.cli.arguments import add_precision_argument, parse_model_file
from runtime.cli.command import command_parser, run_command
from runtime.cli.grammar import ALIASES
from runtime.errors import VideoError, counted, rounded
from runtime.manifest import file_sha256
from runtime.video.arguments import (
    FrameBar,
    add_rate_arguments,
    add_reading_arguments,
    add_writing_arguments,
    check_summary,
    options_from,
    parse_time,
    write_summary,
)

if TYPE_CHECKING:
    from runtime.cluster.report import ClusterReport

_PROG = "python -m runtime.cluster"

_VIDEOS = (
    ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts",
    ".webm", ".wmv",
)  # fmt: skip
"""Suffixes of the files in a folder that are inputs."""


def sources_in(inputs: Sequence[Path], output: Path) -> list[tuple[Path, Path]]:
    """Pairs of source and destination; a destination has the source's name, below `output`.

    A suffix that cannot be written (.avi, .ts) becomes .mkv.

    Args:
        inputs: Video files, and folders that are searched with their subfolders.
        output: The folder for the results.

    Raises:
        VideoError: If an input does not exist, or a folder has no video.
    """
    from runtime.video.writing.destination import SUFFIXES

    found: list[tuple[Path, Path]] = []
    for given in inputs:
        videos = [given]
        if given.is_dir():
            videos = sorted(p for p in given.rglob("*") if p.suffix.lower() in _VIDEOS)
            if not videos:
                raise VideoError(f"{given} contains no video: give a folder of videos, or files")
        elif not given.is_file():
            raise VideoError(f"{given} does not exist: give videos, or folders of videos")
        for video in videos:
            name = video.relative_to(given) if given.is_dir() else Path(video.name)
            if name.suffix.lower() not in SUFFIXES:
                name = name.with_suffix(".mkv")
            found.append((video, output / name))
    return found


def _interpolate(args: argparse.Namespace) -> int:
    from runtime.cluster.checks import check_existing
    from runtime.cluster.pool import Share, connected
    from runtime.cluster.videos import interpolate_many
    from runtime.cluster.worker import ModelChoice
    from runtime.video.checks import factor_and_rate

    check_summary(args.json)
    if not args.model.is_file():
        raise VideoError(f"{args.model} does not exist: give a file of export.build_engine")
    if args.onnx is not None and not args.onnx.is_file():
        raise VideoError(
            f"{args.onnx} does not exist: give the file that the engine was built from"
        )
    if args.onnx is not None and args.model.suffix == ".onnx":
        raise VideoError(
            f"--onnx is for engines, but the model is {args.model.name}, which every worker can "
            "open: leave --onnx out"
        )
    if args.build_options and args.onnx is None:
        raise VideoError(
            "--build-options was given without --onnx: give the ONNX file to build from, or leave "
            "it out"
        )
    sources = sources_in(args.input, args.output)
    options = options_from(args)
    factor, rate = factor_and_rate(args.factor, args.rate)
    check_existing(sources, options, resume=args.resume)
    for _, destination in sources:
        destination.parent.mkdir(parents=True, exist_ok=True)
    share = Share(args.cpus_per_worker, args.gpus_per_worker)
    model = ModelChoice(
        args.model.absolute(),
        file_sha256(args.model),
        args.backend,
        "cuda" if share.gpus and args.model.suffix == ".onnx" else None,
        None if share.gpus else share.cpus,
        args.precision,
        None if args.onnx is None else args.onnx.absolute(),
        args.build_options,
    )
    with connected(args.address), FrameBar() as bar, _suggests_resume():
        report = interpolate_many(
            sources,
            model,
            factor=factor,
            rate=rate,
            options=options,
            share=share,
            workers=args.workers,
            segment_seconds=args.segment_seconds,
            resume=args.resume,
            progress=bar.update,
        )
    print(*_report_lines(report), sep="\n")
    write_summary(args.json, report)
    return 1 if report.failures else 0


@contextmanager
def _suggests_resume() -> Iterator[None]:
    """After Ctrl-C or SIGTERM prints that --resume continues the run."""
    try:
        yield
    except KeyboardInterrupt:
        print("complete segments are kept: continue with --resume", file=sys.stderr)
        raise


def _report_lines(report: ClusterReport) -> list[str]:
    lines = []
    for video in report.videos:
        if video.error is not None:
            lines.append(f"FAILED: {video.source}: {video.error}")
            continue
        resumed = f", {video.resumed} of them from an earlier run" if video.resumed else ""
        lines.append(
            f"{video.destination}: {video.frames_in} -> {video.frames_out} frames in "
            f"{counted(video.segments, 'segment')}{resumed}"
        )
        lines += [f"note: {note}" for note in video.notes]
    made = len(report.videos) - len(report.failures)
    steps = counted(report.retries, "step")
    speed = rounded(report.frames_out / max(report.seconds, 1e-9))
    lines.append(
        f"{made} of {counted(len(report.videos), 'video')} written: {report.frames_out} frames in "
        f"{report.seconds:.1f} s ({speed} frames/s) on "
        f"{counted(len(report.workers), 'worker')}"
    )
    if report.retries:
        lines.append(f"note: workers died, so {steps} had to be repeated")
    return lines


def make_parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """The parser of the command, which is called as `prog`."""
    parser = command_parser(
        prog,
        "Interpolates many videos on this machine or on a Ray cluster. Long videos are divided "
        "into segments. The files must have the same paths on all machines.",
        "%(prog)s in.mp4 --output made --model model.onnx --address local",
        "%(prog)s archive --output made --model model.engine --gpus-per-worker 1 "
        "--address ray://head:10001 --resume",
    )
    parser.add_argument(
        "input", nargs="+", type=Path, metavar="IN", help="videos, or folders of videos"
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the results",
    )
    parser.add_argument(
        "--model",
        type=parse_model_file,
        required=True,
        metavar="MODEL",
        help="artefact of export.build_engine, or demo",
    )
    add_rate_arguments(parser)
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument(
        "--address",
        default="local",
        metavar="ADDRESS",
        help="address of the cluster: auto, HOST:PORT, ray://HOST:PORT, or local, which starts one "
        "here (default %(default)s)",
    )
    cluster.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of workers (default: as many as fit into the cluster)",
    )
    cluster.add_argument(
        "--cpus-per-worker",
        type=int,
        default=2,
        metavar="N",
        help="CPUs of a worker, and the number of its threads if the model runs on the CPU "
        "(default %(default)s)",
    )
    cluster.add_argument(
        "--gpus-per-worker",
        type=float,
        default=0.0,
        metavar="X",
        help="GPUs of a worker; with 0.5 two workers share a GPU (default %(default)g)",
    )
    cluster.add_argument(
        "--segment-seconds",
        type=parse_time,
        default=Fraction(10),
        metavar="S",
        help="minimum duration of a segment in seconds (default %(default)s)",
    )
    cluster.add_argument(
        "--resume",
        action="store_true",
        help="continue an earlier run, whose complete segments are kept",
    )
    cluster.add_argument(
        "--onnx",
        type=Path,
        metavar="FILE",
        help="ONNX file from which a worker builds its own engine if the engine of --model does "
        "not fit the worker's GPU",
    )
    cluster.add_argument(
        "--build-options",
        default="",
        metavar="TEXT",
        help="further options of export.build_engine for --onnx, in one argument",
    )
    cluster.add_argument(
        "--backend",
        choices=get_args(BackendName),
        help="backend of the model (default: the same as for a single video)",
    )
    add_precision_argument(cluster)
    add_reading_arguments(parser.add_argument_group("input"))
    writing = parser.add_argument_group("output")
    add_writing_arguments(writing)
    writing.add_argument("--json", type=Path, metavar="FILE", help="write the summary as JSON")
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = _PROG) -> NoReturn:
    """The command line."""
    run_command(
        make_parser(prog),
        _interpolate,
        extra="cluster,video",
        aliases=ALIASES["runtime.cluster"],
        argv=argv,
    )


if __name__ == "__main__":
    main()
