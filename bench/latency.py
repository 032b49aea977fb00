"""How long a pair takes, with the evidence: artefacts and PyTorch in one run, in turns.

python -m bench.latency --model model.onnx --weights demo --compare authors --size 256x448
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from bench.environment import MeasurementError, write_evidence
from bench.layers import layer_lines
from bench.turns import (
    ON_GPU,
    ON_PROCESSOR,
    WARM_UP,
    measure_in_turns,
    parts_in_turns,
    ratios,
    summary,
)
from runtime import Interpolator
from runtime.backends.base import Backend, OpenOptions, open_backend
from runtime.backends.trt import TensorRTBackend
from runtime.cli import command_parser, parse_size, run_command
from runtime.frames import to_planes
from runtime.machine import available_processors
from runtime.manifest import file_sha256

STREAM_FRAMES = 60
_STREAMED = 3
"""How often the throughput of each run is measured."""

_PROFILED = 50
_PARTS = ("h2d", "compute", "d2h")

_Clip = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def _frames(height: int, width: int) -> _Clip:
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


class _Opened(NamedTuple):
    path: Path
    backend: Backend
    vfi: Interpolator
    options: dict[str, Any]


def _is_engine(path: Path) -> bool:
    return path.suffix.lower() in (".engine", ".plan")


def _opened(args: argparse.Namespace, owner: contextlib.ExitStack) -> dict[str, _Opened]:
    """Every run by name: each engine once for each number of streams, with and without graph."""
    opened: dict[str, _Opened] = {}
    for path in args.model:
        graphs = [True, False] if args.no_cuda_graph else [True]
        for streams, graph in itertools.product(args.streams or [1], graphs):
            if _is_engine(path):
                options = OpenOptions(args.device, streams=streams, cuda_graph=graph)
            else:
                options = OpenOptions(args.device, threads=args.threads)
            backend = open_backend(path, options)
            vfi = owner.enter_context(Interpolator(backend))
            name, said = f"{path.name} on {vfi.backend}", {}
            if isinstance(backend, TensorRTBackend):
                # Where sizes are free there is no graph, whatever was asked for.
                said = {"streams": streams, "cuda_graph": graph and vfi.info.size is not None}
                name += f", {streams} {'stream' if streams == 1 else 'streams'}, "
                name += "CUDA graph" if said["cuda_graph"] else "no CUDA graph"
            if name in opened:
                vfi.close()
            else:
                opened[name] = _Opened(path, backend, vfi, said)
    return opened


def _call_inputs(
    run: _Opened, clip: _Clip
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """What one call of the model takes: two images of `Backend.put`, and its time steps."""
    info = run.vfi.info
    img0, img1 = (f[None] if info.io == "frames" else to_planes(f, info.divisor) for f in clip)
    count = info.frames_per_call
    steps = np.arange(1, count + 1, dtype=np.float32) / np.float32(count + 1)
    return img0, img1, steps.reshape(-1, 1, 1, 1)


def _parts(runs: dict[str, _Opened], clip: _Clip, samples: int) -> dict[str, Any]:
    """H2D, compute and D2H of one call of each TensorRT run."""
    timed = {
        name: functools.partial(run.backend.timed, *_call_inputs(run, clip))
        for name, run in runs.items()
        if isinstance(run.backend, TensorRTBackend)
    }
    measured = parts_in_turns(timed, samples=samples) if timed else {}
    return {
        name: {
            part: {**summary([one / 1e3 for one in ms]), "samples": ms}
            for part, ms in parts.items()
        }
        for name, parts in measured.items()
    }


def _throughput(runs: dict[str, _Opened], clip: _Clip, count: int, factor: int) -> dict[str, Any]:
    """Pairs a second of a stream of `count` frames, in turns, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(1 + _STREAMED):
        for name, run in runs.items():
            started = time.perf_counter()
            for _ in run.vfi.stream(itertools.islice(itertools.cycle(clip), count), factor=factor):
                pass
            if number:
                seconds[name].append(time.perf_counter() - started)
    pairs = count - 1
    return {
        name: {"pairs_per_second": pairs / statistics.median(s), "pairs": pairs, "seconds": s}
        for name, s in seconds.items()
    }


def _profiles(runs: dict[str, _Opened], clip: _Clip) -> dict[str, list[tuple[str, float]]]:
    """Milliseconds of each layer of each engine, which are printed too."""
    layers: dict[str, list[tuple[str, float]]] = {}
    for run in runs.values():
        backend, name = run.backend, run.path.name
        if not isinstance(backend, TensorRTBackend):
            print(f"{name} runs on {backend.name}: --profile is for TensorRT engines")
        elif name not in layers:
            layers[name] = backend.profile_layers(*_call_inputs(run, clip), _PROFILED)
            print(f"{name}:", *layer_lines(layers[name]), sep="\n  ")
    return layers


def _artefact(run: _Opened) -> dict[str, Any]:
    info = run.vfi.info
    return {
        "sha256": file_sha256(run.path),
        "bytes": run.path.stat().st_size,
        "variant": info.variant,
        "precision": info.precision,
        "io": info.io,
        "frames_per_call": info.frames_per_call,
        **run.options,
    }


def _measure(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    height, width = args.size
    args.threads = args.threads or available_processors()
    if args.factor < 2:
        raise MeasurementError(f"--factor is {args.factor}: use 2 or more")
    engines = [_is_engine(path) for path in args.model]
    if (args.streams or args.no_cuda_graph) and not any(engines):
        raise MeasurementError("--streams and --no-cuda-graph are for TensorRT engines: leave them")
    clip = _frames(height, width)
    on_gpu = all(engines) and not args.compare
    turns = ON_GPU if on_gpu else ON_PROCESSOR
    with contextlib.ExitStack() as owner:
        opened = _opened(args, owner)
        runs: dict[str, Callable[[], object]] = {}
        for name, run in opened.items():
            steps = run.vfi.steps_for_factor(args.factor)
            runs[name] = functools.partial(run.vfi.interpolate, *clip, timesteps=steps)
        baselines = list(_torch_runs(args, *clip).items()) if args.compare else []
        runs |= baselines
        rounds = WARM_UP + math.ceil(args.samples / turns.samples)
        with tqdm(total=rounds, unit="round", disable=None, leave=False) as bar:
            measured = measure_in_turns(
                runs, samples=args.samples, turns=turns, progress=bar.update
            )
        parts = _parts(opened, clip, args.samples)
        count = STREAM_FRAMES if args.stream_frames is None and any(engines) else args.stream_frames
        throughput = _throughput(opened, clip, count, args.factor) if count else {}
        layers = _profiles(opened, clip) if args.profile else {}
        artefacts = {name: _artefact(run) for name, run in opened.items()}

    made = args.factor - 1
    record: dict[str, Any] = {
        "what": "one pair, end to end: frame to planes where needed, network, frame back; "
        "PyTorch is timed from planes to planes",
        "size": f"{height}x{width}",
        "factor": args.factor,
        "threads": None if on_gpu else args.threads,
        "artefacts": artefacts,
        "milliseconds": {name: summary(seconds) for name, seconds in measured.items()},
        "fps": {name: made / statistics.median(seconds) for name, seconds in measured.items()},
        "parts_of_a_call_milliseconds": parts,
        "stream": throughput,
        "layers_milliseconds": layers,
        "ratios": {
            f"{slower} / {faster}": ratios(measured[slower], measured[faster])
            for slower, _ in baselines
            for faster in artefacts
        },
        "seconds": measured,
    }
    _print(record, samples=len(next(iter(measured.values()))))
    if args.json is not None:
        write_evidence(args.json, record)


def _print(record: dict[str, Any], *, samples: int) -> None:
    threads = f"{record['threads']} threads, " if record["threads"] else ""
    print(f"{record['size']}, {threads}{samples} samples in turns")
    for name, figures in record["milliseconds"].items():
        print(
            f"  {name:32} p50 {figures['p50']:8.3f} ms  p90 {figures['p90']:8.3f}  "
            f"p99 {figures['p99']:8.3f}  IQR {figures['iqr'] / figures['p50']:5.1%}  "
            f"{record['fps'][name]:8.1f} fps"
        )
        if name in record["parts_of_a_call_milliseconds"]:
            parts = record["parts_of_a_call_milliseconds"][name]
            print(" " * 4, *(f"{p} {parts[p]['p50']:.3f} ms" for p in _PARTS), "in a call")
        if name in record["stream"]:
            print(f"     stream {record['stream'][name]['pairs_per_second']:.1f} pairs a second")
    for names, ratio in record["ratios"].items():
        slower, faster = names.split(" / ")
        print(
            f"  {faster} is {ratio['p50']:.2f}x as fast as {slower} "
            f"(half of the samples: {ratio['p25']:.2f} to {ratio['p75']:.2f})"
        )


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = command_parser(
        "python -m bench.latency",
        "Measures how long one pair takes, artefacts and PyTorch in turns in one run.",
        "python -m bench.latency --model model.onnx --weights demo --compare authors torch",
        "python -m bench.latency --model model.engine --size 720x1280 --streams 1 2 --profile",
    )
    parser.add_argument("--model", required=True, nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--size", type=parse_size, default=(256, 448), metavar="HxW")
    parser.add_argument("--factor", type=int, default=2, metavar="N", help="N - 1 new frames")
    parser.add_argument("--weights", metavar="FILE", help="for --compare: a checkpoint, or demo")
    parser.add_argument(
        "--compare",
        nargs="+",
        choices=("torch", "authors"),
        default=(),
        help="PyTorch eager in the same run: our module, or the authors' formulation",
    )
    parser.add_argument(
        "--device", metavar="NAME", help="cpu, cuda or cuda:N (default: the backend's own)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="processors (default: all)")
    parser.add_argument(
        "--streams", type=int, nargs="+", metavar="N", help="engines: each number is a run"
    )
    parser.add_argument(
        "--no-cuda-graph", action="store_true", help="engines: measure them without one too"
    )
    parser.add_argument(
        "--stream-frames",
        type=int,
        metavar="N",
        help=f"of the stream that shows the throughput (default {STREAM_FRAMES} with engines)",
    )
    parser.add_argument("--profile", action="store_true", help="engines: time of every layer")
    parser.add_argument("--samples", type=int, default=30, metavar="N", help="default 30")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence")
    run_command(parser, _measure, extra="export", argv=argv)


if __name__ == "__main__":
    main()
