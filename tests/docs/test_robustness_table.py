"""The tables about make fuzz and make soak are those of the committed evidence, which is good."""

import json

import robustness_table
from fuzz.outcomes import GOOD


def test_the_tables_of_the_page_equal_the_evidence():
    text = robustness_table.PAGE.read_text()
    assert robustness_table.page_with_tables(text) == text


def test_the_committed_runs_are_large_and_have_no_bad_outcome():
    fuzz, soak = (
        json.loads((robustness_table.RESULTS / f"{name}.json").read_text())
        for name in ("fuzz", "soak")
    )
    counts = [found for one in fuzz["targets"].values() for found in one.items()]
    assert sum(number for _, number in counts) >= 20_000
    assert sum(number for outcome, number in counts if outcome not in GOOD) == 0
    assert fuzz["bad"] == {}
    for step in soak["steps"]:
        least = 50 if step["name"] == "videos" else 1000
        assert step["count"] >= least
        assert step["growth_mib"] <= soak["most_mib"]
        assert (step["descriptors"] <= 0, step["threads"] <= 0, step["different"]) == (
            True,
            True,
            0,
        )
