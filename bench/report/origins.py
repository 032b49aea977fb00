"""The table of what the figures come from: machine, versions, commit and weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.records.common import Environment
from bench.report.evidence import Alternatives, Evidence, EvidenceFile, Latency, Parity
from bench.report.runs import file_names, machine_name
from bench.report.text import Table
from runtime.errors import counted

_KEY_PACKAGES = ("python", "torch", "onnxruntime", "onnxruntime-gpu", "tensorrt", "openvino")
_DIGITS = 8
"""Digits of the SHA-256 of weights that are shown."""


def origins_table(evidence: Evidence) -> Table:
    """A row for each distinct origin of the files of latency and parity."""
    table = Table("origins", "Origin")
    names, weights = file_names(evidence), _weights_names(evidence)
    by_origin: dict[tuple[str, str, str], list[EvidenceFile]] = {}
    for file in evidence.compared:
        environment = file.environment
        commit = environment["commit"] or "unknown"
        key = machine_name(environment), versions(environment), commit
        by_origin.setdefault(key, []).append(file)
    for (machine, packages, commit), files in by_origin.items():
        threads = dict.fromkeys(file.threads for file in files if file.threads is not None)
        hashes = dict.fromkeys(sha256 for file in files for sha256 in _weights_of(file))
        table.rows.append(
            {
                "machine": machine,
                "threads of latency": ", ".join(map(str, threads)),
                "versions": packages,
                "commit": commit,
                "weights": ", ".join(weights.get(one, one[:_DIGITS]) for one in hashes),
                "files": ", ".join(names[file.path] for file in files),
            }
        )
    return table


def origin_sentence(evidence: Evidence, file: EvidenceFile) -> str:
    """The origin of one file, for a table of its own."""
    return f"{file_names(evidence)[file.path]}: {origin(file.environment, file.threads)}."


def origin(environment: Environment, threads: int | None) -> str:
    """Machine, versions of the main packages, and commit, in one line."""
    machine = machine_name(environment)
    if threads is not None:
        machine += f", {counted(threads, 'thread')}"
    return "; ".join(
        [machine, versions(environment), f"commit {environment['commit'] or 'unknown'}"]
    )


def versions(environment: Environment) -> str:
    """The versions of the main packages."""
    known = environment["versions"]
    return ", ".join(f"{name} {known[name]}" for name in _KEY_PACKAGES if name in known)


def _weights_of(file: EvidenceFile) -> Iterator[str]:
    """The SHA-256 of the weights of a file's runs."""
    match file:
        case Parity():
            if sha256 := file.configuration["weights"]["sha256"]:
                yield sha256
        case Latency():
            runs = (run for case in file.record["cases"] for run in case["runs"].values())
            for run in runs:
                of_run: dict[str, Any] = {**(run["artefact"] or {})}
                if found := of_run.get("weights_sha256"):
                    yield found
        case Alternatives():
            return


def _weights_names(evidence: Evidence) -> dict[str, str]:
    """SHA-256 -> name, first digits, and whether the weights are random, from the parity files."""
    named = {}
    for parity in evidence.parities:
        weights = parity.configuration["weights"]
        if weights["sha256"]:
            random = ", random" if weights["random"] else ""
            named[weights["sha256"]] = f"{weights['name']} ({weights['sha256'][:_DIGITS]}{random})"
    return named
