"""The command that writes a video: its default model."""

from commands import run_module
from video_clips import write


def test_without_a_model_the_command_uses_the_shipped_one_and_notes_it(tmp_path):
    write(tmp_path / "in.mkv", 4)
    done = run_module("runtime", "in.mkv", "out.mkv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "note: --model was not given: the shipped demo model is used" in (done.stdout)
    assert "out.mkv: 4 -> 8 frames" in done.stdout


def test_a_given_model_gives_no_note(tmp_path):
    write(tmp_path / "in.mkv", 3)
    done = run_module(
        "runtime", "in.mkv", "out.mkv", "--model", "demo", "--precision", "fp32", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "note:" not in done.stdout
