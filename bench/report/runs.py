"""What was measured, run by run, under the same label in every table and plot."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.data.protocols import LATENCY_SETS, PROTOCOLS
from bench.records import ArtefactSummary, CaseRecord, ComparedArtefact, Environment, RunRecord
from bench.report.evidence import Evidence, Latency, Parity


@dataclass(frozen=True)
class MeasuredRun:
    """One run of one case; `label` is the same for the same run at other sizes."""

    latency: Latency
    case: CaseRecord
    name: str
    run: RunRecord
    label: str


@dataclass(frozen=True)
class ComparedRun:
    """One artefact on one data set, under the label of its latency where that was measured."""

    parity: Parity
    artefact: ComparedArtefact
    result: ArtefactSummary
    label: str


def measured_runs(evidence: Evidence) -> list[MeasuredRun]:
    """Every run of every case, with its label."""
    several = len(_machines(evidence)) > 1
    variants = {
        run["variant"]
        for latency in evidence.latencies
        for case in latency.record["cases"]
        for run in case["runs"].values()
        if run["kind"] == "pytorch"
    }
    found = []
    for latency in evidence.latencies:
        for case in latency.record["cases"]:
            short = _short_names(case["runs"])
            for name, run in case["runs"].items():
                label = short[name]
                if run["kind"] == "pytorch" and len(variants) > 1:
                    label += f", {run['variant']}"
                if several:
                    label += f" ({machine_name(latency.environment)})"
                found.append(MeasuredRun(latency, case, name, run, label))
    return found


def compared_runs(evidence: Evidence) -> list[ComparedRun]:
    """Every artefact of every parity file, with its label; what is of one data set together."""
    several = len(_machines(evidence)) > 1
    by_hash: dict[str, str] = {}
    for latency in evidence.latencies:
        for case in latency.record["cases"]:
            short = _short_names(case["runs"])
            for name, run in case["runs"].items():
                if run["artefact"] is not None:
                    by_hash.setdefault(run["artefact"]["sha256"], short[name])
    found = []
    for parity in evidence.parities:
        full = {
            a["name"]: f"{a['name']} on {a['backend']}" for a in parity.configuration["artefacts"]
        }
        short = _short_names(full.values())
        for artefact in parity.configuration["artefacts"]:
            label = by_hash.get(artefact["sha256"], short[full[artefact["name"]]])
            if several:
                label += f" ({machine_name(parity.environment)})"
            result = parity.summary["artefacts"][artefact["name"]]
            found.append(ComparedRun(parity, artefact, result, label))
    titles = [one.parity.configuration["title"] for one in found]
    return sorted(found, key=lambda one: titles.index(one.parity.configuration["title"]))


def machine_name(environment: Environment) -> str:
    """Processor and GPUs, as "AMD EPYC, 2 processors, NVIDIA H200"."""
    count = environment["processors"]
    name = f"{environment['processor']}, {count} {'processor' if count == 1 else 'processors'}"
    return ", ".join([name, *(gpu["name"] for gpu in environment["gpu"]["gpus"])])


def several_machines(evidence: Evidence) -> bool:
    """Whether the files are of more than one machine, which a reader then has to be told."""
    return len(_machines(evidence)) > 1


def dataset_titles(evidence: Evidence) -> dict[str, str]:
    """The titles of the data sets by the names that the files use, those of folders included."""
    known = {name: PROTOCOLS[protocol].title for name, protocol in LATENCY_SETS.items()}
    found = {p.configuration["dataset"]: p.configuration["title"] for p in evidence.parities}
    return known | found


def file_names(evidence: Evidence) -> dict[Path, str]:
    """A name for each file: with as many of its folders as it takes to tell them apart."""
    paths = [file.path for file in evidence.files]
    names = {}
    for path in paths:
        parts = path.resolve().parts
        others = [p.resolve().parts for p in paths if p != path]
        depth = 1
        while any(other[-depth:] == parts[-depth:] for other in others):
            depth += 1
        names[path] = "/".join(parts[-depth:])
    return names


def _machines(evidence: Evidence) -> set[str]:
    return {machine_name(file.environment) for file in evidence.files}


def _short_names(names: Iterable[str]) -> dict[str, str]:
    """Names without the frame size, which a file that is made for one size has in its name.

    Where two become equal by that, they keep theirs.
    """
    short = {name: re.sub(r"[_-]?\d+x\d+", "", name).lstrip("_-") for name in names}
    count = Counter(short.values())
    return {name: less if count[less] == 1 else name for name, less in short.items()}
