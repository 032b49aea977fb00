"""Writes the tables of docs/testing.md about make fuzz and make soak from their evidence.

python tools/robustness_table.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.report.readme import with_tables  # noqa: E402
from bench.report.text import Table  # noqa: E402
from fuzz.outcomes import OUTCOMES  # noqa: E402
from runtime.files import written_beside  # noqa: E402

PAGE = ROOT / "docs" / "testing.md"
RESULTS = ROOT / "bench" / "results" / "robustness"


def fuzz_table(record: dict[str, Any]) -> Table:
    """The number of inputs of each target by outcome, from the JSON of make fuzz."""
    table = Table("fuzz", "Mutated inputs")
    counts = dict(record["targets"])
    counts["all"] = {name: sum(one[name] for one in counts.values()) for name in OUTCOMES}
    for target, found in counts.items():
        row = {"run": target, "inputs": str(sum(found.values()))}
        table.rows.append(row | {name: str(found[name]) for name in OUTCOMES})
    table.sources.append(_source(record, "fuzz.json"))
    return table


def soak_table(record: dict[str, Any]) -> Table:
    """The growth of each step, from the JSON of make soak."""
    table = Table("soak", "Repetitions")
    for step in record["steps"]:
        table.rows.append(
            {
                "run": step["name"],
                "times": str(step["count"]),
                "memory, MiB": f"{step['start_mib']:.0f}",
                "growth, MiB": f"{step['growth_mib']:+.1f}",
                "open files": f"{step['descriptors']:+}",
                "threads": f"{step['threads']:+}",
                "other results": str(step["different"]),
            }
        )
    table.sources.append(_source(record, "soak.json"))
    return table


def _source(record: dict[str, Any], name: str) -> str:
    environment = record["environment"]
    machine = f"{environment['processor']}, {environment['processors']} CPUs"
    return f"{name}: {machine}, commit {environment['commit']}"


def page_with_tables(text: str) -> str:
    """The text of the page with the tables of the committed evidence."""
    records = {
        name: json.loads((RESULTS / f"{name}.json").read_text()) for name in ("fuzz", "soak")
    }
    tables = {"fuzz": fuzz_table(records["fuzz"]), "soak": soak_table(records["soak"])}
    return with_tables(text, tables, where=str(PAGE))[0]


if __name__ == "__main__":
    new = page_with_tables(PAGE.read_text())
    with written_beside(PAGE) as beside:
        beside.write_text(new)
