"""Checkpoint or ONNX file -> an artefact that proved itself, and its manifest.

    python -m export.build_engine --weights demo --size 720x1280 --precision fp16 \
        --output model.engine

With --onnx nothing here needs PyTorch.
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from export.arguments import Constraints, add_graph_arguments, graph_options
from export.errors import ExportError
from runtime.cli import command_parser, parse_size, run_command
from runtime.manifest import TunedFor

if TYPE_CHECKING:
    from export.candidate import Checked
    from export.progress import Stages
    from export.source import Source
    from export.trt.build import Profile
    from export.trt.engine import Fallback

Size = tuple[int, int]

_ENGINE_OPTIONS = (
    "min", "opt", "max", "optimization_level", "workspace", "portable", "device", "rewrite",
    "timing_cache", "force", "allow_fallback", "precision_constraints", "layers",
)  # fmt: skip
"""Arguments that TensorRT alone knows."""


def _build(args: argparse.Namespace) -> None:
    if args.precision == "int8" and args.backend == "tensorrt":
        raise ExportError(
            "int8 came with --backend tensorrt: engines are fp16 or fp32, int8 is for "
            "--backend onnxruntime and openvino"
        )
    if args.precision == "int8" and args.calibrate is None:
        raise ExportError(
            "--precision int8 came without --calibrate: give a video or a folder of pictures of "
            "what the model will see"
        )
    if args.precision != "int8" and args.calibrate is not None:
        raise ExportError("--calibrate is for --precision int8: give both or neither")
    if args.backend == "tensorrt":
        _build_engines(args)
    else:
        _build_onnx(args)


def _build_onnx(args: argparse.Namespace) -> None:
    """An artefact for processors."""
    if foreign := [name for name in _ENGINE_OPTIONS if getattr(args, name) is not None]:
        shown = ", ".join("--" + name.replace("_", "-") for name in foreign)
        raise ExportError(f"{shown} came with --backend {args.backend}: TensorRT alone knows that")
    sizes = args.size or [None]
    if len(sizes) > 1:
        raise ExportError(
            f"{len(sizes)} sizes came with --backend {args.backend}: give one, or --dynamic"
        )
    options = graph_options(args, size=sizes[0])
    if args.calibrate is not None:
        del options["precision"]  # What is exported is float32.
    if args.onnx is not None:
        _refuse_what_the_file_says(args, options)

    # Here, so that --help answers at once and a missing package is one sentence.
    from export.build_report import print_report
    from export.candidate import checked_from_onnx, default_tuning
    from export.progress import Stages
    from export.store import check_folder, write_artefact

    check_folder(args.output)
    started = time.perf_counter()
    if args.calibrate is not None:
        checked = _int8(args, options)
    elif args.onnx is not None:
        with Stages(1) as stages:
            stages.start("compare")
            checked = checked_from_onnx(args.onnx, tuned_for=args.tuned_for, backend=args.backend)
    else:
        from export.from_checkpoint import STAGES, checked_from_checkpoint  # needs PyTorch
        from export.wrapper import ExportOptions

        wanted = ExportOptions(**options)
        with Stages(len(STAGES)) as stages:
            checked = checked_from_checkpoint(
                args.weights,
                wanted,
                time_steps=args.time,
                tuned_for=args.tuned_for or default_tuning(wanted.precision, args.backend),
                backend=args.backend,
                stages=stages,
            )
    manifest = write_artefact(checked, args.output, started=started)
    print_report(args.output, manifest, nodes=len(checked.model.graph.node))


def _int8(args: argparse.Namespace, options: dict[str, Any]) -> Checked:
    """From a file or a checkpoint, with the frames of --calibrate."""
    from export.int8 import build as int8
    from export.progress import Stages

    read, before = _plain_source(args, options)
    with Stages(before + len(int8.STAGES)) as stages:
        return int8.checked_int8(
            read(stages),
            args.calibrate,
            tuned_for=args.tuned_for,
            backend=args.backend,
            stages=stages,
        )


def _plain_source(
    args: argparse.Namespace, options: dict[str, Any]
) -> tuple[Callable[[Stages], Source], int]:
    """What gives the graph of a file or of a checkpoint, and in how many stages."""
    if args.onnx is not None:
        from export.source import source_from_onnx

        return lambda _: source_from_onnx(args.onnx), 0
    from export.from_checkpoint import STAGES, source_from_checkpoint  # needs PyTorch
    from export.wrapper import ExportOptions

    wanted = ExportOptions(**options)

    def traced(stages: Stages) -> Source:
        return source_from_checkpoint(args.weights, wanted, time_steps=args.time, stages=stages)

    return traced, len(STAGES) - 1  # All but the comparison.


def _build_engines(args: argparse.Namespace) -> None:
    """One TensorRT engine for each size, or one for a range of sizes."""
    if args.tuned_for is not None:
        raise ExportError("--tuned-for is for processors: TensorRT uses --rewrite")

    # TensorRT is asked for by `target_at`, after the driver.
    from export.build_report import print_report
    from export.progress import Stages
    from export.trt.build import BuildOptions
    from export.trt.cache import default_timing_cache
    from export.trt.engine import Request, target_at, write_engine

    device = args.device or 0
    target = target_at(device)
    profile = _profile(args)
    options = BuildOptions(
        profile=profile,
        optimization_level=3 if args.optimization_level is None else args.optimization_level,
        workspace_mib=args.workspace,
        portable=bool(args.portable),
        device=device,
        timing_cache=args.timing_cache
        or default_timing_cache(target.trt.__version__, target.gpu.name),
        constraints=args.precision_constraints,
    )
    if args.precision_constraints and target.generation.constraints(half=True) == (None,):
        raise ExportError(
            f"--precision-constraints came with TensorRT {target.trt.__version__}, which takes "
            "types from the graph: leave it out, it is for TensorRT 8.6"
        )
    sizes: list[Size | None] = args.size or [None]
    for size in sizes:
        output = _output(args.output, size if len(sizes) > 1 else None)
        command = _command(args, size, output)
        layers = args.layers and _output(args.layers, size if len(sizes) > 1 else None)
        request = Request(options, tuple(args.rewrite or ()), command, layers)
        with Stages(6) as stages:
            source, fallbacks = _source(args, size, stages)
            if args.precision_constraints and source.info.precision != "fp16":
                raise ExportError(
                    f"--precision-constraints came with a graph in {source.info.precision}: leave "
                    "it out, it is for fp16"
                )
            manifest = write_engine(
                target,
                source,
                output,
                request,
                force=bool(args.force),
                fallbacks=fallbacks if args.allow_fallback else (),
                stages=stages,
            )
        print_report(output, manifest, nodes=len(source.model.graph.node))


def _source(
    args: argparse.Namespace, size: Size | None, stages: Stages
) -> tuple[Source, list[Fallback]]:
    """The graph of one engine, and safer ways to say it."""
    from export.trt.engine import fallback_to_float32, fixed_size

    given = graph_options(args, size=size)
    if args.onnx is not None:
        from export.source import source_from_onnx

        # A size fixes what the file leaves free; everything else is in the file.
        _refuse_what_the_file_says(args, given.keys() - {"height", "width"})
        source = source_from_onnx(args.onnx)
        if size is not None:
            source = fixed_size(source, size)
        half = source.info.precision == "fp16"
        return source, [fallback_to_float32(source)] if half else []

    from export.from_checkpoint import source_from_checkpoint  # needs PyTorch
    from export.wrapper import ExportOptions

    if args.opt is not None:
        given |= {"height": args.opt[0], "width": args.opt[1], "dynamic": True}
    given.setdefault("precision", "fp16")
    wanted = ExportOptions(**given)

    def traced(**other: Any) -> Source:
        return source_from_checkpoint(
            args.weights, ExportOptions(**{**given, **other}), time_steps=args.time, stages=stages
        )

    source = traced()
    fallbacks: list[Fallback] = []
    if wanted.warp == "gridsample":
        fallbacks.append(("warp by gather", lambda: traced(warp="gather")))
    if wanted.precision == "fp16":
        fallbacks.append(("fp32", lambda: traced(precision="fp32")))
    return source, fallbacks


def _refuse_what_the_file_says(args: argparse.Namespace, given: Iterable[str]) -> None:
    """Refuses options of the graph beside --onnx."""
    if said := sorted([*given, *(["time"] if args.time else [])]):
        raise ExportError(
            f"--onnx came with {', '.join(said)}: the file has these already, leave them out"
        )


def _profile(args: argparse.Namespace) -> Profile | None:
    from export.trt.build import Profile

    bounds = [args.min, args.opt, args.max]
    if bounds == [None, None, None]:
        if args.dynamic:
            raise ExportError(
                "--dynamic is for ONNX files: give --min, --opt and --max, between which one "
                "engine takes any size"
            )
        return None
    if None in bounds or args.size or args.dynamic:
        raise ExportError("--min, --opt and --max go together, without --size and --dynamic")
    return Profile(*bounds)


def _output(path: Path, size: Size | None) -> Path:
    """model.engine -> model_720x1280.engine, where there are several sizes."""
    return path if size is None else path.with_stem(f"{path.stem}_{size[0]}x{size[1]}")


def _command(args: argparse.Namespace, size: Size | None, output: Path) -> str:
    """The command that builds this engine again."""
    words = ["python", "-m", "export.build_engine"]
    for name, value in vars(args).items():
        if (
            name in ("debug", "force", "size", "output", "backend", "layers")
            or value is None
            or value is False
        ):
            continue
        words.append("--" + name.replace("_", "-"))
        if name in ("min", "opt", "max"):
            words.append(f"{value[0]}x{value[1]}")
        elif isinstance(value, list):
            words += value
        elif value is not True:
            words.append(str(value))
    if size is not None:
        words += ["--size", f"{size[0]}x{size[1]}"]
    return shlex.join([*words, "--output", str(output)])


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = command_parser(
        "python -m export.build_engine",
        "Builds an artefact, compares it with its reference, and keeps it with a manifest only "
        "if it\npasses.",
        "python -m export.build_engine --weights demo --dynamic --backend onnxruntime "
        "--output model.onnx",
        "python -m export.build_engine --onnx model.onnx --backend onnxruntime --precision int8 "
        "--calibrate clip.mp4\n      --output int8.onnx",
        "python -m export.build_engine --weights demo --size 720x1280 1080x1920 "
        "--output model.engine",
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
        choices=("tensorrt", "onnxruntime", "openvino"),
        default="tensorrt",
        help="what will run the artefact (default tensorrt)",
    )
    add_graph_arguments(parser, several_sizes=True, int8=True)
    parser.add_argument(
        "--tuned-for",
        choices=get_args(TunedFor),
        help="with onnxruntime and openvino: cpu rewrites the graph for the CPU kernels of ONNX "
        "Runtime (its default for fp32 and int8), any leaves it as exported (default for OpenVINO "
        "and for fp16, and better on CUDA)",
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="PATH",
        help="with --precision int8: a video or a folder of pictures of what the model will see, "
        "of its size; all of it is decoded, some seconds are enough",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE")
    _add_engine_arguments(parser.add_argument_group("with --backend tensorrt"))
    run_command(parser, _build, extra="export", expected=(ExportError,), argv=argv)


def _add_engine_arguments(group: argparse._ArgumentGroup) -> None:
    """What TensorRT alone knows; None where it was not given."""
    for name, meaning in (("min", "smallest"), ("opt", "best"), ("max", "largest")):
        group.add_argument(
            f"--{name}", type=parse_size, metavar="HxW", help=f"{meaning} size of one engine"
        )
    group.add_argument(
        "--optimization-level", type=int, metavar="0..5", help="time spent on tactics (default 3)"
    )
    group.add_argument("--workspace", type=int, metavar="MIB", help="scratch memory (default: all)")
    group.add_argument(
        "--portable",
        action="store_const",
        const=True,
        help="for later releases of TensorRT, up to those of the next generation, and any GPU from "
        "Ampere on (on a Jetson: this GPU alone); the cost is measured",
    )
    group.add_argument("--device", type=int, metavar="N", help="index of the GPU (default 0)")
    group.add_argument(
        "--rewrite",
        nargs="+",
        metavar="NAME",
        help="rewrites of the graph; see export.graph.for_tensorrt",
    )
    group.add_argument(
        "--precision-constraints",
        choices=get_args(Constraints),
        help="TensorRT 8.6: how strictly an fp16 build is held to the types of the graph (default: "
        "all but none in this order, until an engine passes)",
    )
    group.add_argument(
        "--layers",
        type=Path,
        metavar="FILE.json",
        help="write what TensorRT's engine inspector tells of the layers, of a refused engine too",
    )
    group.add_argument(
        "--timing-cache", type=Path, metavar="FILE", help="default: one for each GPU, in ~/.cache"
    )
    group.add_argument(
        "--force", action="store_const", const=True, help="build though it is up to date"
    )
    group.add_argument(
        "--allow-fallback",
        action="store_const",
        const=True,
        help="where an engine fails the gate try warps by gather, then fp32",
    )


if __name__ == "__main__":
    main()
