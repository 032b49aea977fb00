import json

import numpy as np
import pytest
from conftest import ROOT, run_module

from bench import latency
from bench.latency import measure_in_turns, ratios, summary
from bench.reference import authors_forward, warp_linspace
from bench.turns import Turns, parts_in_turns
from export.trt_build import Profile


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


@pytest.fixture
def measured(tmp_path, capsys):
    """Runs the command in this process; gives its record and what it printed."""

    def run(*arguments):
        evidence = tmp_path / "evidence.json"
        with pytest.raises(SystemExit) as left:
            latency.main([*map(str, arguments), "--samples", "2", "--json", str(evidence)])
        printed = capsys.readouterr()
        assert left.value.code == 0, printed.err
        return json.loads(evidence.read_text()), printed.out

    return run


@pytest.fixture
def short_turns(monkeypatch):
    for name in ("ON_GPU", "ON_PROCESSOR"):
        monkeypatch.setattr(latency, name, Turns(1, 2, 0.0))
    monkeypatch.setattr(parts_in_turns, "__kwdefaults__", {"turns": Turns(1, 2, 0.0)})


def test_an_engine_is_a_run_for_every_number_of_streams_with_and_without_graph(
    trt10, engine, measured, short_turns
):
    record, printed = measured(
        "--model", engine(), "--size", "50x70", "--streams", "1", "2", "--no-cuda-graph",
        "--stream-frames", "4",
    )  # fmt: skip
    on = "frames.engine on tensorrt 10.3.0 cuda:0"
    runs = {
        f"{on}, {streams}, {graph}"
        for streams in ("1 stream", "2 streams")
        for graph in ("CUDA graph", "no CUDA graph")
    }
    for part in ("artefacts", "seconds", "fps", "parts_of_a_call_milliseconds", "stream"):
        assert record[part].keys() == runs
    for name in runs:
        parts = record["parts_of_a_call_milliseconds"][name]
        assert parts.keys() == {"h2d", "compute", "d2h"}
        assert all(len(part["samples"]) == 2 for part in parts.values())
        assert record["stream"][name]["pairs"] == 3
        assert len(record["artefacts"][name]["sha256"]) == 64
    assert record["threads"] is None
    assert "pairs a second" in printed


def test_an_engine_whose_size_is_free_has_no_graph(trt10, engine, measured, short_turns):
    path = engine("dynamic", profile=Profile((32, 32), (64, 80), (96, 96)))
    record, _ = measured("--model", path, "--size", "50x70", "--no-cuda-graph")
    assert [name.split(", ")[-1] for name in record["artefacts"]] == ["no CUDA graph"]


def test_several_time_steps_take_one_call_or_several(trt10, engine, measured, short_turns):
    models = [engine("three"), engine("frames")]
    record, _ = measured("--model", *models, "--size", "50x70", "--factor", "4")
    calls = {name: figures["frames_per_call"] for name, figures in record["artefacts"].items()}
    assert sorted(calls.values()) == [1, 3]
    for name, seconds in record["seconds"].items():
        assert record["fps"][name] == pytest.approx(3 / np.median(seconds))


@pytest.mark.parametrize("graph", ["frames", "float", "batch"])
def test_the_profile_names_every_layer(trt10, engine, measured, short_turns, graph):
    size = "48x64" if graph == "float" else "50x70"
    path = engine(graph)
    record, printed = measured("--model", path, "--size", size, "--profile")
    layers = record["layers_milliseconds"][path.name]
    assert len(layers) > 100
    assert all(ms == 1.0 for _, ms in layers)  # The fake's layers all take that.
    assert f"{len(layers)} layers, {len(layers)}.000 ms in sum" in printed


def test_what_is_for_engines_is_said_to_be(models, measured, short_turns, capsys):
    model = models / "frames.onnx"
    record, printed = measured("--model", model, "--size", "50x70", "--profile")
    assert record["layers_milliseconds"] == {}
    assert "--profile is for TensorRT engines" in printed
    with pytest.raises(SystemExit, match="1"):
        latency.main(["--model", str(model), "--size", "50x70", "--streams", "2"])
    assert "are for TensorRT engines" in capsys.readouterr().err
