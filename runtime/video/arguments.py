"""Arguments, progress and summary that all commands on videos share."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from runtime.cli.progress import Progress
from runtime.errors import VideoError
from runtime.files import written_beside
from runtime.video.rates import as_rate, as_seconds

if TYPE_CHECKING:
    from runtime.video.options import VideoOptions


def parse_rate(text: str) -> Fraction:
    """Parses a frame rate: 60, 60000/1001, or a rounded NTSC rate as 59.94, which is 60000/1001."""
    try:
        return as_rate(text)
    except VideoError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse_factor(text: str) -> int | float:
    """Parses a factor; one that is not whole is refused later, with the rate that it stands for."""
    try:
        factor = float(text)
        return int(factor) if factor.is_integer() else factor
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a factor: write a whole number, 2 or more, or use --rate"
        ) from error


def parse_time(text: str) -> Fraction:
    """Parses a time to seconds: 90, 90.5, 1:30 or 0:01:30.5."""
    try:
        return as_seconds(text)
    except VideoError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse_cuts(text: str) -> float:
    """Parses the lowest score of a scene cut; none and 0, for no cuts, become 0."""
    if text == "none":
        return 0.0
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a score: write a number up to 100, or none for no scene cuts"
        ) from error


def parse_gap(text: str) -> Fraction | str:
    """Parses the longest gap: auto, none, or a time in seconds or H:M:S."""
    return text if text in ("auto", "none") else parse_time(text)


class _DedupeOnly(argparse.Action):
    """Sets what --dedupe-only stands for: factor 1 with --dedupe."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        del parser, values, option_string
        namespace.factor, namespace.dedupe = 1, True


def add_rate_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --factor, --rate, --dedupe-only and --keep-vfr."""
    group = parser.add_argument_group("frame rate")
    rate = group.add_mutually_exclusive_group()
    rate.add_argument(
        "--factor",
        type=parse_factor,
        metavar="N",
        help="new frame rate divided by the old one (default 2)",
    )
    rate.add_argument(
        "--rate",
        type=parse_rate,
        metavar="R",
        help="constant frame rate in place of --factor, for example 60, 59.94 or 60000/1001",
    )
    rate.add_argument(
        "--dedupe-only",
        action=_DedupeOnly,
        nargs=0,
        help="replace repeated frames by new frames at the same frame rate, and add none",
    )
    group.add_argument(
        "--keep-vfr",
        action=argparse.BooleanOptionalAction,
        help="with --factor: keep a variable frame rate (default), or make it constant",
    )


def add_reading_arguments(group: argparse._ArgumentGroup) -> None:
    """Adds the options for reading a video, without --start and --end."""
    group.add_argument(
        "--video-stream",
        type=int,
        metavar="N",
        help="index of the video track (default: FFmpeg's choice)",
    )
    group.add_argument(
        "--strict", action="store_true", help="stop with an error if a file is damaged or truncated"
    )
    cuts = group.add_mutually_exclusive_group()
    cuts.add_argument(
        "--cuts",
        type=parse_cuts,
        metavar="X",
        help="minimum score of a scene cut, above 0 and up to 100 (default 6); none switches the "
        "detection off",
    )
    cuts.add_argument(
        "--cut-list",
        type=Path,
        metavar="FILE",
        help="scene cuts that are known, in place of detection: the CSV of PySceneDetect's "
        "list-scenes, or a text with a time in each line",
    )
    group.add_argument(
        "--cut-policy",
        choices=("hold", "blend"),
        help="new frames at a scene cut: hold the frame before it (default), or blend the frames "
        "before and after it",
    )
    group.add_argument(
        "--longest-gap",
        type=parse_gap,
        metavar="T",
        help="gap between two frames, in seconds, up to which it is interpolated; in a longer one "
        "the frame is held (default auto: 1 second, or three frames if these are longer; none: no "
        "limit)",
    )
    group.add_argument(
        "--dedupe", action="store_true", help="replace repeated frames by new frames"
    )
    group.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="where new frames show the nearest real frame, for logos and subtitles: white in a "
        "PNG or JPEG image of the size of the video",
    )
    group.add_argument(
        "--deinterlace",
        choices=("frame", "field", "film"),
        help="deinterlace interlaced frames: one frame for each, or one for each field, at twice "
        "the frame rate; film restores telecined film, 29.97 becomes 23.976 (default: they are "
        "processed like progressive frames)",
    )
    group.add_argument(
        "--detelecine",
        action="store_const",
        const="film",
        dest="deinterlace",
        help="restore telecined film: the same as --deinterlace film",
    )


def add_writing_arguments(group: argparse._ArgumentGroup) -> None:
    """Adds the options for writing a video."""
    group.add_argument(
        "--codec",
        metavar="NAME",
        help="codec: h264, hevc, vp9, av1, ffv1, prores, or an encoder of FFmpeg (default: "
        "chosen by the input and the suffix of the output)",
    )
    group.add_argument(
        "--quality",
        type=float,
        metavar="X",
        help="quality on the encoder's own scale: crf, cq or qp (default: the encoder's)",
    )
    group.add_argument(
        "--preset", metavar="NAME", help="preset of the encoder (default: the encoder's)"
    )
    group.add_argument("--lossless", action="store_true", help="encode losslessly")
    group.add_argument(
        "-y", "--overwrite", action="store_true", help="replace an output that exists"
    )
    group.add_argument(
        "--audio",
        choices=("copy", "aac", "none"),
        help="copy audio tracks, encode them as AAC, or leave them out (default copy)",
    )
    group.add_argument(
        "--alpha",
        choices=("interpolate", "blend", "none"),
        help="alpha channel of new frames: computed by the model (default), or a linear mix; none "
        "writes no alpha channel",
    )


def options_from(args: argparse.Namespace) -> VideoOptions:
    """The `VideoOptions` of parsed arguments; an option that a command lacks has its default."""
    from runtime.video.options import VideoOptions

    given: dict[str, Any] = {
        name: getattr(args, name, None)
        for name in (
            "video_stream", "start", "end", "strict", "cuts", "cut_list", "cut_policy", "dedupe",
            "longest_gap", "mask", "deinterlace", "picture_rate", "keep_vfr", "codec", "quality",
            "preset", "lossless", "audio", "alpha", "overwrite",
        )
    }  # fmt: skip
    chosen = {name: value for name, value in given.items() if value is not None}
    for name, none in (("cuts", 0), ("longest_gap", "none")):
        if given[name] == none:
            chosen[name] = None
    return VideoOptions(**chosen)


def ask_to_overwrite(source: str, destination: str, options: VideoOptions) -> VideoOptions:
    """Asks on a terminal whether an output that exists is replaced.

    Args:
        source: The input; "-" is stdin, where no answer can be read.
        destination: The output.
        options: The options of the command line.

    Returns:
        The options, with `overwrite` after the answer y.

    Raises:
        VideoError: If the output cannot be written, whatever the answer.
    """
    from runtime.video.writing.destination import check_destination, is_taken

    terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if options.overwrite or "-" in (source, destination) or not terminal:
        return options
    check_destination(destination, source, overwrite=True)
    if not is_taken(destination):
        return options
    print(f"{destination} exists, overwrite? [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline().strip().lower()
    return replace(options, overwrite=answer in ("y", "yes"))


def check_summary(path: Path | None) -> None:
    """Checks that the summary can be written to `path`; None, for no summary, is valid.

    Raises:
        VideoError: If its folder does not exist.
    """
    if path is not None and not path.parent.is_dir():
        raise VideoError(f"{path.parent} is not a folder: create it first")


def write_summary(path: Path | None, report: Any) -> None:
    """Writes a report, a dataclass, to `path` as JSON, atomically; with None does nothing."""
    if path is not None:
        with written_beside(path) as temporary:
            temporary.write_text(json.dumps(asdict(report), indent=1, default=str) + "\n")


class FrameBar(Progress):
    """Progress of a video in frames.

    Args:
        label: Name of the video.
    """

    def __init__(self, label: str = "") -> None:
        super().__init__("frames", label=label)

    def note(self, text: str, file: TextIO | None = None) -> None:
        """Prints a note at once; above the bar where `file` is on the same terminal."""
        super().note(f"note: {text}", file)
