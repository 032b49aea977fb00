"""A complete GPU check over the fakes of tests/fake_machine, at the sizes of --quick."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest

from gpu_check_graphs import write_check_graphs
from paths import ROOT

plan = importlib.import_module("gpu_check_steps")
FAKES = ROOT / "tests" / "fake_machine"


@pytest.fixture
def work(tmp_path, export):
    """A work folder with the graphs of smoke and A; the check creates the other files."""
    work = tmp_path / "work"
    write_check_graphs(export, work / "models")
    return work


def check(work, *arguments):
    """Runs the check; returns (exit code, record, printed text)."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gpu_check.py"), "--quick", "--smoke", "--part", "A",
         "--minutes", "60", "--commit", "x", "--work", str(work),
         "--json", str(work / "gpu.json"), *arguments],
        env={**os.environ, "PYTHONPATH": f"{FAKES}{os.pathsep}{ROOT}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, json.loads((work / "gpu.json").read_text()), done.stdout + done.stderr


def test_a_check_builds_measures_and_compares_results_with_the_goals(work):
    code, record, said = check(work)
    assert code == 0, said
    steps = record["steps"]
    wanted = [s.name for s in plan.planned(plan.QUICK) if s.part in ("smoke", "A")]
    ran = {name for name, entry in steps.items() if entry["part"] != "models"}
    assert ran == {name for name in wanted if not name.startswith("matrix")}
    assert {entry["status"] for entry in steps.values()} == {"done"}
    assert all("WORK/" in steps[name]["command"] for name in ran)
    tiny = steps["pair_smoke_tiny"]["result"]["models"]["smoke_tiny.engine"]
    assert {tiny[way] for way in ("CUDA graph", "no CUDA graph", "two streams")} == {"equal"}
    assert tiny["layers"]["Convolution"] == 32
    name = f"base_{plan.QUICK.sizes[1]}"
    assert steps[f"build_{name}"]["result"]["gate"]["psnr_db"] > 50
    rows = {row["goal"]: row for row in record["summary"]}
    for row in rows.values():
        assert (row["measured"] is None) == (row["status"] == "not measured")
        assert row["goal"] in said
    pairs = rows["fp16 engines: dB to PyTorch on a real pair"]
    assert pairs["measured"] > 50
    assert pairs["status"] == "undecided"  # Part B was not run.
    assert rows[f"{name}: compute ms"]["status"] == "measured"
    assert rows["GPU tests: failures"]["status"] == "not measured"
    environment = record["runs"][0]["environment"]
    assert environment["gpu"]["gpus"][0]["name"] == "NVIDIA H100 80GB HBM3"
    assert record["runs"][0]["probes"]["tensorrt"] == "8.6.0"

    built = (work / f"{name}.engine").stat().st_mtime_ns
    code, again, _ = check(work, "--resume")
    assert code == 0
    assert {name: again["steps"][name] for name in ran} == {name: steps[name] for name in ran}
    assert len(again["runs"]) == 2
    assert (work / f"{name}.engine").stat().st_mtime_ns == built
