"""Reads evidence files. A named file must be usable; in a folder, unusable files are left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

import msgspec

from bench.environment import MeasurementError
from bench.records.alternatives import AlternativesRecord
from bench.records.common import Environment
from bench.records.latency import LatencyRecord
from bench.records.parity import Configuration, ParityEnd, ParityHeader, Summary

T = TypeVar("T")


class _Kind(TypedDict):
    """The key that distinguishes the JSON files of the commands."""

    kind: Literal["latency", "alternatives"]


_CEILINGS = (
    {"matmul_flops_per_second", "copy_bytes_per_second", "measured_with"},
    {"gpu", "matmul_fp16_tflops", "measured_with"},
    {"problem"},
)
"""The keys of the ceilings of a CPU, the ceilings of a GPU, and ceilings that were not measured."""


class EvidenceError(MeasurementError):
    """A file that is not evidence, is damaged, or is of a run that did not finish."""


@dataclass(frozen=True)
class Latency:
    """A file of `bench.latency`."""

    path: Path
    record: LatencyRecord

    @property
    def environment(self) -> Environment:
        """Machine, versions and commit."""
        return self.record["environment"]

    @property
    def threads(self) -> int | None:
        """CPU threads; None if all runs used a GPU."""
        return self.record["threads"]

    @property
    def artefacts(self) -> dict[str, str]:
        """SHA-256 of every file that was run, by its name."""
        runs = (run for case in self.record["cases"] for run in case["runs"].values())
        return {
            run["artefact"]["file"]: run["artefact"]["sha256"] for run in runs if run["artefact"]
        }


@dataclass(frozen=True)
class Parity:
    """A complete file of `bench.parity`."""

    path: Path
    configuration: Configuration
    environment: Environment
    summary: Summary
    threads: None = None


@dataclass(frozen=True)
class Alternatives:
    """A file of `bench.alternatives`."""

    path: Path
    record: AlternativesRecord

    @property
    def environment(self) -> Environment:
        """Machine, versions and commit."""
        return self.record["environment"]

    @property
    def threads(self) -> int:
        """CPU threads of every method."""
        return self.record["threads"]


EvidenceFile = Latency | Parity | Alternatives


@dataclass(frozen=True)
class Evidence:
    """The files in the order given; `notes` has a line for each file that was left out."""

    latencies: list[Latency]
    parities: list[Parity]
    alternatives: list[Alternatives]
    notes: list[str]

    @property
    def compared(self) -> list[Latency | Parity]:
        """The parity files, then the latency files, which tables and plots show together."""
        return [*self.parities, *self.latencies]

    @property
    def files(self) -> list[EvidenceFile]:
        """The parity files, the latency files, then those of alternatives."""
        return [*self.compared, *self.alternatives]


def read_evidence(paths: Sequence[Path]) -> Evidence:
    """Reads the named files, and from folders all *.json and *.jsonl files with evidence, by name.

    A file in a folder that cannot be used is left out with a note. A file that is given twice is
    read once. Subfolders are not searched.

    Raises:
        EvidenceError: If a named file is not evidence, is damaged, has another format version or
            is of a run that did not finish; or if nothing was found.
        OSError: If a named file cannot be read.
    """
    evidence = Evidence([], [], [], [])
    seen: set[Path] = set()
    for given in paths:
        found = _files_of(given) if given.is_dir() else [given]
        for path in found:
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            try:
                read = _read(path)
            except (EvidenceError, OSError) as error:
                if not given.is_dir():
                    raise
                evidence.notes.append(f"left out: {error}")
                continue
            match read:
                case Latency():
                    evidence.latencies.append(read)
                case Parity():
                    evidence.parities.append(read)
                case Alternatives():
                    evidence.alternatives.append(read)
    if not evidence.files:
        raise EvidenceError(
            f"no evidence was found in {', '.join(map(str, paths))}"
            f"{''.join(f'; {note}' for note in evidence.notes)}: measure with "
            "python -m bench.latency --json or python -m bench.parity --output"
        )
    return evidence


def _files_of(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix in (".json", ".jsonl") and p.is_file())


def _read(path: Path) -> EvidenceFile:
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise EvidenceError(f"{path} is not UTF-8 text: give a file of bench") from error
    if path.suffix == ".jsonl":
        return _parity(path, text)
    kind = _decoded(path, text, _Kind)["kind"]
    return _latency(path, text) if kind == "latency" else _alternatives(path, text)


def _latency(path: Path, text: str) -> Latency:
    record = _decoded(path, text, LatencyRecord)
    ceilings = record["ceilings"]
    if not any(keys <= ceilings.keys() for keys in _CEILINGS):
        raise _unusable(path, f"its ceilings have only the keys {sorted(ceilings)}")
    for case in record["cases"]:
        if not re.fullmatch(r"\d+x\d+", case["size"]):
            raise _unusable(path, f"it has the size {case['size']!r}, not HEIGHTxWIDTH")
        for name, run in case["runs"].items():
            # Statistics without their samples are not evidence.
            seconds = [second for samples in run["seconds"] for second in samples]
            if not seconds or min(seconds) <= 0 or run["milliseconds"]["p50"] <= 0:
                problem = "has no samples, or samples of zero seconds"
                raise _unusable(path, f"its run {name!r} at {case['size']} {problem}")
    return Latency(path, record)


def _alternatives(path: Path, text: str) -> Alternatives:
    record = _decoded(path, text, AlternativesRecord)
    rounds = {len(method["seconds"]) for method in record["methods"]}
    if len(rounds) != 1 or 0 in rounds:
        raise _unusable(path, "its methods have no samples, or different numbers of rounds")
    if len(record["size"]) != 2:
        raise _unusable(path, f"it has the size {record['size']}, not [height, width]")
    return Alternatives(path, record)


def _parity(path: Path, text: str) -> Parity:
    first, *lines = text.strip().split("\n")
    header = _decoded(path, first, ParityHeader, "line 1: ")
    try:
        complete = "summary" in msgspec.json.decode(lines[-1], type=dict[str, Any])
    except (IndexError, msgspec.DecodeError, RecursionError):
        complete = False  # The run was stopped while it wrote a line.
    if not complete:
        raise EvidenceError(
            f"{path} has no summary line, as its run did not finish: "
            "run the bench.parity command in its first line with --resume"
        )
    for number, line in enumerate(lines[:-1], 2):
        _decoded(path, line, dict[str, Any], f"line {number}: ")
    summary = _decoded(path, lines[-1], ParityEnd, f"line {len(lines) + 1}: ")["summary"]
    configuration = header["configuration"]
    if type(configuration["protocol"].get("factor")) is not int:
        raise _unusable(path, "its protocol has no factor")
    for artefact in configuration["artefacts"]:
        if artefact["name"] not in summary["artefacts"]:
            problem = "which its first line names"
            raise _unusable(path, f"its summary lacks {artefact['name']}, {problem}")
    return Parity(path, configuration, header["environment"], summary)


def _decoded(path: Path, text: str, expected: type[T], place: str = "") -> T:
    """Parses JSON and checks its types; keys that the types do not name are dropped."""
    try:
        return msgspec.json.decode(text, type=expected)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _unusable(path, f"{place}{error}") from error


def _unusable(path: Path, problem: str) -> EvidenceError:
    return EvidenceError(
        f"{path} is not a complete evidence file of this version ({problem}): measure again, or "
        "give another file"
    )
