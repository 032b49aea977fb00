"""Writes artefacts into a model repository of Triton Inference Server.

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
from runtime.cli.arguments import gpu_index, parse_device, parse_model_file, parse_size
from runtime.cli.command import command_parser, run_command
from runtime.cli.grammar import ALIASES

_PROG = "python -m export.triton"


def _triton(args: argparse.Namespace) -> None:
    if len(args.model) > 1 and args.name is not None:
        raise ExportError(
            f"--name was given with {len(args.model)} models: give it with one of them"
        )
    device: Device | None = None
    gpus = tuple(args.gpus or ())
    if args.device is not None:
        device, index = "cpu" if args.device == "cpu" else "gpu", gpu_index(args.device)
        if index is not None and gpus:
            raise ExportError(
                f"--gpus was given with --device {args.device}: give only one of them"
            )
        gpus = gpus if index is None else (index,)
    serving = Serving(
        backend=args.backend,
        device=device,
        gpus=gpus,
        instances=args.instances,
        threads=args.threads,
        queue_delay_us=args.queue_delay,
        warm_up=args.warm_up,
        versions_served=args.versions_served,
    )
    for path in args.model:
        artefact = read_artefact(path)
        folder = add_artefact(artefact, args.output, args.name, args.model_version, serving)
        print(*_report_lines(folder, artefact, args.model_version), sep="\n")
    print(
        f"start the server: tritonserver --model-repository {args.output}\n"
        f"open the model: --model triton://HOST:8001/{args.name or args.model[0].stem}"
    )


def _report_lines(folder: Path, artefact: Artefact, version: int) -> Iterator[str]:
    info, build = artefact.info, artefact.manifest.engine if artefact.manifest else None
    size = "any size" if info.size is None else f"{info.height}x{info.width}"
    pairs = f", up to {info.max_pairs} pairs at a time" if info.max_pairs else ""
    yield f"{folder}/{version}: {info.variant}, {info.precision}, {size}{pairs}"
    if build is not None and not build.portable:
        yield f"  requires a Triton with TensorRT {build.tensorrt}, and the GPU {build.gpu}"
    elif build is not None:
        yield (
            f"  portable: requires TensorRT {build.tensorrt} or later of that major version, and "
            "--backend-config=tensorrt,version-compatible=true"
        )
    if (folder / str(version) / "model.py").exists():
        yield "  runs in Triton's Python backend; install ifrnet-deploy in the Python of the server"


def _parse_device(text: str) -> str:
    """Reads cpu, cuda or cuda:N; gpu, the earlier form, is cuda."""
    return "cuda" if text == "gpu" else parse_device(text)


def make_parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """The parser of the command, which is called as `prog`."""
    parser = command_parser(
        prog,
        "Writes artefacts into a model repository of NVIDIA Triton Inference Server.",
        "%(prog)s --model small.engine base.engine --output repository",
        "%(prog)s --model small.onnx --backend python --output repository",
        "%(prog)s --model new.engine --name small --model-version 2 --output repository",
    )
    parser.add_argument(
        "--model",
        nargs="+",
        type=parse_model_file,
        required=True,
        metavar="MODEL",
        help="artefacts of export.build_engine, ONNX files of export.to_onnx, or demo",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="path of the repository",
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="name of the model (default: the file name without suffix)",
    )
    parser.add_argument(
        "--model-version",
        type=int,
        default=1,
        metavar="N",
        help="version of the model that is added (default %(default)s)",
    )
    serving = parser.add_argument_group("serving")
    serving.add_argument(
        "--versions-served",
        type=int,
        default=1,
        metavar="N",
        help="serve the newest N versions (default %(default)s)",
    )
    serving.add_argument(
        "--backend",
        choices=get_args(TritonBackendName),
        help="backend of Triton (default: tensorrt for engines, python for ONNX files that were "
        "compared in OpenVINO, else onnxruntime)",
    )
    serving.add_argument(
        "--device",
        type=_parse_device,
        metavar="DEVICE",
        help="device of the instances: cpu, cuda or cuda:N (default: cpu for ONNX files that are "
        "tuned for CPUs and with --backend python, else cuda)",
    )
    serving.add_argument(
        "--gpus", nargs="+", type=int, metavar="N", help="indices of the GPUs to use (default: all)"
    )
    serving.add_argument(
        "--instances",
        type=int,
        default=1,
        metavar="N",
        help="number of instances on each GPU, or on the CPU (default %(default)s)",
    )
    serving.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="number of CPU threads of an instance, for ONNX files (default: the backend's)",
    )
    serving.add_argument(
        "--queue-delay",
        type=int,
        default=QUEUE_DELAY_US,
        metavar="US",
        help="maximum time in microseconds that a request waits to be batched, for models exported "
        "with --max-batch (default %(default)s)",
    )
    serving.add_argument(
        "--warm-up",
        type=parse_size,
        metavar="HxW",
        help="size of the request that the server sends itself before the model is ready, for "
        "models of free size",
    )
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = _PROG) -> NoReturn:
    """Runs the command and exits."""
    run_command(
        make_parser(prog),
        _triton,
        extra="triton",
        expected=(ExportError,),
        aliases=ALIASES["export.triton"],
        argv=argv,
    )


if __name__ == "__main__":
    main()
