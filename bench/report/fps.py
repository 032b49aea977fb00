"""The short table of latency: frames a second, times, speed and agreement against PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bench.data.protocols import LATENCY_SETS, PROTOCOLS
from bench.harness.warnings import run_warnings
from bench.records.latency import CaseRecord, RatioRecord, RunRecord
from bench.report.text import Table, decibels
from runtime.errors import rounded

_RELIABLE_P99 = 100
"""Samples from which on a p99 is not one of the two slowest samples."""
_FEW_SAMPLES = f"fewer than {_RELIABLE_P99} samples: the p99 is close to the slowest of them"
_OPTIONS = {"tf32": "TensorFloat-32", "half": "fp16", "autocast": "fp16", "fp16": "fp16"}
"""The type in which PyTorch computes with an option of `--compare`; without one it is fp32."""


class NamedRun(NamedTuple):
    """A run of a case, with its name there."""

    name: str
    run: RunRecord


def fps_table(cases: Sequence[tuple[CaseRecord, str]], *, fastest_only: bool = False) -> Table:
    """The artefacts of each case, or its PyTorch runs if it has no artefact.

    Args:
        cases: Each case with its machine; the machine is "" if all have the same.
        fastest_only: Whether a case shows only its fastest artefact.
    """
    table = Table("fps", "In short")
    baselines: dict[str, None] = {}
    for case, machine in cases:
        runs = artefacts_of(case) or [NamedRun(*one) for one in case["runs"].items()]
        if fastest_only and runs:
            runs = [fastest_of(runs)]
        for one in runs:
            ratio = fastest_baseline(case, one.name)
            if ratio is not None:
                baselines.setdefault(ratio["slower"])
            table.rows.append(_row(table, case, machine, one, ratio))
    table.sources = [
        *_frames_sentences(case for case, _ in cases),
        *_pytorch_sentences([case for case, _ in cases], list(baselines)),
    ]
    return table


def artefacts_of(case: CaseRecord) -> list[NamedRun]:
    """The artefacts of a case, without PyTorch and plain exports."""
    runs = case["runs"].items()
    return [NamedRun(name, run) for name, run in runs if run["kind"] == "artefact"]


def fastest_baseline(case: CaseRecord, name: str) -> RatioRecord | None:
    """The ratio of a run to the fastest PyTorch run that does the same work; None without one."""
    pytorch = {other for other, run in case["runs"].items() if run["kind"] == "pytorch"}
    ratios = [r for r in case["ratios"] if r["faster"] == name and r["slower"] in pytorch]
    return min(ratios, key=lambda ratio: ratio["p50"], default=None)


def case_title(case: CaseRecord) -> str:
    """The title of the data set of a case; empty without one."""
    dataset = case["dataset"]
    if dataset is None:
        return ""
    return PROTOCOLS[LATENCY_SETS[dataset]].title if dataset in LATENCY_SETS else dataset


def case_name(case: CaseRecord) -> str:
    """The data set, where there is one, and the size of a case, as "UCF101, 256x256"."""
    title = case_title(case)
    return f"{title}, {case['size']}" if title else case["size"]


def fastest_of(runs: Sequence[NamedRun]) -> NamedRun:
    """The run with the lowest median."""
    return min(runs, key=lambda one: one.run["milliseconds"]["p50"])


def computed_type(stored: str, computed: str) -> str:
    """The type in which an artefact computes, for example "fp32", "bf16", "int8", "int8, bf16".

    Args:
        stored: Type of its file.
        computed: Type that the backend computes in; "" or "fp32" where it chooses none. It
            replaces that of the file, but int8 models compute their other operators in it.
    """
    if computed in ("", "fp32"):
        return stored
    return f"{stored}, {computed}" if stored == "int8" else computed


def precision_of(run: RunRecord) -> str:
    """The type in which a run computes, as `computed_type`; "" for PyTorch."""
    artefact = run["artefact"]
    if artefact is None:
        return ""
    return computed_type(
        str(artefact.get("precision", "")), artefact.get("inference_precision", "")
    )


def _row(
    table: Table, case: CaseRecord, machine: str, one: NamedRun, ratio: RatioRecord | None
) -> dict[str, str]:
    times, samples = one.run["milliseconds"], one.run["samples"]
    few = [_FEW_SAMPLES] if samples < _RELIABLE_P99 else []
    return {
        "data set": case_title(case),
        "size": case["size"],
        "factor": str(case["factor"]),
        "machine": machine,
        "run": table.marked(one.name, run_warnings(case, one.run)),
        "new frames/s": rounded(one.run["fps"]),
        "p50, ms": rounded(times["p50"]),
        "p99, ms": table.marked(rounded(times["p99"]), few),
        "against PyTorch": "" if ratio is None else _ratio_cell(table, case, ratio, one.run),
        "equal to PyTorch, dB": _agreement_cell(one.run),
    }


def _ratio_cell(table: Table, case: CaseRecord, ratio: RatioRecord, run: RunRecord) -> str:
    cell = f"{ratio['p50']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})"
    return table.marked(cell, ratio_caveats(case, run, ratio["slower"]))


def ratio_caveats(case: CaseRecord, run: RunRecord, baseline: str) -> list[str]:
    """What a reader of a ratio must know: an artefact and PyTorch compute in different types."""
    precision = precision_of(run)
    of_pytorch = case["runs"][baseline].get("pytorch") or {}
    options = str(of_pytorch.get("name", "")).split(":")[1:]
    other = next((_OPTIONS[option] for option in options if option in _OPTIONS), "fp32")
    if precision in ("", other):
        return []
    return [f"the artefact computes in {precision}, {baseline} in {other}"]


def _agreement_cell(run: RunRecord) -> str:
    compared = run.get("agreement")
    if compared is None or not compared["finite"]:
        return ""
    worst = compared.get("worst_psnr_db")
    least = "" if worst is None or compared.get("frames") == 1 else f" (worst {worst:.1f})"
    return decibels(compared["psnr_db"], 1) + least


def _frames_sentences(cases: Iterable[CaseRecord]) -> Iterator[str]:
    """Sentences on the frames of the cases, each once."""
    sentences = {}
    for case in cases:
        frames = case.get("frames")
        if frames is None or frames["made"]:
            sentences["Frames are made, not those of a data set; times do not depend on them."] = 0
        else:
            named = ", ".join(frames["samples"])
            sentences[f"{case_title(case)}: frames of the samples {named}."] = 0
    yield from sentences


def _pytorch_sentences(cases: Sequence[CaseRecord], baselines: Sequence[str]) -> Iterator[str]:
    if baselines:
        several = "the fastest PyTorch run of the case, of: " if len(baselines) > 1 else ""
        yield (
            f"Against PyTorch: how many times as fast as {several}{', '.join(baselines)}; in "
            "brackets the confidence interval. Both were timed in interleaved rounds of one run."
        )
    references = dict.fromkeys(
        compared["reference"]
        for case in cases
        for one in artefacts_of(case)
        if (compared := one.run.get("agreement"))
    )
    if not baselines and not references and any(map(artefacts_of, cases)):
        yield "PyTorch was not measured: give its checkpoint with --weights."
    if references:
        yield (
            f"Equal to PyTorch: PSNR of the new uint8 frames to those of {', '.join(references)}."
        )
    failed = {
        f"{name} is missing: {failure['failed']}."
        for case in cases
        for name, failure in case.get("failed", {}).items()
    }
    yield from sorted(failed)
