"""Builds an artefact and its manifest from a checkpoint or an ONNX file, if it passes the gate.

    python -m export.build_engine --weights demo --size 720x1280 --precision fp16 \
        --output model.engine

Needs no PyTorch with --onnx.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from export.arguments import add_graph_arguments, graph_request, sizes_of
from export.errors import ExportError
from export.files import check_output, check_source
from export.request import BuildRequest, Constraints, OnnxBackend, Size, flow_scale_note
from runtime.cli.arguments import gpu_index, parse_device, parse_size
from runtime.cli.command import command_parser, run_command
from runtime.cli.grammar import ALIASES
from runtime.model_info import TunedFor

if TYPE_CHECKING:
    from export.candidate import CheckedModel
    from export.progress import Stages
    from export.source import SourceGraph
    from export.trt.build import Profile
    from export.trt.engine import Fallback

_PROG = "python -m export.build_engine"


def _build(request: BuildRequest) -> None:
    check_source(weights=request.weights, onnx=request.onnx)
    for path in filter(None, (request.output, request.layers)):
        check_output(path)
    for clip in filter(None, (request.calibrate, request.real_frames)):
        from export.gate.windows import check_clip  # Needs PyAV.

        check_clip(clip)
    if request.backend == "tensorrt":
        _build_engines(request)
    else:
        _build_onnx(request, request.backend)


def _build_onnx(request: BuildRequest, backend: OnnxBackend) -> None:
    """Builds an ONNX artefact for ONNX Runtime or OpenVINO."""
    # Imported here to keep --help fast and to report a missing package in one sentence.
    from export.build_report import print_report
    from export.candidate import checked_from_onnx, default_tuning, proved
    from export.progress import Stages
    from export.store import write_artefact

    _print_note(request)
    options = request.graph_options(request.sizes[0] if request.sizes else None)
    started = time.perf_counter()
    if request.calibrate is not None:
        checked = _checked_int8(request, request.calibrate, backend, options)
    elif request.onnx is not None:
        with Stages(1) as stages:
            stages.start("compare with reference")
            checked = checked_from_onnx(
                request.onnx,
                tuned_for=request.tuned_for,
                compact=request.compact,
                backend=backend,
            )
    else:
        from export.from_checkpoint import STAGES, checked_from_checkpoint  # Needs PyTorch.
        from export.wrapper import ExportOptions

        export_options = ExportOptions(**options)
        with Stages(len(STAGES)) as stages:
            checked = checked_from_checkpoint(
                request.checkpoint,
                export_options,
                time_steps=request.time,
                tuned_for=request.tuned_for or default_tuning(export_options.precision, backend),
                compact=request.compact,
                backend=backend,
                stages=stages,
            )
    if backend == "openvino":
        checked = proved(checked, request.real_frames or request.calibrate)
    manifest = write_artefact(checked, request.output, started=started)
    print_report(request.output, manifest, nodes=len(checked.model.graph.node))


def _print_note(request: BuildRequest) -> None:
    """Prints `flow_scale_note`, unless an ONNX file already fixes the flow scale."""
    if request.onnx is None and (note := flow_scale_note(request.graph, request.sizes)):
        print(note, flush=True)


def _checked_int8(
    request: BuildRequest, clip: Path, backend: OnnxBackend, options: dict[str, Any]
) -> CheckedModel:
    """Quantises the graph of a file or of a checkpoint with the frames of `clip`."""
    from export.int8 import build as int8
    from export.progress import Stages

    total = len(int8.STAGES)
    if request.onnx is None:
        from export.from_checkpoint import SOURCE_STAGES  # Needs PyTorch.

        total += len(SOURCE_STAGES)
    with Stages(total) as stages:
        return int8.checked_int8(
            _source(request, options, stages),
            clip,
            tuned_for=request.tuned_for,
            compact=request.compact,
            backend=backend,
            stages=stages,
        )


def _build_engines(request: BuildRequest) -> None:
    """Builds a TensorRT engine for each size, or one for a range of sizes."""
    # `target_at` imports TensorRT, after it has found a driver.
    from export.build_report import print_report
    from export.progress import Stages
    from export.trt.build import BuildOptions
    from export.trt.cache import default_timing_cache
    from export.trt.engine import EngineRequest, target_at, write_engine

    device = request.device or 0
    target = target_at(device)
    level = request.optimization_level
    options = BuildOptions(
        profile=_profile(request),
        optimization_level=3 if level is None else level,
        workspace_mib=request.workspace,
        portable=request.portable,
        device=device,
        timing_cache=request.timing_cache
        or default_timing_cache(target.trt.__version__, target.gpu.name),
        constraints=request.precision_constraints,
    )
    if request.precision_constraints and target.generation.constraints(half=True) == (None,):
        raise ExportError(
            f"--precision-constraints was given with TensorRT {target.trt.__version__}, which "
            "takes types from the graph: leave it out, or use TensorRT 8.6"
        )
    _print_note(request)
    sizes: tuple[Size | None, ...] = request.sizes or (None,)
    for size in sizes:
        output = _output(request.output, size if len(sizes) > 1 else None)
        layers = request.layers and _output(request.layers, size if len(sizes) > 1 else None)
        engine = EngineRequest(options, request.rewrite, request.command(size, output), layers)
        with Stages(6) as stages:
            source, fallbacks = _engine_source(request, size, stages)
            if request.precision_constraints and source.info.precision != "fp16":
                raise ExportError(
                    "--precision-constraints was given with a graph in "
                    f"{source.info.precision}: leave it out, or use --precision fp16"
                )
            manifest = write_engine(
                target,
                source,
                output,
                engine,
                force=request.rebuild,
                fallbacks=fallbacks if request.allow_fallback else (),
                stages=stages,
            )
        print_report(output, manifest, nodes=len(source.model.graph.node))


def _engine_source(
    request: BuildRequest, size: Size | None, stages: Stages
) -> tuple[SourceGraph, list[Fallback]]:
    """The graph of an engine, and the graphs to build instead if it fails."""
    from export.trt.engine import fallback_to_float32, fixed_size

    options = request.graph_options(size)
    if request.onnx is not None:
        source = _source(request, options, stages)
        if size is not None:
            source = fixed_size(source, size)
        half = source.info.precision == "fp16"
        return source, [fallback_to_float32(source)] if half else []

    if request.opt is not None:
        options |= {"height": request.opt[0], "width": request.opt[1], "dynamic": True}
    options.setdefault("precision", "fp16")
    source = _source(request, options, stages)
    fallbacks: list[Fallback] = []
    if source.info.warp == "gridsample":
        fallbacks.append(
            ("warp by gather", lambda: _source(request, {**options, "warp": "gather"}, stages))
        )
    if source.info.precision == "fp16":
        fallbacks.append(
            ("fp32", lambda: _source(request, {**options, "precision": "fp32"}, stages))
        )
    return source, fallbacks


def _source(request: BuildRequest, options: dict[str, Any], stages: Stages) -> SourceGraph:
    """The graph of the ONNX file, or else of the checkpoint exported with `options`."""
    if request.onnx is not None:
        from export.source import source_from_onnx

        return source_from_onnx(request.onnx)
    from export.from_checkpoint import source_from_checkpoint  # Needs PyTorch.
    from export.wrapper import ExportOptions

    return source_from_checkpoint(
        request.checkpoint, ExportOptions(**options), time_steps=request.time, stages=stages
    )


def _profile(request: BuildRequest) -> Profile | None:
    from export.trt.build import Profile

    return Profile(*request.bounds) if request.bounds else None


def _output(path: Path, size: Size | None) -> Path:
    """The path with the size, if it is not None: model.engine -> model_720x1280.engine."""
    return path if size is None else path.with_stem(f"{path.stem}_{size[0]}x{size[1]}")


def _request(args: argparse.Namespace) -> BuildRequest:
    names = {field.name for field in fields(BuildRequest)}
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(args).items()
        if name in names and value is not None
    }
    return BuildRequest(graph=graph_request(args), sizes=sizes_of(args), **given)


def make_parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """The parser of the command, which is called as `prog`."""
    parser = command_parser(
        prog,
        "Builds an artefact, compares it with its reference, and writes it with a manifest only "
        "if it\npasses.",
        "%(prog)s --weights demo --backend onnxruntime --output model.onnx",
        "%(prog)s --weights demo --like in.mp4 --output model.engine",
        "%(prog)s --onnx plain.onnx --backend onnxruntime --precision int8 "
        "--calibrate clip.mp4\n      --output int8.onnx",
        "%(prog)s --weights demo --size 720x1280 1080x1920 --output model.engine",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", metavar="FILE", help="checkpoint: .pth, .safetensors, or demo")
    source.add_argument(
        "--onnx",
        type=Path,
        metavar="FILE",
        help="ONNX file of export.to_onnx; needs no PyTorch",
    )
    parser.add_argument(
        "--backend",
        choices=("tensorrt", "onnxruntime", "openvino"),
        default="tensorrt",
        help="backend that will run the artefact (default %(default)s)",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help="path of the artefact to write"
    )
    graph = parser.add_argument_group("graph")
    add_graph_arguments(graph, several_sizes=True, int8=True)
    on_cpus = parser.add_argument_group("options of --backend onnxruntime and openvino")
    on_cpus.add_argument(
        "--tuned-for",
        choices=get_args(TunedFor),
        help="cpu rewrites the graph for the CPU kernels of ONNX Runtime (default for fp32 and "
        "int8 in onnxruntime); any leaves it as exported (default for openvino and fp16, and "
        "faster on CUDA)",
    )
    on_cpus.add_argument(
        "--compact",
        action="store_const",
        const=True,
        help="store weights as float16 where no value changes, which halves the file of weights "
        "that were published in float16",
    )
    on_cpus.add_argument(
        "--calibrate",
        type=Path,
        metavar="PATH",
        help="for --precision int8: a video or a folder of images like those that the model will "
        "process, of any length; frames of another size than --size are scaled and cropped to it",
    )
    on_cpus.add_argument(
        "--real-frames",
        type=Path,
        metavar="PATH",
        help="video or folder of images on which bf16 and fp16 are compared with fp32, for "
        "openvino (default: that of --calibrate, else a shipped clip)",
    )
    _add_engine_arguments(parser.add_argument_group("options of --backend tensorrt"))
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = _PROG) -> NoReturn:
    """Runs the command and exits."""
    run_command(
        make_parser(prog),
        lambda args: _build(_request(args)),
        extra="export",
        expected=(ExportError,),
        aliases=ALIASES["export.build_engine"],
        argv=argv,
    )


def _parse_gpu(text: str) -> int:
    """Reads cuda or cuda:N as the index of a GPU; also N alone, the earlier form."""
    if text.isdigit():
        return int(text)
    device = parse_device(text)
    if device == "cpu":
        raise argparse.ArgumentTypeError("cpu cannot hold an engine: write cuda or cuda:N")
    return gpu_index(device) or 0


def _add_engine_arguments(group: argparse._ArgumentGroup) -> None:
    """Adds the options of TensorRT. Without a value on the command line they are None."""
    for name, meaning in (("min", "minimum"), ("opt", "optimum"), ("max", "maximum")):
        group.add_argument(
            f"--{name}",
            type=parse_size,
            metavar="HxW",
            help=f"{meaning} size of an engine for a range of sizes",
        )
    group.add_argument(
        "--optimization-level",
        type=int,
        metavar="N",
        help="time spent on the search for fast kernels, 0 to 5 (default 3)",
    )
    group.add_argument(
        "--workspace", type=int, metavar="MIB", help="limit of scratch memory (default: none)"
    )
    group.add_argument(
        "--portable",
        action="store_const",
        const=True,
        help="build an engine that also runs in later releases of TensorRT, up to the next "
        "generation, and on any GPU from Ampere on (on a Jetson: on this GPU only), and measure "
        "the slowdown",
    )
    group.add_argument(
        "--device",
        type=_parse_gpu,
        metavar="DEVICE",
        help="device to build on and for: cuda or cuda:N (default cuda:0)",
    )
    group.add_argument(
        "--rewrite",
        nargs="+",
        metavar="NAME",
        help="rewrites of the graph, of side, channels, deconvolution, grid, prelu, prelu_max and "
        "round (default: none; docs/tensorrt.md describes them)",
    )
    group.add_argument(
        "--precision-constraints",
        choices=get_args(Constraints),
        help="TensorRT 8.6: how strictly an fp16 build keeps the types of the graph (default: the "
        "first three in this order, until an engine passes)",
    )
    group.add_argument(
        "--layers",
        type=Path,
        metavar="FILE",
        help="write the JSON of TensorRT's engine inspector, which describes the layers, also for "
        "an engine that fails the gate",
    )
    group.add_argument(
        "--timing-cache",
        type=Path,
        metavar="FILE",
        help="timing cache (default: one for each TensorRT and GPU, in ~/.cache/ifrnet-deploy)",
    )
    group.add_argument(
        "--rebuild", action="store_const", const=True, help="build even if the engine is up to date"
    )
    group.add_argument(
        "--allow-fallback",
        action="store_const",
        const=True,
        help="if an engine cannot be built or fails the gate, try warps by gather, then fp32",
    )


if __name__ == "__main__":
    main()
