"""Command line: writes a video at a higher frame rate.

python -m runtime in.mp4 out.mp4
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, get_args

from runtime.backends.base import BackendName
from runtime.backends.demo import DEMO
from runtime.cli.arguments import add_cpu_arguments, parse_device, parse_model
from runtime.cli.command import command_parser, run_command
from runtime.cli.grammar import ALIASES
from runtime.errors import VideoError, rounded
from runtime.video.arguments import (
    FrameBar,
    add_rate_arguments,
    add_reading_arguments,
    add_writing_arguments,
    ask_to_overwrite,
    check_summary,
    options_from,
    parse_rate,
    parse_time,
    write_summary,
)

if TYPE_CHECKING:
    from runtime.video.options import Plan, VideoReport

_PROG = "python -m runtime"
_DEMO_NOTE = (
    "--model was not given: the shipped demo model is used, which does not reach the quality of "
    "the published weights"
)


def _interpolate(args: argparse.Namespace) -> None:
    from runtime.video.interpolate import interpolate_video, plan_video
    from runtime.video.reading.images import is_of_images
    from runtime.video.segments.resume import interpolate_video_resumable

    options = options_from(args)
    # With Y4M on stdout, messages go to stderr.
    messages = sys.stderr if args.output == "-" else sys.stdout
    check_summary(args.json)
    if args.json is not None and args.dry_run:
        raise VideoError(
            "--json and --dry-run were both given, but a dry run has no summary: leave one out"
        )
    if args.keep_vfr and args.rate is not None:
        raise VideoError(
            "--keep-vfr and --rate were both given, but --rate gives a constant rate: use --factor"
        )
    for option, images in (("picture_rate", True), ("video_stream", False)):
        if getattr(args, option) is not None and is_of_images(Path(args.input)) != images:
            raise VideoError(
                f"--{option.replace('_', '-')} was given, but {args.input} is "
                f"{'no folder of images' if images else 'of images'}: leave it out"
            )
    if args.dry_run:
        plan = plan_video(
            args.input, args.output, factor=args.factor, rate=args.rate, options=options
        )
        print(*_plan_lines(plan, args.output), sep="\n", file=messages)
        return
    if not args.resume:
        options = ask_to_overwrite(args.input, args.output, options)
    printed: list[str] = []

    def print_note(note: str) -> None:
        printed.append(note)
        bar.note(note, messages)

    with FrameBar(Path(args.input).name) as bar, _names_partial_output(args.output):
        if args.model is None:
            print_note(_DEMO_NOTE)
        interpolate = interpolate_video_resumable if args.resume else interpolate_video
        report = interpolate(
            args.input,
            args.output,
            model=DEMO if args.model is None else args.model,
            factor=args.factor,
            rate=args.rate,
            options=options,
            backend=args.backend,
            device=args.device,
            threads=args.threads,
            streams=args.streams,
            precision=args.precision,
            progress=bar.update,
            on_note=print_note,
        )
    for line in _report_lines(report, args.output, printed):
        print(line, file=messages)
    write_summary(args.json, report)


@contextmanager
def _names_partial_output(output: str) -> Iterator[None]:
    """After Ctrl-C or SIGTERM prints the path of the partial output, if there is one."""
    from runtime.files import is_locked
    from runtime.video.writing.destination import partial_path

    try:
        yield
    except KeyboardInterrupt:
        partial = partial_path(output)
        if output != "-" and partial.exists() and not is_locked(partial):
            print(f"the partial output is {partial}", file=sys.stderr)
        if Path(f"{output}.segments").is_dir():
            print("complete segments are kept: continue with --resume", file=sys.stderr)
        raise


def _plan_lines(plan: Plan, output: str) -> list[str]:
    info = plan.source
    frames = "an unknown number of" if plan.frames is None else f"about {plan.frames}"
    duration = "unknown duration" if info.duration is None else f"{float(info.duration):.3f} s"
    return [
        f"{info.name}: width {info.width}, height {info.height}, {info.pixel_format}, "
        f"{float(info.rate):.3f} frames/s, {duration}",
        f"{output}: {frames} frames at {float(plan.rate):.3f} frames/s, encoder {plan.encoder}",
        *plan.tracks,
        *(f"note: {note}" for note in plan.notes),
    ]


def _report_lines(report: VideoReport, output: str, printed: Sequence[str]) -> list[str]:
    """The report as text, with the notes that are not in `printed`."""
    if not report.frames_out:  # An earlier run with --resume completed it.
        return [f"note: {note}" for note in report.notes if note not in printed]
    lines = [
        f"{output}: {report.frames_in} -> {report.frames_out} frames at "
        f"{float(report.rate):.3f} frames/s",
        f"speed: {rounded(report.frames_out / report.seconds)} frames/s "
        f"({report.seconds:.1f} s) with "
        f"{report.backend}, which waited for frames {100 * report.idle:.0f} % of that time",
    ]
    if report.cuts:
        shown = ", ".join(f"{float(moment):.3f}" for moment in report.cuts[:20])
        more = f" and {len(report.cuts) - 20} more" if len(report.cuts) > 20 else ""
        lines.append(f"scene cuts, in seconds: {shown}{more}")
    if report.repeats:
        lines.append(f"repeated frames in the input: {report.repeats}")
    if report.held_gaps:
        lines.append(f"gaps too long to interpolate, in which a frame is held: {report.held_gaps}")
    return [*lines, *(f"note: {note}" for note in report.notes if note not in printed)]


def make_parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """The parser of the command, which is called as `prog`."""
    parser = command_parser(
        prog,
        "Writes a video at a higher frame rate and the same speed; audio stays in sync.",
        "%(prog)s in.mp4 out.mp4",
        "%(prog)s in.mkv out.mkv --model model.onnx --rate 59.94 --codec hevc",
        "ffmpeg -i in.mp4 -f yuv4mpegpipe - | %(prog)s - - --model model.onnx | mpv -",
    )
    parser.add_argument(
        "input",
        metavar="IN",
        help="a video, the address of a network stream (rtsp://, udp://, http:// ...), a folder of "
        "images, a pattern as %%06d.png, or - for Y4M on stdin",
    )
    parser.add_argument(
        "output",
        metavar="OUT",
        help="a video (.mp4, .mkv, .mov, .m4v, .webm), an animated image (.gif, .apng, .webp), a "
        "folder for PNG images, a pattern as %%06d.png, or - for Y4M on stdout",
    )
    parser.add_argument(
        "--model",
        type=parse_model,
        metavar="MODEL",
        help="artefact of export.build_engine, or triton://HOST:PORT/NAME[?shared_memory=system] "
        "(default demo, the shipped model)",
    )
    add_rate_arguments(parser)
    reading = parser.add_argument_group("input")
    reading.add_argument(
        "--start",
        type=parse_time,
        metavar="T",
        help="time at which to start, in seconds or H:M:S (default: the beginning)",
    )
    reading.add_argument(
        "--end",
        type=parse_time,
        metavar="T",
        help="time at which to stop, in seconds or H:M:S (default: the end)",
    )
    reading.add_argument(
        "--picture-rate",
        type=parse_rate,
        metavar="R",
        help="frame rate of a folder of images, in frames per second (default 25)",
    )
    add_reading_arguments(reading)
    writing = parser.add_argument_group("output")
    add_writing_arguments(writing)
    writing.add_argument(
        "--resume",
        action="store_true",
        help="continue an earlier run with this option; the video is rendered in segments, which "
        "are kept until all are complete",
    )
    writing.add_argument("--json", type=Path, metavar="FILE", help="write the summary as JSON")
    writing.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    running = parser.add_argument_group("inference")
    running.add_argument(
        "--backend",
        choices=get_args(BackendName),
        help="backend (default: TensorRT for engines; for ONNX files the one in their manifest, "
        "else OpenVINO if it is installed, else ONNX Runtime)",
    )
    running.add_argument(
        "--device",
        type=parse_device,
        metavar="DEVICE",
        help="device: cpu, cuda or cuda:N (default: cpu for ONNX files, cuda for engines)",
    )
    add_cpu_arguments(running)
    running.add_argument(
        "--streams",
        type=int,
        metavar="N",
        help="number of inferences that run at the same time (TensorRT, OpenVINO; default 1)",
    )
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = _PROG) -> NoReturn:
    """The command line."""
    run_command(
        make_parser(prog), _interpolate, extra="video", aliases=ALIASES["runtime"], argv=argv
    )


if __name__ == "__main__":
    main()
