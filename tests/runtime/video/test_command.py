"""The command that writes a video: the model that it takes by itself."""

from commands import run_module
from video_clips import write


def test_without_a_model_it_takes_the_shipped_one_and_says_so(tmp_path):
    write(tmp_path / "in.mkv", 4)
    done = run_module("runtime", "in.mkv", "out.mkv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "note: --model was not given: the new frames are of the shipped demo weights" in (
        done.stdout
    )
    assert "out.mkv: 4 -> 8 frames" in done.stdout


def test_a_model_that_is_given_needs_no_note(tmp_path):
    write(tmp_path / "in.mkv", 3)
    done = run_module(
        "runtime", "in.mkv", "out.mkv", "--model", "demo", "--precision", "fp32", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "note:" not in done.stdout
