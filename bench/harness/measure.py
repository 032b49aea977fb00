"""Every run of one case, opened, warmed up, measured in turns, and put on record."""

from __future__ import annotations

import contextlib
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.harness.interleave import (
    ON_GPU,
    ON_PROCESSOR,
    Rounds,
    WarmUp,
    doubts,
    flat,
    measure_in_turns,
    parts_in_turns,
    quota_for,
    ratio,
    summary,
    warm_up,
)
from bench.harness.layers import profile_onnx
from bench.harness.opening import Opened, open_runs
from bench.runs.artefact import (
    UNKNOWN,
    ArtefactRun,
    Case,
    Clip,
    Run,
    call_inputs,
    calls_of_a_pair,
    noise_frames,
)
from bench.runs.pytorch import PyTorchRun
from runtime.backends.trt.backend import TensorRTBackend
from runtime.backends.trt.profiling import profile_layers, time_parts

if TYPE_CHECKING:
    from bench.harness.roofline import Ceilings, Work

STREAM_FRAMES = 60
_STREAMED = 3
"""How often the throughput of each run is measured."""

_PROFILED = {"engine": 50, "onnx": 10}

Layers = dict[str, list[tuple[str, float]]]


@dataclass(frozen=True)
class MeasureOptions:
    """How much is measured.

    Attributes:
        samples: Of each run, at least.
        seconds: Of each run, at least: the sum of its samples.
        cold_start: Start a process for each run's first pair.
        stream_frames: Of the stream that shows the throughput; None for none.
        profile: Time every layer of every artefact.
        threads: Processors that runs there use.
        limit_s: Seconds that a run of PyTorch has for its first pair; None: any.
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
) -> tuple[dict[str, Any], Layers]:
    """Measures all runs of one case.

    Args:
        case: Size and factor.
        runs: Each with a name of its own.
        options: How much.
        ceilings: Of the processor; None where they are not known.

    Returns:
        The evidence's case, and the milliseconds of every layer by file (none without profile).
        Baselines that failed are in "failed" and not in "runs", which may be empty.
    """
    clip = noise_frames(case.size)
    with contextlib.ExitStack() as owner:
        opened, cold, failed = open_runs(
            runs, case, clip, owner, cold=options.cold_start, limit_s=options.limit_s
        )
        measured, warmed_up = _in_turns(opened, clip, case, options)
        parts = _parts(opened, clip, options.samples)
        count = options.stream_frames
        throughput = _throughput(opened, clip, count, case.factor) if count else {}
        layers = _profiles(opened, clip, options.threads) if options.profile else {}
        evidence = {name: one.run.evidence(case, one.backend) for name, one in opened.items()}
    runs = [one.run for one in opened.values()]
    on_gpu = any(run.on_gpu for run in runs)
    records = {}
    for run in runs:
        name, work = run.name, _work(run, case)
        records[name] = {
            **_figures(run, case, measured[name], warmed_up[name]),
            **evidence[name],
            "warnings": [
                *doubts(measured[name], warmed_up[name]),
                *_unlike(run, case, on_gpu=on_gpu),
                *_without_graph(evidence[name]["artefact"]),
            ],
            "work": None if work is None else work.record(),
            "roofline": _roofline(run, work, measured[name], ceilings),
            "cold": cold.get(name),
            "parts_of_a_call_milliseconds": {
                part: {**summary([ms / 1e3 for ms in flat(rounds)]), "samples": flat(rounds)}
                for part, rounds in parts.get(name, {}).items()
            },
            "stream": throughput.get(name),
        }  # fmt: skip
    computed = {name: of["compute"] for name, of in parts.items()}
    record = {
        "dataset": case.dataset,
        "size": case.size_text,
        "factor": case.factor,
        "runs": records,
        "failed": failed,
        # A plain export has its frames converted on the host, which is not TensorRT's time.
        "ratios": list(_ratios([run for run in runs if run.kind != "plain"], case, measured)),
        "compute_ratios": list(
            _ratios([run for run in runs if run.name in computed], case, computed, of_a_call=True)
        ),
    }
    return record, layers


def _in_turns(
    opened: Mapping[str, Opened], clip: Clip, case: Case, options: MeasureOptions
) -> tuple[dict[str, list[list[float]]], dict[str, WarmUp]]:
    """Seconds of a pair of each run, round by round, after each was warmed up."""
    from tqdm import tqdm

    turns = ON_GPU if all(one.run.on_gpu for one in opened.values()) else ON_PROCESSOR
    calls = {
        name: functools.partial(
            one.vfi.interpolate, *clip, timesteps=one.vfi.steps_for_factor(case.factor)
        )
        for name, one in opened.items()
    }
    quota = quota_for(options.samples, options.seconds)
    total = (1 + quota.rounds) * len(calls)
    label = case.dataset or case.size_text
    with tqdm(total=total, desc=label, unit="turn", disable=None, leave=False) as bar:
        warmed_up = {}
        for name, call in calls.items():
            time.sleep(turns.pause_s)
            warmed_up[name] = warm_up(call)
            bar.update()
        measured = measure_in_turns(calls, quota=quota, turns=turns, progress=bar.update)
    return measured, warmed_up


def _parts(
    opened: Mapping[str, Opened], clip: Clip, samples: int
) -> dict[str, dict[str, list[list[float]]]]:
    """Milliseconds of each part of one call of each run on a GPU, round by round."""
    timed = {}
    for name, one in opened.items():
        if (timer := _parts_timer(one)) is not None:
            timed[name] = functools.partial(timer, *call_inputs(one.vfi.info, clip))
    return parts_in_turns(timed, samples=samples) if timed else {}


def _parts_timer(one: Opened) -> Callable[..., dict[str, float]] | None:
    """Times the parts of one call by CUDA events; None where nothing of the run can.

    What is returned takes img0, img1 and timestep, and gives the milliseconds of each part.
    """
    if isinstance(one.backend, TensorRTBackend):
        return functools.partial(time_parts, one.backend)
    if isinstance(one.run, PyTorchRun) and one.run.on_gpu:
        from bench.runs.torch_gpu import TorchGpuBackend

        assert isinstance(one.backend, TorchGpuBackend)
        return one.backend.time_parts
    return None


def _throughput(
    opened: Mapping[str, Opened], clip: Clip, count: int, factor: int
) -> dict[str, Any]:
    """Pairs a second of a stream of `count` frames, in turns, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in opened}
    for number in range(1 + _STREAMED):
        for name, one in opened.items():
            started = time.perf_counter()
            for _ in one.vfi.stream(itertools.islice(itertools.cycle(clip), count), factor=factor):
                pass
            if number:
                seconds[name].append(time.perf_counter() - started)
    pairs = count - 1
    return {
        name: {"pairs_per_second": pairs / statistics.median(s), "pairs": pairs, "seconds": s}
        for name, s in seconds.items()
    }


def _profiles(opened: Mapping[str, Opened], clip: Clip, threads: int) -> Layers:
    """Milliseconds of each layer of each artefact, once a file."""
    layers: Layers = {}
    for run, backend, vfi in opened.values():
        if not isinstance(run, ArtefactRun) or run.file in layers:
            continue
        img0, img1, timestep = call_inputs(vfi.info, clip)
        if isinstance(backend, TensorRTBackend):
            layers[run.file] = profile_layers(
                backend, img0, img1, timestep, runs=_PROFILED["engine"]
            )
        elif not vfi.backend.startswith("onnxruntime"):
            print(f"{run.file} runs on {vfi.backend}: --profile is for engines and ONNX Runtime")
        elif run.on_gpu:
            # What ONNX Runtime notes there is when a kernel was queued, not how long it ran.
            print(f"{run.file} runs on {vfi.backend}: --profile is for engines and processors")
        else:
            pairs = vfi.info.pairs_per_call
            inputs = {"img0": img0.repeat(pairs, 0), "img1": img1.repeat(pairs, 0)}
            layers[run.file] = profile_onnx(
                run.path,
                {**inputs, "timestep": timestep},
                threads=threads,
                runs=_PROFILED["onnx"],
            )
    return layers


def _figures(run: Run, case: Case, rounds: Rounds, warmed_up: WarmUp) -> dict[str, Any]:
    """What the samples of a run say."""
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
        "warm_up": warmed_up._asdict(),
    }


def _unlike(run: Run, case: Case, *, on_gpu: bool) -> list[str]:
    """What a reader who compares this run with others has to know."""
    found = []
    scale = run.info(case).flow_scale
    if case.flow_scale is not None and scale != case.flow_scale:
        found.append(
            f"its flow scale is {scale:g}, the protocol of {case.dataset} says "
            f"{case.flow_scale:g}: the time of an artefact exported with "
            f"--flow-scale {case.flow_scale:g} differs"
        )
    if on_gpu and not run.on_gpu:
        found.append(
            "it ran on the processor beside runs on a GPU: give --device cuda to measure it there"
        )
    return found


def _without_graph(file: Mapping[str, Any] | None) -> Iterator[str]:
    if problem := (file or {}).get("cuda_graph_problem"):
        yield (
            f"its CUDA graph could not be recorded ({problem}): it was measured with plain launches"
        )


def _ratios(
    runs: Sequence[Run], case: Case, measured: Mapping[str, Rounds], *, of_a_call: bool = False
) -> Iterator[dict[str, Any]]:
    """Each baseline over each artefact that does the same work, in a pair or in one call."""

    def work(run: Run) -> tuple[object, ...]:
        info = run.info(case)
        return run.variant, info.flow_scale, info.frames_per_call if of_a_call else None

    for slow, fast in itertools.product(runs, runs):
        compared = slow.kind != "artefact" and fast.kind == "artefact"
        if compared and work(slow) == work(fast):
            found = ratio(measured[slow.name], measured[fast.name])
            yield {"slower": slow.name, "faster": fast.name, **found}


def _work(run: Run, case: Case) -> Work | None:
    """What a pair costs; None where PyTorch is not there to count, or nobody knows."""
    try:
        from bench.harness.roofline import work_of_a_pair
    except ModuleNotFoundError:
        return None
    if run.variant == UNKNOWN:
        return None
    info, authors = run.info(case), run.kind == "plain"
    if isinstance(run, PyTorchRun):
        if run.form.precision == "autocast":
            return None  # The conversions that it adds are those of the GPU's operators alone.
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
) -> dict[str, float] | None:
    """A run on a processor held against it."""
    if work is None or ceilings is None or run.on_gpu:
        return None
    from bench.harness.roofline import share_of_ceilings

    return share_of_ceilings(work, statistics.median(flat(rounds)), ceilings)
