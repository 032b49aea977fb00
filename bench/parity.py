"""Compares artefacts with PyTorch, and both with the true frames of a data set.

python -m bench.parity --model model.onnx --weights demo --dataset ucf101 --root DIR
"""

from __future__ import annotations

import argparse
import contextlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, get_args

from bench.data.datasets import DataSet
from bench.data.protocols import PROTOCOLS, Metric, Rules, protocol_lines
from bench.environment import MeasurementError, check_writable
from bench.quality.evaluate import Comparison, interpolate_sample, measure_all
from bench.quality.record import ParityRecord
from bench.quality.request import ParityRequest
from bench.quality.setup import configuration_of, open_comparison
from bench.quality.summary import (
    NewFrame,
    failures,
    published_record,
    summarise,
    table,
    worst_frames,
)
from bench.quality.worst_frames import write_images
from bench.records.parity import Picture, Summary
from bench.runs.artefact import is_engine
from runtime.backends.base import BackendName
from runtime.cli.arguments import add_cpu_arguments, parse_device, parse_model_file
from runtime.cli.command import command_parser, run_command
from runtime.cli.grammar import ALIASES
from runtime.cli.progress import Progress
from runtime.machine import available_cpus

if TYPE_CHECKING:
    from ifrnet_model.weights.table import Published

_PROG = "python -m bench.parity"


def _request(args: argparse.Namespace) -> ParityRequest:
    """Checks all arguments and returns the request, without opening models or data."""
    if not args.model or args.weights is None:
        raise MeasurementError("--model or --weights is missing: give both, as --help shows")
    for name in ("worst", "threads", "workers", "cpus_per_worker"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise MeasurementError(f"--{name.replace('_', '-')} is {value}: use 1 or more")
    if args.max_drop is not None and math.isnan(args.max_drop):
        # No drop is larger than NaN, so the gate would always pass.
        raise MeasurementError("--max-drop is nan: give a number in dB, such as 0.01")
    if args.output is not None:
        check_writable(args.output, "--output")
    if args.dataset is None or args.root is None:
        raise MeasurementError(
            "--dataset or --root is missing: give both, --list shows the data sets"
        )
    return ParityRequest(
        models=tuple(args.model),
        weights=args.weights,
        dataset=args.dataset,
        root=args.root,
        rules=args.protocol,
        factor=args.factor,
        every=args.every,
        limit=args.limit,
        metrics=tuple(args.metrics or ()),
        backend=args.backend,
        device=args.device,
        threads=args.threads,
        inference_precision=args.precision,
        reference_device=args.reference_device,
        force=args.allow_mismatch,
        random_weights=args.random_weights,
        authors_weights=args.authors_weights,
    )


def _measure(args: argparse.Namespace) -> int:
    if args.list:
        print("\n".join(protocol_lines()))
        return 0
    request = _request(args)
    with contextlib.ExitStack() as owner:
        opened = open_comparison(request, owner)
        comparison, data_set, checkpoint = opened.comparison, opened.data_set, opened.checkpoint
        notes = data_set.notes + opened.deviations
        configuration = configuration_of(request, comparison, checkpoint, data_set, notes)
        record = owner.enter_context(
            ParityRecord(args.output, configuration, resume=args.resume, overwrite=args.overwrite)
        )
        if args.pictures is not None:
            args.pictures.mkdir(parents=True, exist_ok=True)  # Fails before the measurement.
        seconds = _run(args, request, comparison, data_set, record)
        summary = _summary(args, request, comparison, record, opened.figure, seconds)
        record.finish(summary)
    print(*table(configuration, summary), sep="\n")
    failed = [] if args.max_drop is None else failures(record.lines, summary, args.max_drop)
    for sentence in failed:
        print(f"FAILED: {sentence}")
    return 1 if failed else 0


def _summary(
    args: argparse.Namespace,
    request: ParityRequest,
    comparison: Comparison,
    record: ParityRecord,
    figure: Published | None,
    seconds: float | None,
) -> Summary:
    """The summary of a run that took `seconds`; writes the worst frames if --pictures is given."""
    if all("damaged" in line for line in record.lines):
        raise MeasurementError(
            f"none of the {len(record.lines)} samples in {request.root} can be read: copy the "
            "data set again"
        )
    compared = {artefact.name: artefact.compared for artefact in comparison.artefacts}
    images: list[Picture] = []
    if args.pictures is not None:
        worst = worst_frames(record.lines, compared, args.worst)
        images = _write_worst_frames(args, request, comparison, worst)
    return {
        **summarise(record.lines, compared, comparison.metrics, comparison.protocol.factor),
        "published": published_record(record.lines, figure),
        "pictures": images,
        "wall_seconds": seconds,
    }


def _run(
    args: argparse.Namespace,
    request: ParityRequest,
    comparison: Comparison,
    data_set: DataSet,
    record: ParityRecord,
) -> float | None:
    """Measures the samples that have no line yet; returns the seconds, None for a resumed run."""
    done = record.done
    if args.workers is None:
        lines = measure_all(comparison, data_set, done, request.threads or available_cpus())
    else:
        from bench.quality.cluster import measure_on_cluster
        from runtime.cluster.pool import Share

        share = Share(args.cpus_per_worker, _gpus_per_worker(args, request))
        lines = measure_on_cluster(
            request, data_set, done, address=args.address, share=share, workers=args.workers
        )
    started = time.perf_counter()
    with Progress("samples", total=data_set.count, done=len(done)) as progress:
        for line in lines:
            record.add(line)
            if "damaged" in line:
                progress.note(f"damaged: {line['damaged']}")
            progress.advance()
    return None if done else round(time.perf_counter() - started, 2)


def _gpus_per_worker(args: argparse.Namespace, request: ParityRequest) -> float:
    """GPUs of a worker: --gpus-per-worker, or else one if a model or PyTorch runs on a GPU.

    Raises:
        MeasurementError: If a model or PyTorch runs on a GPU and the worker is given none.
    """
    on_gpu = any((device or "").startswith("cuda") for device in request.devices) or any(
        map(is_engine, request.models)
    )
    if args.gpus_per_worker is None:
        return 1.0 if on_gpu else 0.0
    if on_gpu and args.gpus_per_worker <= 0:
        raise MeasurementError(
            f"--gpus-per-worker is {args.gpus_per_worker:g}, and a model or PyTorch runs on a GPU: "
            "give 1, or a part of 1 to share a GPU"
        )
    return float(args.gpus_per_worker)


def _write_worst_frames(
    args: argparse.Namespace,
    request: ParityRequest,
    comparison: Comparison,
    worst: Sequence[tuple[str, NewFrame]],
) -> list[Picture]:
    """Interpolates the worst frames again and writes them; the first pass stores no frames."""
    wanted: dict[str, list[tuple[str, NewFrame]]] = {}
    for name, frame in worst:
        wanted.setdefault(frame.sample, []).append((name, frame))
    compared = {artefact.name: artefact.compared for artefact in comparison.artefacts}
    written: dict[tuple[str, NewFrame], Picture] = {}
    for sample in request.find().samples:
        if sample.name not in wanted:
            continue
        interpolated = interpolate_sample(comparison, sample.name, sample.read())
        for name, frame in wanted[sample.name]:
            k = comparison.timesteps.index(frame.timestep)
            written[name, frame] = write_images(
                args.pictures,
                interpolated.references[compared[name]][k],
                interpolated.artefacts[name][k],
                sample=sample.name,
                timestep=frame.timestep,
                artefact=name,
                relative_to=args.output,
            )
    return [written[one] for one in worst]


def make_parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """The parser of the command, which is called as `prog`."""
    parser = command_parser(
        prog,
        "Compares artefacts with float32 PyTorch, and both with the true frames of a data set.",
        "%(prog)s --list",
        "%(prog)s --model model.onnx --weights demo --dataset ucf101 --root DIR "
        "--output ucf101.jsonl",
        "%(prog)s --model model.onnx --weights demo --dataset folder --root in.mp4 "
        "--limit 10 --max-drop 0.01",
        "%(prog)s --model model.onnx --weights IFRNet_gopro-5d2f805a.pth --dataset gopro "
        "--protocol mmagic --root DIR",
    )
    parser.add_argument("--list", action="store_true", help="list the data sets and exit")
    parser.add_argument(
        "--model",
        nargs="+",
        type=parse_model_file,
        metavar="MODEL",
        help="artefacts to compare, or demo",
    )
    parser.add_argument("--weights", metavar="FILE", help="checkpoint of PyTorch, or demo")
    _add_weights_arguments(parser)
    _add_data_arguments(parser)
    _add_output_arguments(parser)
    _add_execution_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = _PROG) -> NoReturn:
    """The command line."""
    run_command(
        make_parser(prog),
        _measure,
        extra="bench,export",
        aliases=ALIASES["bench.parity"],
        argv=argv,
    )


def _add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--authors-weights",
        action="store_true",
        help="the weights are the authors': show the paper's figures too",
    )
    parser.add_argument(
        "--random-weights",
        action="store_true",
        help="the weights are random: reports show only the agreement with PyTorch",
    )
    parser.add_argument(
        "--allow-mismatch",
        action="store_true",
        help="allow other weights, another flow scale or frames of another size",
    )


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data set and metrics")
    group.add_argument("--dataset", choices=tuple(PROTOCOLS), help="data set, and its protocol")
    group.add_argument(
        "--protocol",
        choices=get_args(Rules),
        default="paper",
        help="rules of the paper or of mmagic, which --list shows (default %(default)s)",
    )
    group.add_argument(
        "--root", type=Path, metavar="PATH", help="folder of the data set; for folder also a video"
    )
    group.add_argument(
        "--factor",
        type=int,
        metavar="N",
        help="new frame rate divided by the old one, with --dataset folder (default 2)",
    )
    group.add_argument(
        "--limit", type=int, metavar="N", help="maximum number of samples (default: all)"
    )
    group.add_argument(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="measure each N-th sample only (default %(default)s)",
    )
    group.add_argument(
        "--metrics",
        nargs="+",
        choices=get_args(Metric),
        help="metrics (default: those of the protocol); psnr is always included",
    )


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write, JSON Lines with one line for each sample",
    )
    existing = group.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume", action="store_true", help="continue --output if the file exists"
    )
    existing.add_argument("--overwrite", action="store_true", help="replace --output")
    group.add_argument(
        "--max-drop", type=float, metavar="DB", help="exit with 1 if an artefact loses more PSNR"
    )
    group.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help="write the worst frames and maps of their errors to this folder",
    )
    group.add_argument(
        "--worst",
        type=int,
        default=3,
        metavar="N",
        help="number of worst frames of each artefact, for --pictures (default %(default)s)",
    )


def _add_execution_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("execution")
    group.add_argument(
        "--device",
        type=parse_device,
        metavar="DEVICE",
        help="device of the artefacts: cpu, cuda or cuda:N (default: chosen by the backend)",
    )
    group.add_argument(
        "--backend",
        choices=get_args(BackendName),
        help="backend of the artefacts (default: chosen by the runtime)",
    )
    group.add_argument(
        "--reference-device",
        type=parse_device,
        default="cpu",
        metavar="DEVICE",
        help="device of PyTorch: cpu, cuda or cuda:N (default %(default)s)",
    )
    add_cpu_arguments(group)
    cluster = parser.add_argument_group("Ray cluster (all machines need the same paths)")
    cluster.add_argument(
        "--workers", type=int, metavar="N", help="number of workers (default: no cluster)"
    )
    cluster.add_argument(
        "--cpus-per-worker",
        type=int,
        default=2,
        metavar="N",
        help="CPUs and threads of a worker (default %(default)s)",
    )
    cluster.add_argument(
        "--gpus-per-worker",
        type=float,
        metavar="X",
        help="GPUs of a worker; with 0.5 two workers share a GPU (default: 1 if a model or PyTorch "
        "runs on a GPU, else 0)",
    )
    cluster.add_argument(
        "--address",
        default="local",
        metavar="ADDRESS",
        help="address of the cluster: auto, HOST:PORT, ray://HOST:PORT, or local, which starts a "
        "cluster on this machine (default %(default)s)",
    )


if __name__ == "__main__":
    main()
