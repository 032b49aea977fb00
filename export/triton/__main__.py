"""Artefacts into a model repository of Triton Inference Server, from the command line.

python -m export.triton --model small.engine --output repository
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, get_args

from export.errors import ExportError
from export.triton.repository import (
    QUEUE_DELAY_US,
    Artefact,
    Device,
    Serving,
    TritonBackendName,
    add_artefact,
    read_artefact,
)
from runtime.cli import command_parser, parse_size, run_command


def _triton(args: argparse.Namespace) -> None:
    if len(args.model) > 1 and args.name is not None:
        raise ExportError(f"--name came with {len(args.model)} models: give it with one of them")
    serving = Serving(
        backend=args.backend,
        device=args.device,
        gpus=tuple(args.gpus or ()),
        instances=args.instances,
        threads=args.threads,
        queue_delay_us=args.queue_delay,
        warm_up=args.warm_up,
        versions_served=args.versions_served,
    )
    for path in args.model:
        read = read_artefact(path)
        folder = add_artefact(read, args.output, args.name, args.version, serving)
        print(*_lines(folder, read, args.version), sep="\n")
    print(
        f"tritonserver --model-repository {args.output}\n"
        f"open it with triton://HOST:8001/{args.name or args.model[0].stem}"
    )


def _lines(folder: Path, artefact: Artefact, version: int) -> Iterator[str]:
    info, build = artefact.info, artefact.manifest.engine if artefact.manifest else None
    size = "any size" if info.size is None else f"{info.height}x{info.width}"
    pairs = f", up to {info.max_pairs} pairs at a time" if info.max_pairs else ""
    yield f"{folder}/{version}: {info.variant}, {info.precision}, {size}{pairs}"
    if build is not None and not build.portable:
        yield f"  runs in a Triton with TensorRT {build.tensorrt}, on {build.gpu} alone"
    elif build is not None:
        yield (
            f"  portable: TensorRT {build.tensorrt} or later of the same major version, with "
            "--backend-config=tensorrt,version-compatible=true"
        )
    if (folder / str(version) / "model.py").exists():
        yield "  runs in the Python backend, where ifrnet-deploy must be installed"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = command_parser(
        "python -m export.triton",
        "Puts artefacts into a model repository of NVIDIA Triton Inference Server.",
        "python -m export.triton --model small.engine base.engine --output repository",
        "python -m export.triton --model small.onnx --backend python --output repository",
        "python -m export.triton --model new.engine --name small --version 2 --output repository",
    )
    parser.add_argument("--model", nargs="+", type=Path, required=True, metavar="ARTEFACT")
    parser.add_argument("--output", type=Path, required=True, metavar="REPOSITORY")
    parser.add_argument("--name", help="of the model (default: the artefact's, without suffix)")
    parser.add_argument("--version", type=int, default=1, metavar="N", help="default 1")
    parser.add_argument(
        "--versions-served", type=int, default=1, metavar="N", help="the newest N (default 1)"
    )
    parser.add_argument(
        "--backend",
        choices=get_args(TritonBackendName),
        help="Triton's (default: tensorrt for engines, python for ONNX files that were gated in "
        "OpenVINO, else onnxruntime)",
    )
    parser.add_argument(
        "--device",
        choices=get_args(Device),
        help="default: gpu for engines and for ONNX files that are not tuned for a processor",
    )
    parser.add_argument("--gpus", nargs="+", type=int, metavar="N", help="default: all")
    parser.add_argument(
        "--instances", type=int, default=1, metavar="N", help="on each GPU (default 1)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="of an instance on a processor")
    parser.add_argument(
        "--queue-delay",
        type=int,
        default=QUEUE_DELAY_US,
        metavar="US",
        help="how long a request may wait for others, where the model was exported with "
        f"--max-batch (default {QUEUE_DELAY_US})",
    )
    parser.add_argument(
        "--warm-up", type=parse_size, metavar="HxW", help="of the first request, with free sizes"
    )
    run_command(parser, _triton, extra="triton", expected=(ExportError,), argv=argv)


if __name__ == "__main__":
    main()
