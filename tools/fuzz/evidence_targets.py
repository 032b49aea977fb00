"""Evidence files of bench, and the report that is made of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import NamedTuple

from bench.environment import MeasurementError
from bench.report.evidence import read_evidence
from bench.report.page import page
from bench.report.tables import report_tables
from fuzz.mutate import mutated, mutated_json
from fuzz.outcomes import Target, WrongResultError

_RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"


class _Evidence(NamedTuple):
    folder: Path
    contents: dict[Path, bytes]


def _prepare(folder: Path) -> _Evidence:
    """A folder with one good file, beside which mutated ones are put."""
    shutil.copy(_RESULTS / "latency_base.json", folder / "good.json")
    kinds = ("latency_small_openvino.json", "parity_middlebury.jsonl")
    files = [_RESULTS / name for name in kinds]
    files += sorted((_RESULTS / "alternatives").glob("*.json"))[:1]
    return _Evidence(folder, {file: file.read_bytes() for file in files})


def _put(made: _Evidence, rng: Random) -> None:
    source = rng.choice(sorted(made.contents))
    content = made.contents[source]
    if rng.random() < 0.2:
        content = mutated(rng, content)
    elif source.suffix == ".jsonl":
        lines = content.splitlines()
        at = rng.choice((0, -1, rng.randrange(len(lines))))
        lines[at] = mutated_json(rng, json.loads(lines[at]))
        content = b"\n".join(lines)
    else:
        content = mutated_json(rng, json.loads(content))
    for file in made.folder.glob("bad*"):
        file.unlink()
    (made.folder / f"bad{source.suffix}").write_bytes(content)


def _tables(made: _Evidence, rng: Random) -> None:
    """A bad file in a folder is left out with a note; the report of the good one is made."""
    _put(made, rng)
    try:
        tables = report_tables(read_evidence([made.folder]))
    except MeasurementError as error:
        raise WrongResultError(f"a bad file ends the report: {error}") from error
    if not tables:
        raise WrongResultError("the report has no table")


def _page(made: _Evidence, rng: Random) -> None:
    _put(made, rng)
    evidence = read_evidence([made.folder])
    page(evidence, report_tables(evidence))


TARGETS = (
    Target("evidence, tables", _prepare, _tables, weight=2),
    Target("evidence, page", _prepare, _page, weight=0.02),
)
