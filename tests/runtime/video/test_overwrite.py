"""An output that exists is neither replaced by accident nor lost by an error."""

import io
import os
import subprocess
import sys

import pytest

from blend import Blend
from runtime import Interpolator, VideoError, VideoOptions, interpolate_video, plan_video
from runtime.__main__ import main
from runtime.video.arguments import ask_to_overwrite
from video_clips import frames_of, write

OVERWRITE = VideoOptions(overwrite=True)


@pytest.fixture
def mean():
    return Interpolator(Blend())


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "in.mkv", 3, codec="ffv1")


def seen(folder):
    """The content of every file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(source, destination, options=None):
    """The message with which both functions refuse, before a model is opened."""
    with pytest.raises(VideoError) as planned:
        plan_video(source, destination, options=options)
    with pytest.raises(VideoError) as written:
        interpolate_video(source, destination, model="none.onnx", options=options)
    assert str(planned.value) == str(written.value)
    return str(written.value)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_file_is_replaced_only_with_overwrite(tmp_path, source, mean, name):
    out = tmp_path / name
    out.write_bytes(b"an older result")
    before = seen(tmp_path)
    expected = f"{out} exists: write to another file, or replace it with --overwrite"
    assert refused(source, out) == expected
    assert seen(tmp_path) == before
    assert plan_video(source, out, options=OVERWRITE).frames == 6
    assert seen(tmp_path) == before
    interpolate_video(source, out, model=mean, options=OVERWRITE)
    assert len(frames_of(out)) == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", name]


def test_a_link_that_leads_nowhere_is_not_replaced(tmp_path, source):
    (tmp_path / "out.mp4").symlink_to("disconnected")
    assert "out.mp4 exists: write to another file" in refused(source, tmp_path / "out.mp4")


def test_the_input_is_never_replaced(tmp_path, source, mean):
    before = source.read_bytes()
    assert "is the input itself" in refused(source, source, OVERWRITE)
    (tmp_path / "link.mkv").symlink_to("in.mkv")
    assert "is the input itself" in refused(source, tmp_path / "link.mkv", OVERWRITE)
    assert source.read_bytes() == before
    frames = tmp_path / "frames"
    interpolate_video(source, frames, model=mean)
    before = seen(frames)
    for given in (frames, frames / "%06d.png"):
        for destination in (frames, frames / "%06d.png"):
            assert "is the input itself" in refused(given, destination, OVERWRITE)
    assert seen(frames) == before


@pytest.mark.parametrize("name", ["out", "out/%06d.png"])
def test_a_folder_of_images_is_replaced_only_with_overwrite(tmp_path, source, mean, name):
    out = tmp_path / "out"
    interpolate_video(source, tmp_path / name, model=mean, factor=4)
    before = seen(out)
    assert len(before) == 12
    assert refused(source, tmp_path / name) == (
        f"{out} is not empty: give a folder that is new or empty, or replace its images with "
        "--overwrite"
    )
    assert seen(out) == before
    interpolate_video(source, tmp_path / name, model=mean, options=OVERWRITE)
    assert sorted(p.name for p in out.iterdir()) == [f"{k:06}.png" for k in range(1, 7)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", "out"]


@pytest.mark.parametrize("other", ["notes.txt", "1.png", "0000001x.png", "000002.png/", ".hidden"])
def test_a_folder_with_other_files_is_not_replaced(tmp_path, source, other):
    out = tmp_path / "out"
    out.mkdir()
    (out / "000001.png").write_bytes(b"kept")
    if other.endswith("/"):
        (out / other).mkdir()
    else:
        (out / other).write_bytes(b"kept")
    name = other.removesuffix("/")
    assert refused(source, out) == f"{out} is not empty: give a folder that is new or empty"
    assert refused(source, out, OVERWRITE) == (
        f"{out} cannot be replaced, because it has {name}, which is no image of this output: give "
        "a folder that is new or empty"
    )
    assert (out / "000001.png").read_bytes() == b"kept"


@pytest.mark.parametrize("make", [lambda p: p.write_bytes(b"kept"), lambda p: p.symlink_to("in")])
def test_a_file_or_a_link_is_no_folder_for_images(tmp_path, source, make):
    (tmp_path / "in").mkdir()
    make(tmp_path / "out")
    for options in (None, OVERWRITE):
        message = refused(source, tmp_path / "out", options)
        assert message.startswith((f"{tmp_path}/out is a file: ", f"{tmp_path}/out is a symbolic"))


def test_a_file_that_is_added_to_the_folder_during_the_run_is_kept(tmp_path, source, mean):
    out = tmp_path / "out"
    interpolate_video(source, out, model=mean)
    before = seen(out)

    def add(done, _):
        (out / "notes.txt").write_bytes(b"new")

    with pytest.raises(VideoError, match=r"it has notes\.txt, .*; the partial output is"):
        interpolate_video(source, out, model=mean, options=OVERWRITE, progress=add)
    assert seen(out) == {**before, out / "notes.txt": b"new"}


@pytest.mark.parametrize("name", ["out.mp4", "out"])
def test_after_an_error_the_old_output_is_unchanged(tmp_path, source, mean, name):
    out = tmp_path / name
    interpolate_video(source, out, model=mean)
    before = out.read_bytes() if out.is_file() else seen(out)

    def stop(done, _):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interpolate_video(source, out, model=mean, options=OVERWRITE, progress=stop)
    assert (out.read_bytes() if out.is_file() else seen(out)) == before


@pytest.mark.parametrize("name", [".", "..", "/", "./%06d.png"])
def test_the_current_folder_and_those_above_it_are_not_replaced(
    tmp_path, source, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    for options in (None, OVERWRITE):
        assert "is or contains the current folder: give a folder" in refused(source, name, options)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def command(tmp_path, source, monkeypatch, capsys):
    """Runs `python -m runtime` in this process and in the folder of the source."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Interpolator, "open", lambda *_, **__: Interpolator(Blend()))

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        return left.value.code, capsys.readouterr().err

    return run


def test_the_command_names_the_option(tmp_path, command):
    (tmp_path / "out.mp4").write_bytes(b"an older result")
    for arguments in ((), ("--dry-run",)):
        code, errors = command("in.mkv", "out.mp4", *arguments)
        assert code == 1
        assert "out.mp4 exists: write to another file, or replace it with --overwrite" in errors
        assert (tmp_path / "out.mp4").read_bytes() == b"an older result"
    for option in ("-y", "--overwrite"):
        (tmp_path / "out.mp4").write_bytes(b"an older result")
        assert command("in.mkv", "out.mp4", option)[0] == 0
        assert len(frames_of(tmp_path / "out.mp4")) == 6


@pytest.mark.parametrize("answer", ["y", "Yes", "n", "", "no"])
def test_on_a_terminal_the_command_asks(tmp_path, command, monkeypatch, answer):
    out, screen = tmp_path / "out.mkv", Terminal()
    out.write_bytes(b"an older result")
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    monkeypatch.setattr("sys.stderr", screen)
    code, _ = command("in.mkv", "out.mkv")
    assert screen.getvalue().startswith("out.mkv exists, overwrite? [y/N] ")
    if answer.lower().startswith("y"):
        assert code == 0
        assert len(frames_of(out)) == 6
    else:
        assert code == 1
        assert "replace it with --overwrite" in screen.getvalue()
        assert out.read_bytes() == b"an older result"


@pytest.mark.parametrize(
    "arguments",
    [
        ("in.mkv", "out.mkv", "--overwrite"),
        ("in.mkv", "new.mkv"),
        ("in.mkv", "out.mkv", "--dry-run"),
        ("in.mkv", "in.mkv"),
        ("missing.mkv", "out.txt"),
    ],
)
def test_the_command_does_not_ask_without_need(tmp_path, command, monkeypatch, arguments):
    (tmp_path / "out.mkv").write_bytes(b"an older result")
    screen = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    monkeypatch.setattr("sys.stderr", screen)
    command(*arguments)
    assert "overwrite?" not in screen.getvalue()


def test_no_answer_is_read_from_a_video_on_stdin(tmp_path, monkeypatch):
    out, options = tmp_path / "out.mkv", VideoOptions()
    out.write_bytes(b"an older result")
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    monkeypatch.setattr("sys.stderr", Terminal())
    assert ask_to_overwrite("-", str(out), options) == options
    assert ask_to_overwrite("in.mkv", "-", options) == options
    assert ask_to_overwrite("in.mkv", str(out), options) == OVERWRITE


def test_the_question_on_a_real_terminal(tmp_path, source):
    """In a process of its own, whose standard input and error are a pseudo-terminal."""
    pty = pytest.importorskip("pty")
    out = tmp_path / "out.mkv"
    out.write_bytes(b"an older result")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime", "in.mkv", "out.mkv"],
        stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while not shown.endswith(b"[y/N] "):
        shown += os.read(ours, 1024)
    os.write(ours, b"n\n")
    assert process.wait(timeout=60) == 1
    process.communicate()
    os.close(ours)
    assert shown.endswith(b"out.mkv exists, overwrite? [y/N] ")
    assert out.read_bytes() == b"an older result"
