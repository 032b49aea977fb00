"""Compares this runtime with other methods that double the frame rate of a clip, on a CPU.

Every second frame of the clip is dropped, and each method interpolates it: PyTorch, artefacts, the
filters of vs-mlrt in an interpreter that has them, FFmpeg's minterpolate, and the mean of two
frames.

python -m bench.alternatives --clip in.mp4 --model demo --compare authors --minterpolate ""
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bench.environment import MeasurementError, check_writable, write_evidence
from bench.records.alternatives import AlternativesMeasurement
from bench.records.common import FORMAT_VERSION
from bench.report.alternatives import clip_table
from bench.report.text import markdown_table
from runtime.cli.arguments import add_cpu_arguments
from runtime.cli.command import command_parser, run_command
from runtime.cli.progress import Activity
from runtime.machine import available_cpus

if TYPE_CHECKING:
    from bench.alternatives.clips import HalvedClip
    from bench.alternatives.methods import Method

_PROG = "python -m bench.alternatives"
_ROUNDS = 5


def _measure(args: argparse.Namespace) -> None:
    # Imported here to keep --help fast and to report a missing package in one sentence.
    from bench.alternatives.clips import read_halved
    from bench.alternatives.measure import measure

    if args.json is not None:
        check_writable(args.json, "--json")
    if args.rounds < 1:
        raise MeasurementError(f"--rounds is {args.rounds}: use 1 or more")
    if args.mlrt_model and not args.mlrt_python:
        raise MeasurementError("--mlrt-model was given without --mlrt-python: give both, or none")
    if args.mlrt_python and not args.mlrt_model:
        raise MeasurementError("--mlrt-python was given without --mlrt-model: give both, or none")
    threads = args.threads or available_cpus()
    clip = read_halved(args.clip, args.pairs)
    with ExitStack() as owner:
        methods = []
        for method in _methods(args, clip, threads):
            owner.callback(method.close)
            methods.append(method)
        reference = methods[0].name
        with Activity(f"measuring {len(methods)} methods"):
            measured = measure(methods, clip, args.rounds, reference)
    record: AlternativesMeasurement = {
        "kind": "alternatives",
        "format_version": FORMAT_VERSION,
        "what": "every second frame of a clip, interpolated by each method; seconds is the time of "
        "all new frames, from frames in memory to frames in memory; ratio is the time of the "
        "reference divided by that of the method",
        "clip": clip.name,
        "size": [*clip.size],
        "pairs": len(clip.true),
        "threads": threads,
        "reference": reference,
        "methods": measured,
    }
    print(markdown_table(clip_table(record)), end="")
    if args.json is not None:
        write_evidence(args.json, record)


def _methods(args: argparse.Namespace, clip: HalvedClip, threads: int) -> Iterator[Method]:
    """Yields the requested methods; the first is the reference."""
    from bench.alternatives.methods import Blending, Minterpolate, opened_models, opened_pytorch

    yield from opened_pytorch(args.compare, args.weights, clip, threads)
    yield from opened_models(
        args.model, clip, backends=args.backend, precisions=args.precision, threads=threads
    )
    if args.mlrt_model is not None:
        from bench.alternatives.mlrt import FILTERS, Mlrt

        for name in FILTERS:
            yield Mlrt(clip, args.mlrt_model, name, args.mlrt_python, threads)
    for options in args.minterpolate:
        yield Minterpolate(clip, options)
    yield Blending(clip)


def make_parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """The parser of the command, which is called as `prog`."""
    parser = command_parser(
        prog,
        "Compares this runtime with PyTorch, vs-mlrt and FFmpeg's minterpolate on the CPU: every\n"
        "second frame of a clip is dropped, and each method interpolates it.",
        "%(prog)s --clip in.mp4",
        "%(prog)s --clip in.mp4 --compare authors --minterpolate mi_mode=blend",
        "%(prog)s --clip in.mp4 --mlrt-model float.onnx --mlrt-python vs/bin/python",
    )
    parser.add_argument(
        "--clip", required=True, type=Path, metavar="FILE", help="video to measure with"
    )
    parser.add_argument(
        "--pairs",
        type=int,
        metavar="N",
        help="number of pairs to read from the beginning; their frames are held in memory "
        "(default: all)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence as JSON")
    methods = parser.add_argument_group(
        "methods (order: PyTorch, artefacts, vs-mlrt, minterpolate, mean; the first is the "
        "reference of the ratios)"
    )
    methods.add_argument(
        "--compare",
        nargs="+",
        default=[],
        metavar="NAME",
        help="PyTorch baselines: authors (the authors' formulation), torch (our module), compile",
    )
    methods.add_argument(
        "--weights", default="demo", metavar="FILE", help="checkpoint for --compare (default demo)"
    )
    methods.add_argument(
        "--model",
        nargs="+",
        default=["demo"],
        metavar="MODEL",
        help="artefacts, or demo for the shipped model (default demo)",
    )
    methods.add_argument(
        "--backend",
        nargs="+",
        choices=("openvino", "onnxruntime"),
        default=["openvino"],
        help="backends of the artefacts, each of which is a method (default openvino)",
    )
    methods.add_argument(
        "--minterpolate",
        nargs="+",
        default=[],
        metavar="TEXT",
        help='options of FFmpeg\'s minterpolate, each of which is a method; "" for its defaults',
    )
    methods.add_argument(
        "--mlrt-model",
        type=Path,
        metavar="FILE",
        help="ONNX file of export.to_onnx with float I/O and the size of the clip, for vs-mlrt",
    )
    methods.add_argument(
        "--mlrt-python",
        type=Path,
        metavar="FILE",
        help="path of a Python with vapoursynth, vapoursynth-mlrt-ov and vapoursynth-mlrt-ort",
    )
    running = parser.add_argument_group("measurement")
    running.add_argument(
        "--rounds",
        type=int,
        default=_ROUNDS,
        metavar="N",
        help="number of rounds, in each of which every method runs once (default %(default)s)",
    )
    add_cpu_arguments(running, several_precisions=True)
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = _PROG) -> NoReturn:
    """Runs the command and exits."""
    run_command(make_parser(prog), _measure, extra="bench,build,cpu,openvino,video", argv=argv)


if __name__ == "__main__":
    main()
