"""tools/fuzz: its outcomes, its watchdog, and a short run of every target."""

import json
import os
from random import Random

import pytest

import fuzz_samples
from commands import need_torch
from fuzz.__main__ import cases_of
from fuzz.engine import PreparationError, run_cases, run_one
from fuzz.mutate import mutated, mutated_json
from fuzz.outcomes import GOOD, OUTCOMES
from fuzz.targets import all_targets
from ifrnet_model.weights import table

need_torch()
CASES = {"compiled model in the cache": 1, "evidence, page": 1, "video, interpolated": 6}
"""Targets whose inputs take long -> number of inputs in the short run; 25 for the others."""


@pytest.mark.skipif(os.name != "posix", reason="measures memory with getrusage")
def test_each_outcome_is_recognised_and_the_run_goes_on():
    cases = [(name, number) for name in fuzz_samples.RUNS for number in range(2)]
    results = list(run_cases(iter(cases), 0, workers=2, find=fuzz_samples.find, hang_s=12.0))
    assert sorted(result.case for result in results) == sorted(cases)
    for result in results:
        name = result.case[0]
        assert result.outcome == ("traceback" if name == "long" else name), result
    details = {result.case: result.detail for result in results}
    assert details["crash", 1] == "exit code 7"
    assert details["traceback", 1] == "KeyError: \"'name'\" at fuzz_samples.py:27"
    assert details["refused", 1] == "it is damaged: make it again"


def test_a_target_that_cannot_be_prepared_ends_the_run():
    find = fuzz_samples.find_broken
    with pytest.raises(PreparationError, match="broken cannot be prepared: OSError"):
        list(run_cases(iter([("broken", 0)]), 0, workers=1, find=find))


def test_cases_are_the_same_for_a_seed_and_follow_the_weights():
    targets = all_targets()
    first, again, other = (
        list(cases_of(targets, 500, seed, first=0, until=None)) for seed in (1, 1, 2)
    )
    assert first == again != other
    counts = {t.name: sum(name == t.name for name, _ in first) for t in targets}
    assert counts["video, read"] > counts["metadata"] > 0
    assert sorted(number for name, number in first if name == "manifest") == list(
        range(counts["manifest"])
    )


def test_mutations_change_something_and_repeat():
    content, value = bytes(range(256)) * 20, {"a": [1, {"b": "c"}], "d": None}
    changed = [mutated(Random(seed), content) for seed in range(200)]
    assert changed == [mutated(Random(seed), content) for seed in range(200)]
    assert sum(one != content for one in changed) > 190
    texts = [mutated_json(Random(seed), value) for seed in range(200)]
    assert sum(text != json.dumps(value).encode() for text in texts) > 190
    assert value == {"a": [1, {"b": "c"}], "d": None}


@pytest.mark.parametrize("target", all_targets(), ids=lambda target: target.name)
def test_a_short_run_of_every_target_has_good_outcomes(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = table.CHECKPOINTS
    prepared = target.prepare(tmp_path)
    found = [
        run_one(target, prepared, number, seed=1000) for number in range(CASES.get(target.name, 25))
    ]
    assert [(n, one) for n, one in enumerate(found) if one[0] not in GOOD] == []
    assert {outcome for outcome, *_ in found} <= OUTCOMES.keys()
    assert table.CHECKPOINTS is known  # Tests that follow need it.
