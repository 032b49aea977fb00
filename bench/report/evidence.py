"""Reads evidence files: one that is named must be whole, one in a folder is left out if not."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bench.environment import MeasurementError
from bench.report.formats import (
    FORMAT_VERSION,
    Configuration,
    Environment,
    LatencyRecord,
    ParityHeader,
    Summary,
)
from bench.report.shape import misfit


class EvidenceError(MeasurementError):
    """A file is no evidence, is damaged, or is of a run that was broken off."""


@dataclass(frozen=True)
class Latency:
    """A file of `bench.latency`."""

    path: Path
    record: LatencyRecord

    @property
    def environment(self) -> Environment:
        """Machine, versions and commit."""
        return self.record["environment"]


@dataclass(frozen=True)
class Parity:
    """A complete file of `bench.parity`."""

    path: Path
    configuration: Configuration
    environment: Environment
    summary: Summary


@dataclass(frozen=True)
class Evidence:
    """What was read, in the order given; `notes` say what was left out, and why."""

    latencies: list[Latency]
    parities: list[Parity]
    notes: list[str]

    @property
    def files(self) -> list[Latency | Parity]:
        """Those of parity, then those of latency."""
        return [*self.parities, *self.latencies]


def read_evidence(paths: Sequence[Path]) -> Evidence:
    """Reads files, and of folders every *.json and *.jsonl that is evidence, by name.

    What is in a folder and cannot be used is left out with a note; a file that is named must be
    usable. A file that is given twice is read once.

    Raises:
        EvidenceError: If a named file is no evidence, is damaged, of another format version or
            of a run that was broken off; or if nothing was found.
        OSError: If a named file cannot be read.
    """
    evidence = Evidence([], [], [])
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
            if isinstance(read, Latency):
                evidence.latencies.append(read)
            else:
                evidence.parities.append(read)
    if not (evidence.latencies or evidence.parities):
        raise EvidenceError(
            f"{', '.join(map(str, paths))}: no evidence of latency or parity was found"
            f"{''.join(f'; {note}' for note in evidence.notes)}; "
            "make some with python -m bench.latency --json or python -m bench.parity"
        )
    return evidence


def _files_of(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix in (".json", ".jsonl") and p.is_file())


def _read(path: Path) -> Latency | Parity:
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise EvidenceError(f"{path} is not UTF-8 text: give a file of the bench") from error
    if path.suffix == ".jsonl":
        return _parity(path, text)
    record = _object(path, text, "as JSON")
    _check_kind(path, record, "latency")
    _check_shape(path, record, LatencyRecord)
    latency = cast(LatencyRecord, record)
    for case in latency["cases"]:
        if not re.fullmatch(r"\d+x\d+", case["size"]):
            raise EvidenceError(
                f"{path} is damaged: it has the size {case['size']!r}, not HEIGHTxWIDTH; "
                "measure again"
            )
        for name, run in case["runs"].items():
            # Figures without the samples they are of are no evidence.
            seconds = [second for samples in run["seconds"] for second in samples]
            if not seconds or min(seconds) <= 0 or run["milliseconds"]["p50"] <= 0:
                raise EvidenceError(
                    f"{path} is damaged: its run {name!r} at {case['size']} has no samples, or "
                    "some that took no time; measure again"
                )
    return Latency(path, latency)


def _parity(path: Path, text: str) -> Parity:
    first, _, rest = text.strip().partition("\n")
    header = _object(path, first, "line 1")
    _check_kind(path, header, "parity")
    _check_shape(path, header, ParityHeader)
    last = rest.rpartition("\n")[2]
    try:
        closing = json.loads(last)
    except ValueError:
        closing = None  # a run that was stopped while it wrote a line
    if not (isinstance(closing, dict) and "summary" in closing):
        raise EvidenceError(
            f"{path} has no summary line, so its run was broken off: "
            "finish it with the bench.parity command in its first line"
        )
    for number, line in enumerate(rest.splitlines()[:-1], 2):
        _object(path, line, f"line {number}")
    _check_shape(path, closing["summary"], Summary)
    parity = cast(ParityHeader, header)
    summary = cast(Summary, closing["summary"])
    for artefact in parity["configuration"]["artefacts"]:
        if artefact["name"] not in summary["artefacts"]:
            raise EvidenceError(
                f"{path}: its summary says nothing of {artefact['name']}, which its first line "
                "names: measure again with python -m bench.parity"
            )
    return Parity(path, parity["configuration"], parity["environment"], summary)


def _object(path: Path, text: str, what: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        found = json.loads(text, parse_constant=refuse)
    except ValueError as error:
        raise EvidenceError(
            f"{path} is damaged ({what}: {error}): measure again, or give another file"
        ) from error
    if not isinstance(found, dict):
        raise EvidenceError(
            f"{path} is no evidence: expected a JSON object, found {type(found).__name__}; "
            "give a file of bench.latency or bench.parity"
        )
    return found


def _check_kind(path: Path, record: dict[str, Any], kind: str) -> None:
    if record.get("kind") != kind:
        found = f"kind {record['kind']!r}" if "kind" in record else "no kind"
        raise EvidenceError(
            f"{path} is no evidence of {kind}: found {found}, expected {kind!r}; "
            f"give a file of bench.{kind}"
        )
    if record.get("format_version") != FORMAT_VERSION:
        raise EvidenceError(
            f"{path} has format version {record.get('format_version')}, expected "
            f"{FORMAT_VERSION}: measure again with this version's bench.{kind}"
        )


def _check_shape(path: Path, value: object, expected: Any) -> None:
    if problem := misfit(value, expected, "its"):
        # "its.cases[0]" reads as "its cases[0]".
        raise EvidenceError(
            f"{path} is damaged: {problem.replace('its.', 'its ', 1)}; measure again"
        )
