"""The command that writes a video: its default model, and options that are parsed."""

from fractions import Fraction

import av
import pytest

from commands import run_main
from runtime.__main__ import make_parser
from runtime.video.arguments import options_from
from video_clips import pictures, write


def test_without_a_model_the_command_uses_the_shipped_one_and_notes_it(tmp_path):
    write(tmp_path / "in.mkv", 4)
    done = run_main("runtime", "in.mkv", "out.mkv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "note: --model was not given: the shipped demo model is used" in (done.stdout)
    assert "out.mkv: 4 -> 8 frames" in done.stdout


def test_a_given_model_gives_no_note(tmp_path):
    write(tmp_path / "in.mkv", 3)
    done = run_main(
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


def test_dedupe_only_replaces_repeated_frames_and_keeps_the_rate(tmp_path):
    pairs = [frame for frame in pictures(3) for _ in range(2)]
    with av.open(str(tmp_path / "in.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number, frame in enumerate(pairs):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    done = run_main("runtime", "in.mkv", "out.mkv", "--dedupe-only", "--cuts", "none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "out.mkv: 6 -> 6 frames at 25.000 frames/s" in done.stdout
    assert "repeated frames in the input: 3" in done.stdout


@pytest.mark.parametrize("other", [("--factor", "2"), ("--rate", "60")])
def test_dedupe_only_and_another_rate_are_refused(other, capsys):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["in.mkv", "out.mkv", "--dedupe-only", *other])
    assert "not allowed with argument" in capsys.readouterr().err


def test_detelecine_is_deinterlace_film():
    args = make_parser().parse_args(["in.mkv", "out.mkv", "--detelecine"])
    assert options_from(args).deinterlace == "film"
