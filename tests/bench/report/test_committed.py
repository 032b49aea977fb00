"""The generated tables of the documentation are those of the committed evidence."""

import re

import pytest

from bench.report.evidence import read_evidence
from bench.report.readme import with_tables
from bench.report.tables import report_tables
from paths import ROOT

RESULTS = ROOT / "bench" / "results"
PAGES = {
    "README.md": ["quality-summary", "speed-summary"],
    "docs/benchmarks.md": ["parity", "latency", "roofline"],
    "docs/cpu.md": ["alternatives-walk", "alternatives-juggle"],
}


@pytest.fixture(scope="module")
def evidence():
    return read_evidence([RESULTS, RESULTS / "alternatives"])


def test_all_committed_evidence_can_be_read(evidence):
    assert evidence.notes == []
    assert evidence.latencies
    assert evidence.parities
    assert evidence.alternatives


@pytest.mark.parametrize("name", PAGES)
def test_the_tables_of_a_page_equal_the_evidence(evidence, name):
    text = (ROOT / name).read_text()
    assert set(PAGES[name]) <= set(re.findall("<!-- report:(.*?) -->", text))
    assert with_tables(text, report_tables(evidence), where=name) == (text, [])


def test_the_summaries_are_short_and_without_notes(evidence):
    tables = report_tables(evidence)
    for name in ("quality-summary", "speed-summary"):
        assert 2 <= len(tables[name].rows) <= 8
        assert not tables[name].notes
        assert not tables[name].sources
    assert "this package, bfloat16" in [row["method"] for row in tables["speed-summary"].rows]


def test_make_report_writes_these_pages():
    target = re.search(r"^report:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
    assert "bench/results bench/results/alternatives" in target
    assert all(name in target for name in PAGES)
