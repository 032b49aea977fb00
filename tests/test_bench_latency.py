import json

import numpy as np
import pytest
from conftest import ROOT, run_module

from bench.latency import measure_in_turns, ratios, summary
from bench.reference import authors_forward, warp_linspace


def test_every_run_is_counted_as_often_and_warmed_up():
    calls = {"a": 0, "b": 0}

    def count(name):
        calls[name] += 1

    measured = measure_in_turns({name: lambda name=name: count(name) for name in calls}, samples=7)
    # Seven samples are three turns of three; each turn and two rounds before are warm-up.
    assert {name: len(seconds) for name, seconds in measured.items()} == {"a": 9, "b": 9}
    assert calls == {"a": 20, "b": 20}
    assert all(s >= 0 for seconds in measured.values() for s in seconds)


def test_summary_by_hand():
    figures = summary([k / 1000 for k in range(1, 102)])
    assert figures["p50"] == pytest.approx(51)
    assert figures["p90"] == pytest.approx(91)
    assert figures["iqr"] == pytest.approx(50)
    assert figures["mean"] == pytest.approx(51)


def test_ratios_are_taken_round_by_round():
    # A machine that halves its speed in the middle leaves the ratio as it is.
    fast = [1.0, 1.0, 2.0, 2.0]
    slow = [3.0, 3.0, 6.0, 6.0]
    assert ratios(slow, fast) == {"p50": 3.0, "p25": 3.0, "p75": 3.0}


@pytest.mark.parametrize("how", [["-m", "bench.latency"], [str(ROOT / "bench" / "latency.py")]])
def test_the_command_writes_its_evidence(models, tmp_path, how):
    import subprocess
    import sys

    evidence = tmp_path / "latency.json"
    done = subprocess.run(
        [sys.executable, *how, "--model", str(models / "frames.onnx"), "--size", "50x70",
         "--weights", "demo", "--compare", "torch", "authors", "--samples", "4", "--threads", "1",
         "--json", str(evidence)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "x as fast as PyTorch eager (authors)" in done.stdout
    record = json.loads(evidence.read_text())
    assert set(map(len, record["seconds"].values())) == {6}
    assert len(record["ratios"]) == 2
    assert record["environment"]["versions"]["torch"]
    assert record["environment"]["processor"]
    assert len(record["artefacts"]["frames.onnx on onnxruntime cpu"]["sha256"]) == 64
    for name, seconds in record["seconds"].items():
        assert record["milliseconds"][name]["p50"] == pytest.approx(1e3 * np.median(seconds))


def test_comparing_without_weights_is_an_error(models):
    done = run_module(
        "bench.latency", "--model", models / "frames.onnx", "--size", "50x70", "--compare", "torch"
    )
    assert done.returncode == 1
    assert "--compare needs --weights" in done.stderr


def test_the_baseline_is_not_our_module():
    """The oracle must not share code with what it checks."""
    for function in (authors_forward, warp_linspace):
        names = function.__code__.co_names
        assert not {"warp", "IFRNet", "ResBlock", "Decoder"} & set(names)
