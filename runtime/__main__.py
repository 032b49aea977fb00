"""A video at a multiple of its frame rate, from the command line.

python -m runtime in.mp4 out.mp4 --model model.onnx --factor 2
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, get_args

from runtime.backends.base import BackendName
from runtime.cli import command_parser, run_command


def _interpolate(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from runtime.video import interpolate_video

    with tqdm(unit=" frames", disable=None, leave=False) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = interpolate_video(
            args.input,
            args.output,
            model=args.model,
            factor=args.factor,
            backend=args.backend,
            device=args.device,
            threads=args.threads,
            progress=progress,
        )
    print(
        f"{args.output}: {report.frames_in} -> {report.frames_out} frames at "
        f"{float(report.rate):.3f} per second, in {report.seconds:.1f} s "
        f"({report.frames_out / report.seconds:.1f} frames/s) on {report.backend}"
    )
    for note in report.notes:
        print(f"note: {note}")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = command_parser(
        "python -m runtime",
        "Writes a video at a multiple of its frame rate.",
        "python -m runtime in.mp4 out.mp4 --model model.onnx --factor 2",
    )
    parser.add_argument("input", type=Path, metavar="IN", help="any video that FFmpeg reads")
    parser.add_argument("output", type=Path, metavar="OUT", help=".mp4, .mkv, .mov, .m4v or .webm")
    parser.add_argument("--model", required=True, type=Path, metavar="FILE", help="a model file")
    parser.add_argument(
        "--factor", type=int, default=2, metavar="N", help="new frame rate over old (default 2)"
    )
    parser.add_argument(
        "--backend", choices=get_args(BackendName), help="default: what the model's suffix means"
    )
    parser.add_argument(
        "--device",
        metavar="cpu|cuda|cuda:N",
        help="default: cpu for ONNX files, cuda for TensorRT engines",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="processors (default: all)")
    run_command(parser, _interpolate, extra="video", argv=argv)


if __name__ == "__main__":
    main()
