"""Checkpoint or ONNX file -> an artefact that proved itself, and its manifest.

    python -m export.build_engine --weights demo --backend onnxruntime --output model.onnx

With --onnx nothing here needs PyTorch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, get_args

from export.arguments import add_graph_arguments, graph_options
from export.errors import ExportError
from runtime.cli import command_parser, run_command
from runtime.machine import gpu_driver
from runtime.manifest import TunedFor, manifest_path


def _build(args: argparse.Namespace) -> None:
    if args.backend == "tensorrt":
        raise ExportError(_why_no_tensorrt())
    options = graph_options(args)
    if args.onnx is not None and (options or args.time):
        given = ", ".join(sorted([*options, *(["time"] if args.time else [])]))
        raise ExportError(f"--onnx came with {given}: the file has these already, leave them out")

    # Here, so that --help answers at once and a missing package is one sentence.
    from export.artefact import (
        check_folder,
        checked_from_onnx,
        default_tuning,
        write_artefact,
    )
    from export.stages import Stages
    from export.verify import report_lines

    check_folder(args.output)
    started = time.perf_counter()
    if args.onnx is not None:
        with Stages(1) as stages:
            stages.start("compare")
            checked = checked_from_onnx(args.onnx, tuned_for=args.tuned_for)
    else:
        from export.tracing import STAGES, checked_from_checkpoint  # needs PyTorch
        from export.wrapper import ExportOptions

        wanted = ExportOptions(**options)
        with Stages(len(STAGES)) as stages:
            checked = checked_from_checkpoint(
                args.weights,
                wanted,
                time_steps=args.time,
                tuned_for=args.tuned_for or default_tuning(wanted.precision),
                stages=stages,
            )
    manifest = write_artefact(checked, args.output, started=started)
    print(f"{args.output}: compared with {checked.gate.reference}")
    for line in report_lines(checked.gate, checked.info, nodes=len(checked.model.graph.node)):
        print(line)
    print(f"{manifest_path(args.output)}: built in {manifest.build_seconds:.1f} s")


def _why_no_tensorrt() -> str:
    driver = gpu_driver()
    missing = (
        "this version cannot build TensorRT engines yet"
        if driver.gpus
        else f"TensorRT engines need an NVIDIA GPU, and {driver.problem}"
    )
    return f"{missing}: use --backend onnxruntime, which builds an ONNX artefact for any processor"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = command_parser(
        "python -m export.build_engine",
        "Builds an artefact, compares it with its reference, and keeps it with a manifest only "
        "if it\npasses.",
        "python -m export.build_engine --weights demo --dynamic --backend onnxruntime "
        "--output model.onnx",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", metavar="FILE", help="checkpoint: .pth, .safetensors, or demo")
    source.add_argument(
        "--onnx",
        type=Path,
        metavar="FILE.onnx",
        help="a file of export.to_onnx; PyTorch is not needed then",
    )
    parser.add_argument(
        "--backend",
        choices=("tensorrt", "onnxruntime"),
        default="tensorrt",
        help="what will run the artefact (default tensorrt)",
    )
    add_graph_arguments(parser)
    parser.add_argument(
        "--tuned-for",
        choices=get_args(TunedFor),
        help="with --backend onnxruntime: cpu rewrites the graph for its CPU kernels (default "
        "for fp32), any leaves it as exported (default for fp16, and better on CUDA)",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE")
    run_command(parser, _build, extra="export", expected=(ExportError,), argv=argv)


if __name__ == "__main__":
    main()
