"""How long a pair takes, with the evidence: artefacts and PyTorch in one run, in turns.

python -m bench.latency --model model.onnx --weights demo --compare authors --dataset vimeo90k
python -m bench.latency --device cuda --weights demo --compare authors:half compile-max:fp16

Where PyTorch and TensorRT live in two Pythons, each measures its own: no artefact is needed for
`--compare`, and no PyTorch for `--model` and `--plain`. A baseline that fails does not end the
measurement: it is printed, and recorded under "failed" with the reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from bench.data.protocols import LATENCY_SETS
from bench.environment import MeasurementError, check_writable, write_evidence
from bench.harness.measure import STREAM_FRAMES, How, measure_case
from bench.harness.opening import can_be_limited, nothing_left
from bench.harness.text import case_lines
from bench.runs.artefact import (
    ArtefactRun,
    Case,
    Run,
    artefact_runs,
    calls_of_a_pair,
    case_of_dataset,
    is_engine,
)
from bench.runs.plain_engine import PlainRun, plain_runs
from bench.runs.pytorch import PyTorchRun, pytorch_runs
from bench.runs.torch_forms import GPU_FORMS, PROCESSOR_FORMS, check_names
from runtime.backends.base import InferencePrecision
from runtime.cli import command_parser, parse_size, run_command
from runtime.frames import MINIMUM_SIDE
from runtime.machine import available_processors

if TYPE_CHECKING:
    from bench.harness.roofline import Ceilings
    from bench.runs.torch_gpu import TorchGpu

FORMAT_VERSION = 1
"""Of the evidence."""

_SIZE = (256, 448)
_SAMPLES, _SECONDS = 30, 3.0
_COMPARE_LIMIT_S = 500.0


def _measure(args: argparse.Namespace) -> None:
    _check_arguments(args)
    gpu = _gpu_of_pytorch(args)
    threads = args.threads or available_processors()
    artefacts = artefact_runs(
        args.model,
        device=args.device,
        threads=threads,
        streams=args.streams or (1,),
        cuda_graphs=(True, False) if args.no_cuda_graph else (True,),
        io_bindings=(True, False) if args.no_io_binding else (True,),
        backends=args.backend or (None,),
        precision=args.inference_precision,
    )
    baselines: list[PyTorchRun] = []
    if args.compare:
        baselines = pytorch_runs(
            args.compare, args.weights, threads=threads, artefacts=artefacts, gpu=gpu
        )
    plains: Sequence[PlainRun] = ()
    if args.plain is not None:
        engines = [artefact for artefact in artefacts if is_engine(artefact.path)]
        plains = plain_runs(args.plain, engines, device=args.device)
    plan = planned(_cases(args), artefacts, baselines, plains)
    on_gpu = all(run.on_gpu for _, runs in plan for run in runs)
    ceilings, said = _gpu_ceilings(args) if on_gpu else _ceilings(threads)
    record: dict[str, Any] = {
        "kind": "latency",
        "format_version": FORMAT_VERSION,
        "what": "one pair, end to end: uint8 frames in, uint8 frames out, padding and conversion "
        "included",
        "threads": None if on_gpu else threads,
        "ceilings": said,
        "cases": [],
        "layers_milliseconds": {},
    }
    how = How(
        samples=args.samples,
        seconds=args.seconds,
        cold=not args.no_cold,
        stream_frames=args.stream_frames
        or (STREAM_FRAMES if _engines(args) or args.streams else None),
        profile=args.profile,
        threads=threads,
        limit_s=args.compare_limit or (_COMPARE_LIMIT_S if can_be_limited() else None),
    )
    for case, runs in plan:
        measured, layers = measure_case(case, runs, how, ceilings)
        print(*case_lines(measured, layers, threads=record["threads"]), sep="\n", flush=True)
        record["cases"].append(measured)
        place = f" at {case.size_text}" if len(plan) > 1 else ""
        record["layers_milliseconds"] |= {f"{file}{place}": of for file, of in layers.items()}
    if not any(case["runs"] for case in record["cases"]):
        raise nothing_left(record["cases"][0]["failed"])
    if args.json is not None:
        write_evidence(args.json, record)


def _engines(args: argparse.Namespace) -> list[Path]:
    return [path for path in args.model if is_engine(path)]


def _check_arguments(args: argparse.Namespace) -> None:
    """What can be known to be wrong before anything is opened."""
    if not args.model and not args.compare:
        raise MeasurementError("there is nothing to measure: give --model, --compare, or both")
    if bool(args.compare) != (args.weights is not None):
        given, lacking = ("--compare", "--weights") if args.compare else ("--weights", "--compare")
        raise MeasurementError(
            f"{given} needs {lacking}: give both, as --compare torch authors --weights demo"
        )
    check_names(args.compare, on_gpu=_on_gpu(args))
    if args.plain is not None and not _engines(args):
        raise MeasurementError("--plain is measured beside an engine: give one with --model")
    if args.compare_limit is not None and not can_be_limited():
        raise MeasurementError("--compare-limit does not work on Windows: leave it out")
    if args.dataset and args.factor is not None:
        raise MeasurementError("a data set has a factor of its own: leave --factor, or give --size")
    if args.no_cuda_graph and not _engines(args):
        raise MeasurementError("--no-cuda-graph is for TensorRT engines: leave it out")
    onnx_files = len(args.model) > len(_engines(args))
    if args.no_io_binding and not (onnx_files and _on_gpu(args)):
        raise MeasurementError("--no-io-binding is for ONNX files with --device cuda: leave it out")
    least = {
        "factor": 2, "samples": 1, "seconds": 0, "threads": 1, "stream_frames": 2,
        "compare_limit": 1,
    }  # fmt: skip
    for name, low in least.items():
        value = getattr(args, name)
        if value is not None and not value >= low:
            option = name.replace("_", "-")
            raise MeasurementError(f"--{option} is {value}: use {low} or more")
    for height, width in args.size or ():
        if min(height, width) < MINIMUM_SIDE:
            raise MeasurementError(
                f"--size is {height}x{width}: frames are at least {MINIMUM_SIDE}x{MINIMUM_SIDE}"
            )
    if args.json is not None:
        check_writable(args.json, "--json")


def _cases(args: argparse.Namespace) -> list[Case]:
    if args.dataset:
        return [case_of_dataset(name) for name in dict.fromkeys(args.dataset)]
    sizes = dict.fromkeys(args.size or [_SIZE])
    return [Case(None, size, args.factor or 2, None) for size in sizes]


def planned(
    cases: Sequence[Case],
    artefacts: Sequence[ArtefactRun],
    baselines: Sequence[PyTorchRun],
    plains: Sequence[PlainRun] = (),
) -> list[tuple[Case, list[Run]]]:
    """Which runs make which case: a file those sizes that it takes, PyTorch all of them.

    Raises:
        MeasurementError: If an artefact takes none of the sizes, or a size has no run.
        FrameError: If weights cannot make a factor.
    """
    sizes = ", ".join(dict.fromkeys(case.size_text for case in cases))
    for artefact in artefacts:
        if not any(artefact.takes(case.size) for case in cases):
            raise MeasurementError(
                f"{artefact.file} takes {artefact.sizes}, none of {sizes}: build one with "
                f"python -m export.build_engine --size {cases[0].size_text}, or leave it out"
            )
    for plain in plains:
        if not any(plain.takes(case.size) for case in cases):
            made_for = "{}x{}".format(*plain.file.size)
            raise MeasurementError(
                f"{plain.file.path.name} takes {made_for}, none of {sizes}: give --size {made_for}"
            )
    plan = []
    for case in cases:
        fitting = [artefact for artefact in artefacts if artefact.takes(case.size)]
        runs: list[Run] = [*fitting, *baselines, *(p for p in plains if p.takes(case.size))]
        if not runs:
            raise MeasurementError(
                f"no artefact takes {case.size_text}: build one with "
                f"python -m export.build_engine --size {case.size_text}, or leave that size out"
            )
        if artefacts and not fitting:
            print(f"no artefact takes {case.size_text}: PyTorch is measured there alone")
        for run in runs:
            calls_of_a_pair(run.info(case), case.factor)  # Or the weights cannot.
        plan.append((case, runs))
    return plan


def _on_gpu(args: argparse.Namespace) -> bool:
    return (args.device or "").startswith("cuda")


def _gpu_of_pytorch(args: argparse.Namespace) -> TorchGpu | None:
    """Where --compare computes; None: on the processor."""
    if not (args.compare and _on_gpu(args)):
        return None
    from bench.runs.torch_gpu import torch_gpu

    return torch_gpu(args.device)


def _ceilings(threads: int) -> tuple[Ceilings | None, dict[str, Any]]:
    """What this machine's processor reaches, and what the evidence says about it."""
    try:
        from bench.harness.roofline import measured_ceilings
    except ModuleNotFoundError as error:
        return None, _no_ceilings(error)
    ceilings = measured_ceilings(threads)
    print(
        f"this machine, {ceilings.measured_with}: matmul of float32 "
        f"{ceilings.matmul_flops_per_second / 1e9:.0f} GFLOP/s, copy "
        f"{ceilings.copy_bytes_per_second / 1e9:.1f} GB/s"
    )
    return ceilings, ceilings.record()


def _gpu_ceilings(args: argparse.Namespace) -> tuple[None, dict[str, Any]]:
    """What the GPU reaches, and what the evidence says about it.

    It is measured with PyTorch. The Python that runs engines often has none that can use the GPU.
    """
    try:
        from bench.harness.gpu_peak import matmul_peak
        from bench.runs.torch_gpu import torch_gpu
    except ModuleNotFoundError as error:
        return None, _no_ceilings(error)
    try:
        peak = matmul_peak(torch_gpu(args.device or "cuda"))
    except (MeasurementError, RuntimeError) as error:  # The latter are PyTorch's own.
        why = str(error).partition("\n")[0]
        if isinstance(error, MeasurementError):
            why = why.partition(": ")[0]  # The remedy is that of --compare.
        problem = f"the peak of the GPU is measured with PyTorch, and {why}"
        print(f"{problem}: it was not measured")
        return None, {"problem": problem}
    print(
        f"{peak['gpu']}, {peak['measured_with']}: matmul of float16 "
        f"{peak['matmul_fp16_tflops']['p50']:.4g} TFLOP/s"
    )
    return None, peak


def _no_ceilings(error: ModuleNotFoundError) -> dict[str, Any]:
    problem = f"the package {error.name} is not installed"
    print(f"{problem}: operations are not counted, and ceilings of the machine not measured")
    return {"problem": problem}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = command_parser(
        "python -m bench.latency",
        "Measures how long one pair takes, artefacts and PyTorch in turns in one run.",
        "python -m bench.latency --model model.onnx --weights demo --compare authors torch",
        "python -m bench.latency --model model.onnx --dataset vimeo90k snufilm --json new.json",
        "python -m bench.latency --model model.engine --size 720x1280 --streams 1 2 --profile",
        "python -m bench.latency --model model.engine --plain plain.onnx --size 720x1280",
        "python -m bench.latency --device cuda --weights demo --compare authors:half compile:fp16",
    )
    parser.add_argument("--model", nargs="+", default=[], type=Path, metavar="FILE")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--dataset",
        nargs="+",
        choices=tuple(LATENCY_SETS),
        help="measure at the size and the factor of these; their data is not needed",
    )
    what.add_argument("--size", nargs="+", type=parse_size, metavar="HxW", help="default 256x448")
    parser.add_argument(
        "--factor", type=int, metavar="N", help="with --size: N - 1 new frames (default 2)"
    )
    parser.add_argument("--weights", metavar="FILE", help="for --compare: a checkpoint, or demo")
    parser.add_argument(
        "--compare",
        nargs="+",
        metavar="NAME",
        default=(),
        help="PyTorch in float32: our module (torch), the authors' formulation (authors), our "
        "module through torch.compile (compile; compile-max: mode max-autotune). Options follow "
        "after a colon: tf32 (in cuDNN), half (model.half()), autocast (torch.autocast), fp16 "
        "(float16 with float32 islands, as our artefacts), channels_last. Possible on a "
        f"processor: {', '.join(PROCESSOR_FORMS)}; with --device cuda: {', '.join(GPU_FORMS)}",
    )
    parser.add_argument(
        "--compare-limit",
        type=float,
        metavar="S",
        help="seconds until the first pair, for each of --compare: one that takes longer is "
        f"recorded as failed (default {_COMPARE_LIMIT_S:.0f}; not on Windows)",
    )
    parser.add_argument(
        "--plain",
        type=Path,
        metavar="FILE",
        help="an ONNX export of the authors' formulation with the same weights (float32 img0, "
        "img1, timestep, imgt): built by the same TensorRT and measured beside --model",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="cpu, cuda or cuda:N, of --model and of --compare (default: the backend's own, and "
        "the processor for --compare)",
    )
    parser.add_argument(
        "--backend",
        nargs="+",
        choices=("onnxruntime", "openvino"),
        help="of ONNX files: each is a run (default: as the runtime chooses)",
    )
    parser.add_argument(
        "--inference-precision",
        choices=get_args(InferencePrecision),
        help="OpenVINO: what convolutions are computed in (default fp32)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="processors (default: all)")
    parser.add_argument(
        "--streams",
        type=int,
        nargs="+",
        metavar="N",
        help="engines and OpenVINO: each number is a run",
    )
    parser.add_argument(
        "--no-cuda-graph", action="store_true", help="engines: measure them without one too"
    )
    parser.add_argument(
        "--no-io-binding",
        action="store_true",
        help="ONNX files with --device cuda: measure them without it too",
    )
    parser.add_argument(
        "--stream-frames",
        type=int,
        metavar="N",
        help=f"of the stream that shows the throughput (default {STREAM_FRAMES} with engines)",
    )
    parser.add_argument(
        "--no-cold", action="store_true", help="do not start processes for the first pair"
    )
    parser.add_argument("--profile", action="store_true", help="time of every layer or node")
    parser.add_argument(
        "--samples", type=int, default=_SAMPLES, metavar="N", help=f"at least (default {_SAMPLES})"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=_SECONDS,
        metavar="S",
        help=f"of each run, at least (default {_SECONDS:.0f})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence")
    run_command(parser, _measure, extra="export", argv=argv)


if __name__ == "__main__":
    main()
