"""The command that writes a video: its default model, and options that are parsed."""

from fractions import Fraction

import pytest

from commands import run_module
from runtime.__main__ import make_parser
from runtime.video.arguments import options_from
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


@pytest.mark.parametrize(
    ("text", "value"), [("none", None), ("auto", "auto"), ("2.5", Fraction(5, 2)), ("1:00", 60)]
)
def test_the_longest_gap_is_auto_none_or_a_time(text, value):
    args = make_parser().parse_args(["in.mkv", "out.mkv", "--longest-gap", text])
    assert options_from(args).longest_gap == value
