"""Exports a checkpoint as an ONNX file with metadata, and compares it with PyTorch.

python -m export.to_onnx --weights demo --output model.onnx
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from export.arguments import add_graph_arguments, graph_request, sizes_of
from export.errors import ExportError
from export.files import check_output, check_source
from export.request import ExportRequest, flow_scale_note
from runtime.cli.command import command_parser, run_command
from runtime.cli.grammar import ALIASES

_PROG = "python -m export.to_onnx"


def _export(request: ExportRequest) -> None:
    check_source(weights=request.weights)
    check_output(request.output)
    # Imported here to keep --help fast and to report a missing package in one sentence.
    from export.from_checkpoint import STAGES, checked_from_checkpoint
    from export.gate.gate import report_lines
    from export.progress import Stages
    from export.store import write_onnx
    from export.wrapper import ExportOptions

    if note := flow_scale_note(request.graph, [request.size] if request.size else []):
        print(note, flush=True)
    options = ExportOptions(**request.graph.options(request.size))
    with Stages(len(STAGES)) as stages:
        checked = checked_from_checkpoint(
            request.weights, options, time_steps=request.time, stages=stages
        )
    write_onnx(checked.model, request.output)
    print(f"{request.output}: passed the comparison with {checked.gate.reference}")
    for line in report_lines(checked.gate, checked.info, nodes=len(checked.model.graph.node)):
        print(line)


def _request(args: argparse.Namespace) -> ExportRequest:
    return ExportRequest(
        weights=args.weights,
        output=args.output,
        size=next(iter(sizes_of(args)), None),
        graph=graph_request(args),
        time=args.time,
    )


def make_parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """The parser of the command, which is called as `prog`."""
    parser = command_parser(
        prog,
        "Exports a checkpoint as an ONNX file without custom operators and compares it with "
        "PyTorch;\na file that differs is not written.",
        "%(prog)s --weights demo --output model.onnx",
        "%(prog)s --weights demo --like in.mp4 --output model.onnx",
    )
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help="checkpoint: .pth, .safetensors, or demo"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help="path of the ONNX file to write"
    )
    add_graph_arguments(parser.add_argument_group("graph"))
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = _PROG) -> NoReturn:
    """Runs the command and exits."""
    run_command(
        make_parser(prog),
        lambda args: _export(_request(args)),
        extra="export",
        expected=(ExportError,),
        aliases=ALIASES["export.to_onnx"],
        argv=argv,
    )


if __name__ == "__main__":
    main()
