"""What bench.cluster_forecast calculates; what bench.cluster measures is run by hand."""

import json

import pytest

from bench.cluster_forecast import Archive, Costs, forecast
from bench.environment import MeasurementError
from commands import run_module

COSTS = Costs(scan=0.001, look=0.01, render=1.0, join=0.002)


def test_one_worker_does_everything_one_after_the_other():
    found = forecast(COSTS, Archive(videos=3, frames=240, segment_frames=60), workers=1)
    assert found.seconds == pytest.approx(3 * 240 * (0.001 + 0.01 + 1.0 + 0.002))
    assert found.efficiency == pytest.approx(1.0)
    assert found.lost_seconds == pytest.approx(30)


def test_segments_are_rendered_side_by_side_and_the_rest_is_not():
    found = forecast(COSTS, Archive(videos=1, frames=240, segment_frames=60), workers=4)
    assert found.seconds == pytest.approx(0.24 + 0.6 + 60 + 0.48)


def test_more_workers_than_segments_gain_nothing():
    archive = Archive(videos=1, frames=240, segment_frames=60)
    few, many = (forecast(COSTS, archive, workers) for workers in (4, 64))
    assert few.seconds == pytest.approx(many.seconds)
    assert many.efficiency < few.efficiency / 10


def test_many_videos_keep_many_workers_busy():
    found = forecast(COSTS, Archive(videos=64, frames=240, segment_frames=60), workers=16)
    assert found.efficiency > 0.97


def test_costs_come_from_the_evidence_and_grow_with_the_pixels():
    record = {"steps": {"scan": 1.0, "look": 2.0, "render": 100.0, "join": 4.0}, "frames_in": 100}
    assert Costs.measured(record, pixels=4.0) == Costs(0.01, 0.08, 4.0, 0.16)
    with pytest.raises(MeasurementError, match="no evidence of bench"):
        Costs.measured({"steps": {}})


def test_the_command_prints_a_line_for_each_number_of_workers(tmp_path):
    evidence = tmp_path / "cluster.json"
    steps = {"scan": 0.1, "look": 1.0, "render": 100.0, "join": 0.5}
    evidence.write_text(json.dumps({"steps": steps, "frames_in": 100, "size": [256, 448]}))
    done = run_module(
        "bench.cluster_forecast", evidence, "--hours", 4, "--video-hours", 0.5, "--workers", 1, 8
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("8 videos of 0.5 h at 24 frames/s, 256x448, 180 segments each")
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["1", "8"]
