"""bench.parity --workers: the same lines and the same table as on one machine."""

import pytest

from bench.quality import cluster
from parity_runs import ucf101_arguments
from paths import WALK

pytest.importorskip("ray")


def without_times(lines):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines[1:-1]]


def table_of(printed):
    return [line for line in printed.splitlines() if "dB" in line or "|" in line]


def test_workers_give_the_same_table(models, ucf101, run, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_SAMPLES", 1)
    # The workers have the real frame size of UCF101.
    asked = (*ucf101_arguments(models, ucf101, "float", "frames"), "--allow-mismatch")
    one, said = run(*asked, "--threads", 1, output=tmp_path / "one.jsonl")
    many, said_by_many = run(
        *asked, "--workers", 2, "--cpus-per-worker", 1, output=tmp_path / "many.jsonl"
    )
    assert without_times(many) == without_times(one)
    assert len(without_times(many)) == 3
    assert table_of(said_by_many) == table_of(said) != []


def test_a_worker_that_fails_ends_the_run(models, ucf101, run, tmp_path):
    _, said = run(
        "--model", models / "frames.onnx", "--weights", "demo", "--dataset", "folder",
        "--root", WALK, "--workers", 1, code=1,
    )  # fmt: skip
    assert "--workers was given with a video" in said
