"""The runs in the evidence, with the label that each has in all tables and plots."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.records.common import Environment
from bench.records.latency import CaseRecord, RunRecord
from bench.records.parity import ArtefactSummary, ComparedArtefact
from bench.report.evidence import Evidence, Latency, Parity
from bench.report.fps import computed_type
from runtime.errors import counted
from runtime.machine import low_precision_of


@dataclass(frozen=True)
class MeasuredRun:
    """One run of one case.

    Attributes:
        latency: Its file.
        case: Its case.
        name: Its name in the case.
        short_name: The name without the frame size, if that is unique in the case.
        run: Its record.
        label: The same for the same run at other sizes.
    """

    latency: Latency
    case: CaseRecord
    name: str
    short_name: str
    run: RunRecord
    label: str


@dataclass(frozen=True)
class ComparedRun:
    """One artefact on one data set; its label is that of the same file in the latency evidence."""

    parity: Parity
    artefact: ComparedArtefact
    result: ArtefactSummary
    label: str


def computed_precision(artefact: ComparedArtefact) -> str:
    """The type in which an artefact was computed, as `computed_type`: OpenVINO chooses it."""
    last = artefact["backend"].rpartition(" ")[2]
    return computed_type(artefact["precision"], last if last in ("bf16", "fp16") else "")


def measured_runs(evidence: Evidence) -> list[MeasuredRun]:
    """Every run of every case, with its label."""
    cases = [(file, case) for file in evidence.latencies for case in file.record["cases"]]
    variants = {
        run["variant"]
        for _, case in cases
        for run in case["runs"].values()
        if run["kind"] == "pytorch"
    }
    found = []
    for latency, case in cases:
        short = _short_names(case["runs"])
        for name, run in case["runs"].items():
            several = run["kind"] == "pytorch" and len(variants) > 1
            label = f"{short[name]}, {run['variant']}" if several else short[name]
            label += _on_machine(latency, evidence)
            found.append(MeasuredRun(latency, case, name, short[name], run, label))
    return found


def compared_runs(evidence: Evidence) -> list[ComparedRun]:
    """Every artefact of every parity file, with its label; those of one data set together."""
    by_hash: dict[str, str] = {}
    for one in measured_runs(evidence):
        if one.run["artefact"] is not None:
            by_hash.setdefault(one.run["artefact"]["sha256"], one.short_name)
    found = []
    for parity in evidence.parities:
        artefacts = parity.configuration["artefacts"]
        short = _short_names(f"{one['name']} on {one['backend']}" for one in artefacts)
        for artefact in artefacts:
            label = by_hash.get(
                artefact["sha256"], short[f"{artefact['name']} on {artefact['backend']}"]
            )
            label += _on_machine(parity, evidence)
            result = parity.summary["artefacts"][artefact["name"]]
            found.append(ComparedRun(parity, artefact, result, label))
    titles = [one.parity.configuration["title"] for one in found]
    return sorted(found, key=lambda one: titles.index(one.parity.configuration["title"]))


def machine_name(environment: Environment) -> str:
    """CPU and GPUs, as "AMD EPYC (avx512_vnni avx512f), 2 CPUs, NVIDIA H200".

    The vector extensions in brackets are those for bfloat16, float16 and int8. Evidence of earlier
    versions has none.
    """
    extensions = " ".join(low_precision_of(environment.get("instruction_sets") or ()))
    name = environment["processor"] + (f" ({extensions})" if extensions else "")
    cpus = counted(environment["processors"], "CPU")
    return ", ".join([name, cpus, *(gpu["name"] for gpu in environment["gpu"]["gpus"])])


def several_machines(evidence: Evidence) -> bool:
    """Whether the files of latency and parity come from more than one machine."""
    return len({machine_name(file.environment) for file in evidence.compared}) > 1


def file_names(evidence: Evidence) -> dict[Path, str]:
    """A name for each file: the shortest end of its path that no other file has."""
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


def _on_machine(file: Latency | Parity, evidence: Evidence) -> str:
    return f" ({machine_name(file.environment)})" if several_machines(evidence) else ""


def _short_names(names: Iterable[str]) -> dict[str, str]:
    """Names without the frame size, which files of a fixed size have in their names.

    Names that would become equal are not shortened.
    """
    short = {name: re.sub(r"[_-]?\d+x\d+", "", name).lstrip("_-") for name in names}
    count = Counter(short.values())
    return {name: less if count[less] == 1 else name for name, less in short.items()}
