"""Compares the video pipeline with its slower stage alone, with a model that takes no time.

It also measures the share of time for which a slow model waits for frames, the peak memory of the
pipeline, and the difference between new and original frames of a still scene.

python -m bench.video --clip in.mp4
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from bench.environment import MeasurementError, write_evidence
from runtime.cli.arguments import parse_size
from runtime.cli.command import command_parser, run_command
from runtime.cli.progress import Activity
from runtime.errors import rounded

_PROG = "python -m bench.video"


def _measure(args: argparse.Namespace) -> None:
    record: dict[str, Any] = {
        "kind": "video",
        "format_version": 1,
        "what": "decoding, encoding and the whole pipeline with a model that takes no time; "
        "frames_per_second counts written frames; cpu_seconds is the sum over all threads; memory "
        "is the peak memory of a new process in bytes; flicker is the largest mean difference "
        "between a plane of a new frame and of the original frame in a still scene, in 8-bit "
        "levels",
        "clips": [],
    }
    for clip in args.clip:
        if not clip.is_file():
            raise MeasurementError(f"{clip} does not exist: give a video file")
        for size in args.size or [None]:
            record["clips"].append(_measured(clip, size, args.frames, args.memory or ()))
    if args.json is not None:
        write_evidence(args.json, record)


def _measured(
    clip: Path, size: tuple[int, int] | None, count: int | None, lengths: Sequence[int]
) -> dict[str, Any]:
    # Needs PyAV; run_command names the extra if it is missing.
    from bench.harness.pipeline import decode, flicker, measure, peak_memory, write_clip

    with tempfile.TemporaryDirectory() as folder, Activity(f"measuring with {clip.name}"):
        scaled = Path(folder) / "clip.mp4"
        if size is not None or count is not None:
            write_clip(clip, size, count or len(decode(clip)), scaled)
        measured = measure(scaled if scaled.exists() else clip)
        measured["clip"] = clip.name
        measured["flicker"] = flicker(scaled if scaled.exists() else clip)
        measured["memory"] = {}
        for length in lengths:
            write_clip(clip, size, length, scaled)
            measured["memory"][str(length)] = peak_memory(scaled)
    by_stage = measured["frames_per_second"].items()
    speeds = ", ".join(f"{name} {rounded(fps)}" for name, fps in by_stage)
    used = ", ".join(f"{name} {cpus:.1f}" for name, cpus in measured["cpus"].items())
    print(
        f"{clip.name}, {measured['size']}\n"
        f"  written frames per second: {speeds}\n"
        f"  speed of the pipeline: {measured['share']:.0%} of its slower stage alone\n"
        f"  CPUs in use: {used}, of {measured['cpus_available']}\n"
        f"  a slow model waits for frames: {measured['idle']:.1%} of the time"
    )
    levels = ", ".join(f"{name} {level:.3f}" for name, level in measured["flicker"].items())
    print(f"  flicker in a still scene, 8-bit levels: {levels}")
    for length, peak in measured["memory"].items():
        shown = "unknown" if peak is None else f"{peak / 1e6:.0f} MB"
        print(f"  peak memory with {length} frames: {shown}")
    return measured


def make_parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """The parser of the command, which is called as `prog`."""
    parser = command_parser(
        prog,
        "Compares the speed of the video pipeline and its stages, with a model that takes no time.",
        "%(prog)s --clip in.mp4 --json video.json",
    )
    parser.add_argument(
        "--clip", nargs="+", required=True, type=Path, metavar="FILE", help="videos to measure with"
    )
    parser.add_argument(
        "--size",
        nargs="+",
        type=parse_size,
        metavar="HxW",
        help="height and width to scale to, one or several (default: the size of the clip)",
    )
    parser.add_argument(
        "--frames", type=int, metavar="N", help="number of frames of each clip (default: all)"
    )
    parser.add_argument(
        "--memory",
        nargs="+",
        type=int,
        metavar="N",
        help="measure the peak memory with that many frames, one or several numbers",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements as JSON")
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = _PROG) -> NoReturn:
    """The command line."""
    run_command(make_parser(prog), _measure, extra="video", argv=argv)


if __name__ == "__main__":
    main()
