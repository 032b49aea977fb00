"""Measures the latency of a pair in artefacts and PyTorch, in interleaved rounds of one run.

python -m bench.latency --dataset vimeo90k ucf101 gopro --model demo --report report.html
python -m bench.latency --device cuda --weights demo --compare authors:half compile-max:fp16

A table with a line for each data set or size ends the output: new frames a second, times, speed
and agreement against PyTorch. `--compare` needs no artefact, and `--model` and `--plain` need no
PyTorch, so each can be measured in a Python environment of its own. A baseline that fails does not
end the measurement: it is printed, and recorded with the reason in "failed".
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bench.data.protocols import LATENCY_SETS
from bench.environment import MeasurementError, check_writable, write_evidence
from bench.harness.ceilings import cpu_ceilings, gpu_ceilings
from bench.harness.measure import STREAM_FRAMES, measure_case
from bench.harness.opening import all_failed
from bench.harness.planning import plan_runs
from bench.harness.request import COMPARE_LIMIT_S, SAMPLES, SECONDS, LatencyRequest
from bench.harness.text import case_lines
from bench.records.common import FORMAT_VERSION
from bench.records.latency import LatencyMeasurement
from bench.report.fps import fps_table
from bench.report.text import text_table
from bench.runs.artefact import ArtefactRun, Run, artefact_runs, is_engine
from bench.runs.case import Case
from bench.runs.plain_engine import PlainRun, plain_runs
from bench.runs.pytorch import PyTorchRun, pytorch_runs
from bench.runs.torch_forms import CPU_FORMS, GPU_FORMS
from ifrnet_model.weights.table import checkpoint_named
from runtime.cli.arguments import (
    add_cpu_arguments,
    parse_device,
    parse_model_file,
    parse_size,
)
from runtime.cli.command import command_parser, run_command
from runtime.cli.grammar import ALIASES
from runtime.machine import available_cpus

if TYPE_CHECKING:
    from bench.runs.torch_gpu import TorchGpu

_PROG = "python -m bench.latency"
_BASELINES = ("authors",)
"""What `--weights` is measured with if `--compare` is not given: the published formulation."""


def _measure(args: argparse.Namespace) -> None:
    request = _request(args)
    json_file = _evidence_file(args)
    if args.report is not None:
        importlib.import_module("bench.report.page")  # Missing packages are named now.
    threads = request.threads or available_cpus()
    plan = _plan(request, threads, report=args.report is not None)
    on_gpu = all(run.on_gpu for _, runs in plan for run in runs)
    ceilings, ceilings_record = gpu_ceilings(request.device) if on_gpu else cpu_ceilings(threads)
    record: LatencyMeasurement = {
        "kind": "latency",
        "format_version": FORMAT_VERSION,
        "what": "one pair, end to end: uint8 frames in, uint8 frames out, padding and conversion "
        "included",
        "threads": None if on_gpu else threads,
        "ceilings": ceilings_record,
        "cases": [],
        "layers_milliseconds": {},
    }
    options = request.measure_options(threads)
    for case, runs in plan:
        measured, layers = measure_case(case, runs, options, ceilings)
        print(*case_lines(measured, layers, threads=record["threads"]), sep="\n", flush=True)
        record["cases"].append(measured)
        place = f" at {case.size_text}" if len(plan) > 1 else ""
        record["layers_milliseconds"] |= {f"{file}{place}": of for file, of in layers.items()}
    if not any(case["runs"] for case in record["cases"]):
        raise all_failed(record["cases"][0]["failed"])
    print("", *text_table(fps_table([(case, "") for case in record["cases"]])), sep="\n")
    if json_file is not None:
        write_evidence(json_file, record)
        if args.report is not None:
            _write_report(args.report, json_file)


def _evidence_file(args: argparse.Namespace) -> Path | None:
    """The JSON file of the measurement: --json, or beside --report; None without both."""
    json_file: Path | None = args.json
    if args.report is not None:
        check_writable(args.report, "--report")
        json_file = json_file or args.report.with_suffix(".json")
        if json_file == args.report:
            raise MeasurementError(
                f"--report {args.report} is also the name of its evidence: give a name that ends "
                "in .html"
            )
    if json_file is not None:
        check_writable(json_file, "--json")
    return json_file


def _write_report(path: Path, json_file: Path) -> None:
    from bench.report.__main__ import write_page
    from bench.report.evidence import read_evidence
    from bench.report.tables import report_tables

    evidence = read_evidence([json_file])
    write_page(path, evidence, report_tables(evidence))


def _request(args: argparse.Namespace) -> LatencyRequest:
    return LatencyRequest(
        models=tuple(args.model),
        compare=tuple(args.compare) or (_BASELINES if args.weights is not None else ()),
        weights=args.weights,
        plain=args.plain,
        datasets=tuple(args.dataset or ()),
        roots=tuple(args.root or ()),
        sizes=tuple(args.size or ()),
        factor=args.factor,
        device=args.device,
        backends=tuple(args.backend or ()),
        inference_precisions=tuple(args.precision),
        threads=args.threads,
        streams=tuple(args.streams or ()),
        without_cuda_graph=args.no_cuda_graph,
        without_io_binding=args.no_io_binding,
        samples=args.samples,
        seconds=args.seconds,
        stream_frames=args.stream_frames,
        cold_start=not args.no_cold_start,
        profile=args.profile,
        compare_limit=args.compare_limit,
    )


def _plan(request: LatencyRequest, threads: int, *, report: bool) -> list[tuple[Case, list[Run]]]:
    """The cases with their runs. It opens every artefact once, and measures nothing.

    Args:
        request: The request.
        threads: CPU threads of a run on the CPU.
        report: Whether PyTorch is measured if its weights are known, though not requested.
    """
    cases = request.cases()
    artefacts = artefact_runs(
        request.models,
        device=request.device,
        threads=threads,
        streams=request.streams or (1,),
        cuda_graphs=(True, False) if request.without_cuda_graph else (True,),
        io_bindings=(True, False) if request.without_io_binding else (True,),
        backends=request.backends or (None,),
        precisions=request.inference_precisions,
    )
    if report and request.weights is None and _pytorch_can_join(request, artefacts):
        request = replace(request, weights="demo", compare=_BASELINES)
    gpu = _gpu_of_pytorch(request)
    baselines: list[PyTorchRun] = []
    if request.weights is not None:
        baselines = pytorch_runs(
            request.compare, request.weights, threads=threads, artefacts=artefacts, gpu=gpu
        )
    plains: Sequence[PlainRun] = ()
    if request.plain is not None:
        engines = [artefact for artefact in artefacts if is_engine(artefact.path)]
        plains = plain_runs(request.plain, engines, device=request.device)
    return plan_runs(cases, artefacts, baselines, plains)


def _pytorch_can_join(request: LatencyRequest, artefacts: Sequence[ArtefactRun]) -> bool:
    """Whether all artefacts have the shipped weights, and PyTorch can run on their device."""
    demo = checkpoint_named("demo").sha256
    return (
        all(artefact.model.weights_sha256 == demo for artefact in artefacts)
        and (request.on_gpu or not request.engines)
        and importlib.util.find_spec("torch") is not None
    )


def _gpu_of_pytorch(request: LatencyRequest) -> TorchGpu | None:
    """The GPU for --compare; None: the CPU."""
    if not (request.compare and request.on_gpu):
        return None
    from bench.runs.torch_gpu import torch_gpu

    return torch_gpu(request.device or "cuda")


def make_parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """The parser of the command, which is called as `prog`."""
    parser = command_parser(
        prog,
        "Measures the latency of a pair in artefacts and PyTorch, in interleaved rounds.",
        "%(prog)s --dataset vimeo90k ucf101 gopro --model demo --report report.html",
        "%(prog)s --model model.onnx --weights demo --compare authors torch",
        "%(prog)s --model model.onnx --dataset ucf101 --root DIR --json new.json",
        "%(prog)s --model model.engine --size 720x1280 --streams 1 2 --profile",
        "%(prog)s --model demo --backend openvino --precision fp32 bf16",
        "%(prog)s --model model.engine --plain plain.onnx --size 720x1280",
        "%(prog)s --device cuda --weights demo --compare authors:half compile:fp16",
    )
    _add_run_arguments(parser)
    _add_case_arguments(parser)
    _add_execution_arguments(parser)
    _add_measurement_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = _PROG) -> NoReturn:
    """The command line."""
    run_command(
        make_parser(prog),
        _measure,
        extra="bench,export",
        aliases=ALIASES["bench.latency"],
        argv=argv,
    )


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("runs")
    group.add_argument(
        "--model",
        nargs="+",
        default=[],
        type=parse_model_file,
        metavar="MODEL",
        help="artefacts to measure, or demo",
    )
    group.add_argument(
        "--weights",
        metavar="FILE",
        help="checkpoint of PyTorch, or demo (default: demo with --report, if the artefacts have "
        "its weights and PyTorch is installed)",
    )
    group.add_argument(
        "--compare",
        nargs="+",
        metavar="NAME",
        default=(),
        help="PyTorch in float32 (default: authors, with --weights): our module (torch), the "
        "authors' formulation (authors), our module through torch.compile (compile; compile-max: "
        "mode max-autotune). Options follow after a colon: tf32 (in cuDNN), half (model.half()), "
        "autocast (torch.autocast), fp16 (float16 with float32 islands, as our artefacts), "
        f"channels_last. Possible on a CPU: {', '.join(CPU_FORMS)}; with --device "
        f"cuda: {', '.join(GPU_FORMS)}",
    )
    group.add_argument(
        "--compare-limit",
        type=float,
        metavar="S",
        help="time limit in seconds for the first pair of each run of --compare; a run that takes "
        f"longer is recorded as failed (default {COMPARE_LIMIT_S:.0f}; not on Windows)",
    )
    group.add_argument(
        "--plain",
        type=Path,
        metavar="FILE",
        help="an ONNX export of the authors' formulation with the same weights (float32 img0, "
        "img1, timestep, imgt), to build with the same TensorRT and to measure beside --model",
    )


def _add_case_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("frame sizes")
    sizes = group.add_mutually_exclusive_group()
    sizes.add_argument(
        "--dataset",
        nargs="+",
        choices=tuple(LATENCY_SETS),
        help="data sets whose frame size and factor are measured, with made frames unless --root "
        "is given",
    )
    sizes.add_argument(
        "--size",
        nargs="+",
        type=parse_size,
        metavar="HxW",
        help="height and width of the frames, one or several (default 256x448)",
    )
    group.add_argument(
        "--root",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="folder of the data sets, or one for each, whose own frames are measured, whole",
    )
    group.add_argument(
        "--factor",
        type=int,
        metavar="N",
        help="new frame rate divided by the old one, with --size (default 2)",
    )


def _add_execution_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("execution")
    group.add_argument(
        "--device",
        type=parse_device,
        metavar="DEVICE",
        help="device of --model and --compare: cpu, cuda or cuda:N (default: chosen by the "
        "backend, and the CPU for --compare)",
    )
    group.add_argument(
        "--backend",
        nargs="+",
        choices=("onnxruntime", "openvino"),
        help="backends of ONNX files, each of which is a run (default: chosen by the runtime)",
    )
    add_cpu_arguments(group, several_precisions=True)
    group.add_argument(
        "--streams",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers of inferences at the same time (TensorRT, OpenVINO), each of which is a run "
        "(default 1)",
    )
    group.add_argument(
        "--no-cuda-graph",
        action="store_true",
        help="also measure engines without a CUDA graph",
    )
    group.add_argument(
        "--no-io-binding",
        action="store_true",
        help="also measure ONNX files on --device cuda without I/O binding",
    )


def _add_measurement_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("measurement")
    group.add_argument(
        "--samples",
        type=int,
        default=SAMPLES,
        metavar="N",
        help="minimum number of samples of each run (default %(default)s)",
    )
    group.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        metavar="S",
        help="minimum time of each run in seconds (default %(default)g)",
    )
    group.add_argument(
        "--stream-frames",
        type=int,
        metavar="N",
        help="number of frames of the stream that measures throughput (default: "
        f"{STREAM_FRAMES} with engines or --streams, else no stream)",
    )
    group.add_argument(
        "--no-cold-start",
        action="store_true",
        help="do not measure the cold start in new processes",
    )
    group.add_argument(
        "--profile",
        action="store_true",
        help="also time every layer of engines, and of ONNX files on a CPU",
    )
    group.add_argument("--json", type=Path, metavar="FILE", help="write the measurements as JSON")
    group.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write a page with the table, plots and the evidence, and the measurements as JSON "
        "beside it unless --json is given",
    )


if __name__ == "__main__":
    main()
