"""Two runs with the same destination, in two processes: one writes, the other is refused."""

import errno
import os
import signal
import subprocess
import sys
import threading
from fractions import Fraction

import pytest

from commands import run_main
from paths import ROOT
from runtime import VideoError, files, interpolate_video
from runtime.__main__ import main
from runtime.files import is_locked, lock_file, lock_folder
from runtime.video.reading.source import open_source
from runtime.video.writing.sink import open_sink
from video_clips import RATE, frames_of, pictures, write

posix = pytest.mark.skipif(not files.HAS_FLOCK, reason="flock is of POSIX")

HOLDER = """
import sys
from fractions import Fraction
from runtime.video.writing.sink import open_sink
from runtime.video.reading.source import open_source
from video_clips import pictures
with (
    open_source(sys.argv[1]) as source,
    open_sink(sys.argv[2], like=source.info, rate=source.info.rate) as sink,
):
    for k, frame in enumerate(pictures(24)):
        sink.write(frame, Fraction(k, 25))
        if k == 11:
            print("holds it", flush=True)
            sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Starts a run that writes 12 frames and waits for a line before it writes 12 more."""
    started = []
    source = write(tmp_path / "in.mkv", 3)

    def start(output):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "support"))),
        }
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(source), str(tmp_path / output)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "holds it\n", process.stderr.read()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def count(output):
    return len(list(output.iterdir())) if output.is_dir() else len(frames_of(output))


def seen(folder):
    """(inode, content) of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_ino, path.read_bytes()) for path in files}


OUTPUTS = ["out.mp4", "out.mkv", "out.webm", "out"]


@posix
@pytest.mark.parametrize("name", OUTPUTS)
def test_the_second_run_is_refused_and_changes_no_file(tmp_path, models, holder, name):
    first = holder(name)
    before = seen(tmp_path)
    second = run_main("runtime", "in.mkv", name, "--model", models / "dynamic.onnx", cwd=tmp_path)
    partial = "out.partial" + name[3:]
    assert second.returncode == 1
    assert second.stderr == (
        f"python -m runtime: error: {partial} is being written by another run: wait for it, or "
        f"write to another {'file' if '.' in name else 'folder'}\n"
    )
    assert seen(tmp_path) == before
    _, errors = first.communicate("go on\n", timeout=60)
    assert (first.returncode, errors) == (0, "")
    assert count(tmp_path / name) == 24
    assert not (tmp_path / partial).exists()


@posix
@pytest.mark.parametrize("name", OUTPUTS)
def test_files_of_a_killed_run_are_replaced(tmp_path, models, holder, name):
    first = holder(name)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    partial = tmp_path / ("out.partial" + name[3:])
    assert partial.exists()
    if partial.is_dir():
        (partial / "more").mkdir()
        (partial / "more" / "999999.png").touch()
    again = run_main("runtime", "in.mkv", name, "--model", models / "dynamic.onnx", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert count(tmp_path / name) == 6
    assert not partial.exists()


@posix
def test_the_partial_file_of_a_run_cannot_be_the_output_of_another(tmp_path, models, holder):
    first = holder("out.mp4")
    second = run_main(
        "runtime", "in.mkv", "out.partial.mp4", "--model", models / "dynamic.onnx", cwd=tmp_path
    )
    assert second.returncode == 1
    assert "out.partial.mp4 is being written by another run" in second.stderr
    first.communicate("go on\n", timeout=60)
    assert first.returncode == 0
    assert count(tmp_path / "out.mp4") == 24


@posix
def test_the_second_run_is_refused_before_the_model_is_opened(tmp_path, holder):
    holder("out.mp4")
    with pytest.raises(VideoError, match="is being written by another run"):
        interpolate_video(tmp_path / "in.mkv", tmp_path / "out.mp4", model=tmp_path / "none.onnx")


@posix
def test_the_message_after_ctrl_c_names_no_file_of_another_run(
    tmp_path, holder, monkeypatch, capsys
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    holder("out.mp4")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("runtime.video.interpolate.interpolate_video", interrupted)
    with pytest.raises(SystemExit):
        main(["in.mkv", "out.mp4", "--model", "m"])
    assert "the partial output" not in capsys.readouterr().err


@posix
@pytest.mark.parametrize("name", OUTPUTS)
def test_threads_of_one_process_exclude_each_other(tmp_path, name):
    refused = []

    def second():
        try:
            with open_sink(tmp_path / name, like=source.info, rate=RATE):
                pass
        except VideoError as error:
            refused.append(str(error))

    with open_source(write(tmp_path / "in.mkv", 3)) as source:
        with open_sink(tmp_path / name, like=source.info, rate=RATE) as sink:
            for k, frame in enumerate(pictures(8)):
                sink.write(frame, Fraction(k, 25))
                if k == 4:
                    thread = threading.Thread(target=second)
                    thread.start()
                    thread.join()
        assert len(refused) == 1
        assert "is being written by another run" in refused[0]
        assert count(tmp_path / name) == 8
        # No lock is left, neither after success nor after an error.
        with pytest.raises(VideoError, match="broken"):
            fails(tmp_path / ("a" + name), source.info)
        with open_sink(tmp_path / ("a" + name), like=source.info, rate=RATE) as sink:
            sink.write(next(pictures(1)), Fraction(0))
    assert count(tmp_path / ("a" + name)) == 1


def fails(path, like):
    with open_sink(path, like=like, rate=RATE) as sink:
        sink.write(next(pictures(1)), Fraction(0))
        raise VideoError("broken")


@posix
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_partial_file_that_another_program_replaced_is_recognised(tmp_path, name):
    partial = tmp_path / ("out.partial" + name[3:])

    def run():
        with (
            open_source(write(tmp_path / "in.mkv", 3)) as source,
            open_sink(tmp_path / name, like=source.info, rate=RATE) as sink,
        ):
            for k, frame in enumerate(pictures(3)):
                sink.write(frame, Fraction(k, 25))
            partial.rename(tmp_path / "moved")
            partial.write_bytes(b"of another program")

    with pytest.raises(VideoError, match=r"out\.partial.* was removed or replaced while"):
        run()
    assert partial.read_bytes() == b"of another program"
    assert not (tmp_path / name).exists()


@posix
def test_a_link_under_the_partial_name_is_not_followed(tmp_path):
    (tmp_path / "kept").write_bytes(b"kept")
    (tmp_path / "out.partial.mp4").symlink_to("kept")
    with (
        open_source(write(tmp_path / "in.mkv", 3)) as source,
        pytest.raises(VideoError, match=r"out\.partial\.mp4 is a symbolic link"),
        open_sink(tmp_path / "out.mp4", like=source.info, rate=RATE),
    ):
        pass
    assert (tmp_path / "kept").read_bytes() == b"kept"


@posix
@pytest.mark.parametrize("lock", [lock_file, lock_folder])
def test_a_file_that_is_renamed_before_it_is_locked_is_locked_again(tmp_path, monkeypatch, lock):
    place, real = tmp_path / "out", files.flock

    def late(descriptor, how):
        monkeypatch.setattr(files, "flock", real)
        place.rename(tmp_path / "final")
        real(descriptor, how)

    monkeypatch.setattr(files, "flock", late)
    held = lock(place)
    assert held.is_current()
    assert (tmp_path / "final").exists()
    assert is_locked(place)
    assert not is_locked(tmp_path / "final")
    held.release()
    held.release()
    assert not is_locked(place)


@posix
def test_a_file_that_is_replaced_again_and_again_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "flock", lambda *_: (tmp_path / "out").unlink())
    with pytest.raises(OSError, match="keeps replacing it"):
        lock_file(tmp_path / "out")


@posix
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP])
@pytest.mark.parametrize("name", ["out.mp4", "out"])
def test_without_support_for_locks_files_are_written_with_a_note(tmp_path, monkeypatch, name, code):
    def unsupported(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "flock", unsupported)
    with (
        open_source(write(tmp_path / "in.mkv", 3)) as source,
        open_sink(tmp_path / name, like=source.info, rate=RATE) as sink,
    ):
        sink.write(next(pictures(1)), Fraction(0))
    partial = "out.partial" + name[3:]
    assert sink.notes == [
        f"{tmp_path / partial} is not locked ({os.strerror(code)}): do not write to it from two "
        "runs at the same time"
    ]
    assert count(tmp_path / name) == 1


@pytest.mark.parametrize("name", ["out.mp4", "out"])
def test_without_flock_an_old_partial_file_must_be_removed_by_hand(tmp_path, monkeypatch, name):
    monkeypatch.setattr(files, "HAS_FLOCK", False)
    monkeypatch.setattr("runtime.video.writing.destination.HAS_FLOCK", False)
    partial = tmp_path / ("out.partial" + name[3:])
    with open_source(write(tmp_path / "in.mkv", 3)) as source:
        with pytest.raises(VideoError, match="broken"):
            fails(tmp_path / name, source.info)
        left = seen(tmp_path)
        with pytest.raises(VideoError, match=rf"{partial.name} exists, .*, or remove it"):
            fails(tmp_path / name, source.info)
        assert seen(tmp_path) == left
        partial.rename(tmp_path / "moved")
        with open_sink(tmp_path / name, like=source.info, rate=RATE) as sink:
            sink.write(next(pictures(1)), Fraction(0))
    assert count(tmp_path / name) == 1
