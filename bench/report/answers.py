"""The first screen of a report: four questions of a reader, answered in words and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.harness.warnings import run_warnings
from bench.records.latency import CaseRecord
from bench.report.evidence import Evidence
from bench.report.fps import (
    NamedRun,
    artefacts_of,
    case_name,
    case_title,
    fastest_baseline,
    fastest_of,
    precision_of,
    ratio_caveats,
)
from bench.report.runs import (
    compared_runs,
    computed_precision,
    machine_name,
    several_machines,
)
from runtime.errors import counted, rounded

_WORDS = (
    (60.0, "indistinguishable from PyTorch"),
    (48.13, "equal to PyTorch within one 8-bit level"),
    (40.0, "close to PyTorch"),
    (-math.inf, "different from PyTorch"),
)
"""The lowest PSNR of a frame in dB from which on each wording is used. At 48.13 dB the root mean
square error is one level of 255; at 60 dB one value of fifteen differs by one level."""
_SCALE = (
    "At 60 dB one value of fifteen differs by one 8-bit level, at 48 dB the error is one level in "
    "the root mean square."
)
_SHOWN = 3
"""Number of cases that the first answer names."""


class Answer(NamedTuple):
    """A question with its answer in a few words, and a sentence on how the answer was found."""

    question: str
    answer: str
    detail: str


class _Fastest(NamedTuple):
    """The fastest artefact of a case."""

    case: CaseRecord
    one: NamedRun
    threads: int | None
    machine: str

    @property
    def where(self) -> str:
        """The data set and the size, with the factor if it is not 2."""
        factor, place = self.case["factor"], case_name(self.case)
        named = factor == 2 or f"{factor}x" in case_title(self.case)
        return place if named else f"{place}, {factor}x"


def answers(evidence: Evidence) -> list[Answer]:
    """The questions that the evidence has an answer to, in the order of a reader."""
    fastest = _fastest(evidence)
    found = (_frames(fastest), _faster(fastest), _equal(evidence), _trust(evidence))
    return [one for one in found if one is not None]


def agreement_in_words(worst: float) -> str:
    """A wording for the lowest PSNR of a new frame to that of PyTorch, in dB; inf if identical."""
    return next(words for least, words in _WORDS if worst >= least)


def _fastest(evidence: Evidence) -> list[_Fastest]:
    found = []
    for file in evidence.latencies:
        for case in file.record["cases"]:
            if artefacts := artefacts_of(case):
                machine = machine_name(file.environment)
                found.append(_Fastest(case, fastest_of(artefacts), file.threads, machine))
    return found


def _frames(fastest: Sequence[_Fastest]) -> Answer | None:
    if not fastest:
        return None
    named = [f"{rounded(one.one.run['fps'])} at {one.where}" for one in fastest[:_SHOWN]]
    more = len(fastest) - _SHOWN
    rest = f", and {more} more below" if more > 0 else ""
    runs = ", ".join(dict.fromkeys(one.one.name for one in fastest[:_SHOWN]))
    threads = {one.threads for one in fastest}
    on = f", {counted(n, 'thread')}" if len(threads) == 1 and (n := threads.pop()) else ""
    machines = "; ".join(dict.fromkeys(one.machine for one in fastest))
    return Answer(
        "How many new frames a second?",
        f"{'; '.join(named)}{rest}",
        f"The fastest artefact of each case: {runs}. On {machines}{on}, from uint8 frames in "
        "memory to uint8 frames in memory.",
    )


def _faster(fastest: Sequence[_Fastest]) -> Answer | None:
    found = [(ratio, one) for one in fastest if (ratio := fastest_baseline(one.case, one.one.name))]
    if not found:
        return None
    low, high = (limit(ratio["p50"] for ratio, _ in found) for limit in (min, max))
    baselines = list(dict.fromkeys(ratio["slower"] for ratio, _ in found))
    text = f"{low:.2f}x" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f}x to {high:.2f}x"
    ratio, _ = found[0]
    interval = (
        f" ({ratio['low']:.2f} to {ratio['high']:.2f})"
        if len(found) == 1
        else f" in {len(found)} cases"
    )
    caveats = dict.fromkeys(
        caveat
        for ratio, one in found
        for caveat in ratio_caveats(one.case, one.one.run, ratio["slower"])
    )
    against = "the fastest PyTorch run of each case" if len(baselines) > 1 else baselines[0]
    return Answer(
        "How much faster than PyTorch?",
        f"{text} as fast{interval}",
        " ".join(
            [
                f"Against {against}, timed in interleaved rounds of the same run.",
                *(f"{caveat[:1].upper()}{caveat[1:]}." for caveat in caveats),
            ]
        ),
    )


class _Agreement(NamedTuple):
    """Agreement of artefacts of one type with PyTorch; PSNR in dB, inf if identical."""

    mean: float
    worst: float
    where: str


def _equal(evidence: Evidence) -> Answer | None:
    by_precision: dict[str, list[_Agreement]] = {}
    for precision, found in _agreements(evidence):
        by_precision.setdefault(precision, []).append(found)
    if not by_precision:
        return None
    parts, worst = [], []
    for precision, all_found in by_precision.items():
        least = min(all_found, key=lambda one: one.worst)
        mean = min(one.mean for one in all_found)
        several = f"{precision}: " if len(by_precision) > 1 else ""
        parts.append(f"{several}{agreement_in_words(least.worst)}: {_db(mean, least.worst)}")
        if math.isfinite(least.worst):
            worst.append(f"{several}{least.where}")
    sentences = [f"Worst frame: {'; '.join(worst)}."] if worst else []
    losses = [
        drop
        for one in compared_runs(evidence)
        if (drop := one.result["drop"]) is not None
        and not one.parity.configuration["weights"]["random"]
    ]
    if losses:
        sentences.append(
            f"The PSNR to the true frames falls by {max(*losses, 0.0):.3f} dB at most."
        )
    return Answer("Is it equal to PyTorch?", "; ".join(parts), " ".join([*sentences, _SCALE]))


def _db(mean: float, worst: float) -> str:
    if math.isinf(worst):
        return "every frame is identical"
    return f"{mean:.1f} dB in the mean, worst frame {worst:.1f} dB"


def _agreements(evidence: Evidence) -> Iterator[tuple[str, _Agreement]]:
    """The agreement of each artefact by its type: of parity files, or else of latency files."""
    compared = compared_runs(evidence)
    for one in compared:
        against, title = one.result["against_reference"], one.parity.configuration["title"]
        least = against["worst"]
        worst = math.inf if least is None or least["psnr"] is None else least["psnr"]
        mean = math.inf if against["mean"] is None else against["mean"]
        sample = "" if least is None else f", sample {least['sample']}"
        where = f"{one.artefact['name']} on {title}{sample}"
        yield computed_precision(one.artefact), _Agreement(mean, worst, where)
    if compared:
        return
    for file in evidence.latencies:
        for case in file.record["cases"]:
            for name, run in artefacts_of(case):
                agreed = run.get("agreement")
                if agreed is None or not agreed["finite"]:
                    continue
                mean = math.inf if agreed["psnr_db"] is None else agreed["psnr_db"]
                lowest = agreed.get("worst_psnr_db")
                worst = mean if lowest is None else lowest
                yield precision_of(run), _Agreement(mean, worst, f"{name} at {case['size']}")


def _trust(evidence: Evidence) -> Answer:
    """What supports the figures: samples, warnings, whole data sets; frames, weights, commits."""
    runs = [
        (case, run)
        for file in evidence.latencies
        for case in file.record["cases"]
        for run in case["runs"].values()
    ]
    parts, sentences = [], []
    if runs:
        warned = sum(bool(run_warnings(case, run)) for case, run in runs)
        fewest = min(run["samples"] for _, run in runs)
        warnings = f"{warned} with a warning" if warned else "none with a warning"
        parts.append(f"{counted(len(runs), 'timed run')} of {fewest} samples or more, {warnings}")
    if evidence.parities:
        whole = dict.fromkeys(
            parity.configuration["title"]
            for parity in evidence.parities
            if parity.configuration["official_samples"] == parity.summary["samples"]
        )
        parts.append(f"the whole of {', '.join(whole)}" if whole else "clips or parts of data sets")
    if any(case.get("frames", {"made": True})["made"] for case, _ in runs):
        sentences.append("Times are those of made frames, on which they do not depend.")
    if any(parity.configuration["weights"]["random"] for parity in evidence.parities):
        sentences.append("Rows with random weights show agreement only.")
    if several_machines(evidence):
        sentences.append("There are several machines: compare rows of one machine.")
    commits = dict.fromkeys(file.environment["commit"] or "unknown" for file in evidence.files)
    sentences.append(f"Commit {', '.join(commits)}.")
    if any("+" in commit for commit in commits):
        sentences.append("+ stands for changes that are not committed.")
    sentences.append("Samples, versions and hashes are in the evidence at the end.")
    return Answer("Can I trust it?", "; ".join(parts) or "see the evidence", " ".join(sentences))
