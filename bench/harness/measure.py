"""Measures all runs of one case in interleaved rounds, and returns the evidence of the case."""

from __future__ import annotations

import contextlib
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.harness.equality import compare_with_pytorch
from bench.harness.interleave import (
    ON_CPU,
    ON_GPU,
    Rounds,
    WarmUp,
    flat,
    measure_interleaved,
    parts_interleaved,
    ratio,
    sample_budget,
    summary,
    warm_up,
)
from bench.harness.layers import profile_onnx
from bench.harness.opening import OpenedRun, open_runs
from bench.harness.warnings import run_warnings
from bench.records.latency import (
    CaseRecord,
    RatioRecord,
    RooflineRecord,
    RunFigures,
    RunRecord,
)
from bench.runs.artefact import (
    UNKNOWN,
    ArtefactRun,
    Run,
    call_inputs,
    calls_of_a_pair,
    execution_names,
)
from bench.runs.case import Case
from bench.runs.frames import FramePair
from bench.runs.pytorch import PyTorchRun
from runtime.backends.ov import profiling as ov_profiling
from runtime.backends.ov.backend import OpenVinoBackend
from runtime.backends.trt import profiling as trt_profiling
from runtime.backends.trt.backend import TensorRTBackend
from runtime.cli.progress import Activity, Progress

if TYPE_CHECKING:
    from bench.harness.roofline import Ceilings, Work

STREAM_FRAMES = 60
_STREAM_ROUNDS = 3
"""Rounds in which the throughput of each run is measured, after one that is not counted."""

_PROFILED_CALLS = {"engine": 50, "onnx": 10}

LayersByFile = dict[str, list[tuple[str, float]]]
"""Name and milliseconds of each layer, by name of the file."""


@dataclass(frozen=True)
class MeasureOptions:
    """What is measured of each run, and how many samples are taken.

    Attributes:
        samples: Minimum number of samples of each run.
        seconds: Minimum sum of the samples of each run.
        cold_start: Whether the cold start is measured, in a process for each run.
        stream_frames: Frames of the stream that measures throughput; None: it is not measured.
        profile: Whether every layer of every artefact is timed.
        threads: CPU threads of a run on the CPU.
        limit_s: Time limit in seconds of the first pair of a PyTorch run; None for no limit.
    """

    samples: int
    seconds: float
    cold_start: bool
    stream_frames: int | None
    profile: bool
    threads: int
    limit_s: float | None = None


def measure_case(
    case: Case, runs: Sequence[Run], options: MeasureOptions, ceilings: Ceilings | None
) -> tuple[CaseRecord, LayersByFile]:
    """Measures all runs of one case.

    Args:
        case: Size and factor.
        runs: The runs; their names are unique.
        options: What is measured.
        ceilings: Peak performance of the CPU; None if it is unknown or the runs use a GPU.

    Returns:
        The evidence of the case, and the milliseconds of every layer by file, empty unless
        `options.profile`. Baselines that failed are in "failed" of the evidence and not in "runs",
        which may be empty.
    """
    pair = case.timed[0]
    with contextlib.ExitStack() as owner:
        with Activity(f"opening {len(runs)} runs of {_label(case)}"):
            opened, cold_starts, failed = open_runs(
                runs, case, pair, owner, cold_start=options.cold_start, limit_s=options.limit_s
            )
        measured, warmed_up = _measure_interleaved(opened, case, options)
        with Activity(f"comparing the new frames of {_label(case)} with PyTorch"):
            compared = compare_with_pytorch(opened, case)
        with Activity(f"measuring parts, streams and layers of {_label(case)}"):
            parts = _parts(opened, pair, options.samples)
            count = options.stream_frames
            throughput = _throughput(opened, pair, count, case.factor) if count else {}
            layers = _profiles(opened, pair, options.threads) if options.profile else {}
        evidence = {name: one.run.evidence(case, one.backend) for name, one in opened.items()}
        for name, agreement in compared.items():
            evidence[name]["agreement"] = agreement
    runs = [one.run for one in opened.values()]
    records: dict[str, RunRecord] = {}
    for run in runs:
        name, work = run.name, _work(run, case)
        records[name] = {
            **_figures(run, case, measured[name], warmed_up[name]),
            **evidence[name],
            "warnings": [],
            "work": None if work is None else work.record(),
            "roofline": _roofline(run, work, measured[name], ceilings),
            "cold": cold_starts.get(name),
            "parts_of_a_call_milliseconds": {
                part: {**summary([ms / 1e3 for ms in flat(rounds)]), "samples": flat(rounds)}
                for part, rounds in parts.get(name, {}).items()
            },
            "stream": throughput.get(name),
        }  # fmt: skip
    computed = {name: of["compute"] for name, of in parts.items()}
    record: CaseRecord = {
        "dataset": case.dataset,
        "size": case.size_text,
        "factor": case.factor,
        "frames": case.frames_record,
        "runs": records,
        "failed": failed,
        # Frames for a plain export are converted on the host, which would count as TensorRT's time.
        "ratios": list(_ratios([run for run in runs if run.kind != "plain"], case, measured)),
        "compute_ratios": list(
            _ratios([run for run in runs if run.name in computed], case, computed, of_a_call=True)
        ),
    }
    for measured_run in records.values():
        measured_run["warnings"] = run_warnings(record, measured_run)
    return record, layers


def _label(case: Case) -> str:
    return case.dataset or case.size_text


def _measure_interleaved(
    opened: Mapping[str, OpenedRun], case: Case, options: MeasureOptions
) -> tuple[dict[str, list[list[float]]], dict[str, WarmUp]]:
    """Warms up each run, then measures the seconds of a pair in interleaved rounds."""
    interleaving = ON_GPU if all(one.run.on_gpu for one in opened.values()) else ON_CPU
    calls = {name: _pairs_in_turn(one, case) for name, one in opened.items()}
    budget = sample_budget(options.samples, options.seconds)
    total = (1 + budget.rounds) * len(calls)
    with Progress("measurements", label=_label(case), total=total) as progress:
        warmed_up = {}
        for name, call in calls.items():
            time.sleep(interleaving.pause_s)
            warmed_up[name] = warm_up(call)
            progress.advance()
        measured = measure_interleaved(
            calls, budget=budget, interleaving=interleaving, progress=progress.advance
        )
    return measured, warmed_up


def _pairs_in_turn(one: OpenedRun, case: Case) -> Callable[[], object]:
    """A function that interpolates the next of the case's pairs, the first again after the last."""
    pairs = itertools.cycle(case.timed)
    steps = one.vfi.steps_for_factor(case.factor)
    return lambda: one.vfi.interpolate(*next(pairs), timesteps=steps)


def _parts(
    opened: Mapping[str, OpenedRun], pair: FramePair, samples: int
) -> dict[str, dict[str, list[list[float]]]]:
    """Milliseconds of each part of one call, by run on a GPU, part and round."""
    timed = {}
    for name, one in opened.items():
        if (timer := _parts_timer(one)) is not None:
            timed[name] = functools.partial(timer, *call_inputs(one.vfi.info, pair))
    return parts_interleaved(timed, samples=samples) if timed else {}


def _parts_timer(one: OpenedRun) -> Callable[..., dict[str, float]] | None:
    """A function that times the parts of one call with CUDA events; None for other runs.

    It takes img0, img1 and timestep, and returns the milliseconds of each part by its name.
    """
    if isinstance(one.backend, TensorRTBackend):
        return functools.partial(trt_profiling.time_parts, one.backend)
    if isinstance(one.run, PyTorchRun) and one.run.on_gpu:
        from bench.runs.torch_gpu import TorchGpuBackend

        assert isinstance(one.backend, TorchGpuBackend)
        return one.backend.time_parts
    return None


def _throughput(
    opened: Mapping[str, OpenedRun], pair: FramePair, count: int, factor: int
) -> dict[str, dict[str, Any]]:
    """The evidence's "stream" of each run: pairs per second in streams of `count` frames."""
    seconds: dict[str, list[float]] = {name: [] for name in opened}
    for number in range(1 + _STREAM_ROUNDS):
        for name, one in opened.items():
            started = time.perf_counter()
            for _ in one.vfi.stream(itertools.islice(itertools.cycle(pair), count), factor=factor):
                pass
            if number:
                seconds[name].append(time.perf_counter() - started)
    pairs = count - 1
    return {
        name: {"pairs_per_second": pairs / statistics.median(s), "pairs": pairs, "seconds": s}
        for name, s in seconds.items()
    }


def _profiles(opened: Mapping[str, OpenedRun], pair: FramePair, threads: int) -> LayersByFile:
    """Times each layer of each artefact, once in each backend and precision.

    If a file ran in several backends, its name includes the backend. Prints a line for each
    artefact that cannot be profiled.
    """
    profiled: dict[str, tuple[ArtefactRun, OpenedRun]] = {}
    for name, one in opened.items():
        if isinstance(one.run, ArtefactRun):
            execution = "".join(f", {part}" for part in execution_names(one.run.execution))
            profiled.setdefault(name.removesuffix(execution), (one.run, one))
    files = [run.file for run, _ in profiled.values()]
    layers: LayersByFile = {}
    for title, (run, one) in profiled.items():
        if run.on_gpu and not isinstance(one.backend, TensorRTBackend):
            # On a GPU ONNX Runtime records when a kernel was queued, not how long it ran.
            print(
                f"{run.file} on {one.vfi.backend} was not profiled: --profile times the layers of "
                "engines, and of ONNX files on a CPU"
            )
            continue
        name = run.file if files.count(run.file) == 1 else title
        layers[name] = _profile(run, one, pair, threads)
    return layers


def _profile(
    run: ArtefactRun, one: OpenedRun, pair: FramePair, threads: int
) -> list[tuple[str, float]]:
    """Name and milliseconds of each layer of an engine, or of an ONNX file on the CPU."""
    img0, img1, timestep = call_inputs(one.vfi.info, pair)
    if isinstance(one.backend, TensorRTBackend):
        calls = _PROFILED_CALLS["engine"]
        return trt_profiling.profile_layers(one.backend, img0, img1, timestep, runs=calls)
    pairs, calls = one.vfi.info.pairs_per_call, _PROFILED_CALLS["onnx"]
    inputs = {
        "img0": img0.repeat(pairs, 0),
        "img1": img1.repeat(pairs, 0),
        "timestep": timestep,
    }
    if isinstance(one.backend, OpenVinoBackend):
        return ov_profiling.profile_layers(
            run.path, inputs, precision=one.backend.precision, threads=threads, runs=calls
        )
    return profile_onnx(run.path, inputs, threads=threads, runs=calls)


def _figures(run: Run, case: Case, rounds: list[list[float]], warmed_up: WarmUp) -> RunFigures:
    """The evidence of a run that follows from its samples and its warm-up."""
    new_frames, seconds = case.factor - 1, flat(rounds)
    median = statistics.median(seconds)
    return {
        "kind": run.kind,
        "variant": run.variant,
        "milliseconds": summary(seconds),
        "milliseconds_per_frame": 1e3 * median / new_frames,
        "fps": new_frames / median,
        "samples": len(seconds),
        "seconds": rounds,
        "warm_up": {"runs": warmed_up.runs, "steady": warmed_up.steady},
    }


def _ratios(
    runs: Sequence[Run], case: Case, measured: Mapping[str, Rounds], *, of_a_call: bool = False
) -> Iterator[RatioRecord]:
    """Yields the ratio of the times of each pair of `_compared` that does the same work.

    Args:
        runs: The runs to compare.
        case: Size and factor.
        measured: Samples by name of the run, round by round.
        of_a_call: Whether a sample is one call of the model; otherwise it is one pair.

    Yields:
        The evidence's entries of "ratios" or "compute_ratios".
    """

    def work(run: Run) -> tuple[object, ...]:
        info = run.info(case)
        return run.variant, info.flow_scale, info.frames_per_call if of_a_call else None

    for slow, fast in _compared(runs):
        if work(slow) == work(fast):
            figures = ratio(measured[slow.name], measured[fast.name])
            yield {"slower": slow.name, "faster": fast.name, **figures}


def _compared(runs: Sequence[Run]) -> Iterator[tuple[Run, Run]]:
    """Pairs of runs whose times are compared, the reference first.

    The references of an artefact are the baselines, and the same artefact in the first of several
    precisions.
    """
    for slow, fast in itertools.product(runs, runs):
        if slow.kind != "artefact" and fast.kind == "artefact":
            yield slow, fast
    first: dict[object, ArtefactRun] = {}
    for run in runs:
        if isinstance(run, ArtefactRun):
            others = replace(run.options, precision=None)
            reference = first.setdefault((run.path.resolve(), run.backend, others), run)
            if reference is not run:
                yield reference, run


def _work(run: Run, case: Case) -> Work | None:
    """Counted work of a pair; None without PyTorch, and where it cannot be counted."""
    try:
        from bench.harness.roofline import work_of_a_pair
    except ModuleNotFoundError:
        return None
    if run.variant == UNKNOWN:
        return None
    info, authors = run.info(case), run.kind == "plain"
    if isinstance(run, PyTorchRun):
        if run.form.precision == "autocast":
            return (
                None  # The meta device does not have the conversions that autocast adds on a GPU.
            )
        authors = run.form.module == "authors"
    return work_of_a_pair(
        info,
        case.size,
        calls_of_a_pair(info, case.factor),
        new_frames=case.factor - 1,
        authors=authors,
    )


def _roofline(
    run: Run, work: Work | None, rounds: Rounds, ceilings: Ceilings | None
) -> RooflineRecord | None:
    """The evidence's "roofline" of a run on the CPU; None for runs on a GPU."""
    if work is None or ceilings is None or run.on_gpu:
        return None
    from bench.harness.roofline import share_of_ceilings

    return share_of_ceilings(work, statistics.median(flat(rounds)), ceilings)
