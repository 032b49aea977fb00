"""How long a pair takes, with the evidence: artefacts and PyTorch in one run, in turns.

python -m bench.latency --model model.onnx --weights demo --compare authors --size 256x448
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bench.environment import MeasurementError, write_evidence
from runtime import Interpolator
from runtime.cli import command_parser, parse_size, run_command
from runtime.machine import available_processors
from runtime.manifest import file_sha256

WARM_UP = 2
"""Rounds that are not counted: first allocations, thread pools, caches."""

PER_TURN = 3
"""Samples of one run before the next has its turn, after one that is not counted."""

PAUSE_S = 0.25
"""Before each turn. Thread pools spin for a while when their work is done: without a pause the
threads of ONNX Runtime slow the next run, PyTorch's, by a quarter (and the other way round)."""


def measure_in_turns(
    runs: dict[str, Callable[[], object]],
    *,
    samples: int,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each run, `samples` each, one after the other in every round.

    In turns, so that a machine that slows down slows all of them; the order is reversed every
    second round, so that none always follows the same neighbour. `samples` is rounded up to
    whole turns.
    """
    measured: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(-WARM_UP, math.ceil(samples / PER_TURN)):
        for name in list(runs) if round_number % 2 else reversed(runs):
            time.sleep(PAUSE_S)
            runs[name]()
            for _ in range(PER_TURN):
                started = time.perf_counter()
                runs[name]()
                elapsed = time.perf_counter() - started
                if round_number >= 0:
                    measured[name].append(elapsed)
        progress()
    return measured


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, p90, p99, mean and interquartile range, in milliseconds."""
    ms = np.asarray(seconds) * 1e3
    p25, p50, p75, p90, p99 = (float(p) for p in np.percentile(ms, (25, 50, 75, 90, 99)))
    return {"p50": p50, "p90": p90, "p99": p99, "mean": float(ms.mean()), "iqr": p75 - p25}


def ratios(slower: Sequence[float], faster: Sequence[float]) -> dict[str, float]:
    """Median of the ratios sample by sample, and the middle half of them."""
    pairs = [a / b for a, b in zip(slower, faster, strict=True)]
    low, _, high = statistics.quantiles(pairs, n=4)
    return {"p50": statistics.median(pairs), "p25": low, "p75": high}


def _frames(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return frame, np.roll(frame, 4, axis=1)


def _torch_runs(
    args: argparse.Namespace, frame0: NDArray[np.uint8], frame1: NDArray[np.uint8]
) -> dict[str, Callable[[], object]]:
    """PyTorch eager on the same frames: our module, or the authors' formulation."""
    import torch

    from bench.reference import authors_forward, load_reference
    from ifrnet_model import divisor
    from runtime.frames import to_planes

    if args.weights is None:
        raise MeasurementError("--compare needs --weights: give the checkpoint, or demo")
    network = load_reference(args.weights).network
    torch.set_num_threads(args.threads)
    img0, img1 = (torch.from_numpy(to_planes(f, divisor())) for f in (frame0, frame1))
    middle = torch.full((1, 1, 1, 1), 0.5)
    state = network.state_dict()

    def ours() -> object:
        with torch.inference_mode():
            return network(img0, img1, middle)

    def authors() -> object:
        with torch.inference_mode():
            return authors_forward(state, network.config, img0, img1, middle)

    known: dict[str, Callable[[], object]] = {"torch": ours, "authors": authors}
    return {f"PyTorch eager ({name})": known[name] for name in args.compare}


def _measure(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    height, width = args.size
    args.threads = args.threads or available_processors()
    frame0, frame1 = _frames(height, width)
    runs: dict[str, Callable[[], object]] = {}
    artefacts: dict[str, Any] = {}
    for path in args.model:
        vfi = Interpolator.open(path, device=args.device, threads=args.threads)
        name = f"{path.name} on {vfi.backend}"
        runs[name] = functools.partial(vfi.interpolate, frame0, frame1)
        artefacts[name] = {
            "sha256": file_sha256(path),
            "bytes": path.stat().st_size,
            "variant": vfi.info.variant,
            "precision": vfi.info.precision,
            "io": vfi.info.io,
        }
    baselines = list(_torch_runs(args, frame0, frame1).items()) if args.compare else []
    runs |= baselines
    rounds = WARM_UP + math.ceil(args.samples / PER_TURN)
    with tqdm(total=rounds, unit="round", disable=None, leave=False) as bar:
        measured = measure_in_turns(runs, samples=args.samples, progress=bar.update)

    record: dict[str, Any] = {
        "what": "one pair, end to end: frame to planes where needed, network, frame back; "
        "PyTorch is timed from planes to planes",
        "size": f"{height}x{width}",
        "threads": args.threads,
        "artefacts": artefacts,
        "milliseconds": {name: summary(seconds) for name, seconds in measured.items()},
        "ratios": {},
        "seconds": measured,
    }
    samples = len(next(iter(measured.values())))
    print(f"{height}x{width}, {args.threads} threads, {samples} samples in turns")
    for name, figures in record["milliseconds"].items():
        print(
            f"  {name:32} p50 {figures['p50']:8.1f} ms  p90 {figures['p90']:8.1f}  "
            f"p99 {figures['p99']:8.1f}  IQR {figures['iqr'] / figures['p50']:5.1%}"
        )
    for slower, _ in baselines:
        for faster in artefacts:
            ratio = ratios(measured[slower], measured[faster])
            record["ratios"][f"{slower} / {faster}"] = ratio
            print(
                f"  {faster} is {ratio['p50']:.2f}x as fast as {slower} "
                f"(half of the samples: {ratio['p25']:.2f} to {ratio['p75']:.2f})"
            )
    if args.json is not None:
        write_evidence(args.json, record)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = command_parser(
        "python -m bench.latency",
        "Measures how long one pair takes, artefacts and PyTorch in turns in one run.",
        "python -m bench.latency --model model.onnx --weights demo --compare authors torch",
    )
    parser.add_argument("--model", required=True, nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--size", type=parse_size, default=(256, 448), metavar="HxW")
    parser.add_argument("--weights", metavar="FILE", help="for --compare: a checkpoint, or demo")
    parser.add_argument(
        "--compare",
        nargs="+",
        choices=("torch", "authors"),
        default=(),
        help="PyTorch eager in the same run: our module, or the authors' formulation",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, metavar="N", help="processors (default: all)")
    parser.add_argument("--samples", type=int, default=30, metavar="N", help="default 30")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence")
    run_command(parser, _measure, extra="export", argv=argv)


if __name__ == "__main__":
    main()
