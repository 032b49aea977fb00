import json

import pytest

from bench.video import main
from moving_clips import write_clip


def test_stages_and_pipeline_are_measured_on_the_same_frames(tmp_path, capsys):
    clip = write_clip(tmp_path / "in.mp4", 5)
    arguments = ["--clip", str(clip), "--size", "48x64", "--frames", "7", "--memory", "3"]
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--json", str(tmp_path / "video.json")])
    assert left.value.code == 0, capsys.readouterr().err
    record = json.loads((tmp_path / "video.json").read_text())
    assert (record["kind"], record["format_version"]) == ("video", 1)
    (one,) = record["clips"]
    assert (one["clip"], one["size"], one["frames"]) == ("in.mp4", "48x64", 14)
    assert {name: len(rounds) for name, rounds in one["seconds"].items()} == {
        "decode": 3, "encode": 3, "pipeline": 3
    }  # fmt: skip
    slower = min(one["frames_per_second"][name] for name in ("decode", "encode"))
    assert one["share"] == pytest.approx(one["frames_per_second"]["pipeline"] / slower)
    for name, seconds in one["seconds"].items():
        busy = sum(one["cpu_seconds"][name]) / sum(seconds)
        assert busy > 0
        assert one["cpus"][name] == pytest.approx(busy)
    assert 0 <= one["idle"] < 1
    assert set(one["flicker"]) == {"yuv420p", "yuv422p", "yuv444p", "yuv420p10le"}
    assert all(levels < 5 for levels in one["flicker"].values())
    assert one["memory"]["3"] is None or one["memory"]["3"] > 20_000_000
    assert "of its slower stage alone" in capsys.readouterr().out


def test_a_missing_clip_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["--clip", str(tmp_path / "no.mp4")])
    assert left.value.code == 1
    assert "no.mp4 does not exist: give a video file" in capsys.readouterr().err
