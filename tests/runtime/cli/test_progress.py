import builtins
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

from export.progress import Stages
from runtime.cli import progress as module
from runtime.cli.progress import Activity, Progress, duration
from runtime.video.arguments import FrameBar


@pytest.fixture
def fast(monkeypatch, capsys):
    """Prints lines without delay; returns a function that waits for a matching line on stderr."""
    monkeypatch.setattr(module, "LINE_INTERVAL_S", 0.01)

    def wait_for(pattern):
        text, ends = "", time.monotonic() + 20
        while not re.search(pattern, text):
            assert time.monotonic() < ends, text
            time.sleep(0.01)
            text += capsys.readouterr().err

    return wait_for


def at(progress, clock, *reports):
    for seconds, done, total in reports:
        clock[0] = seconds
        progress.update(done, total)
    return progress.line()


def test_a_line_has_share_rate_and_time_left():
    clock = [0.0]
    progress = Progress("frames", label="in.mp4", clock=lambda: clock[0])
    assert at(progress, clock, (5.0, 10, 273)) == "in.mp4: 4 %, 10 of 273 frames, 5 s elapsed"
    line = at(progress, clock, (16.0, 123, 273))
    assert line == "in.mp4: 45 %, 123 of 273 frames, 10.3 frames/s, 15 s left"
    assert "100 %, 280 of 280 frames" in at(progress, clock, (30.0, 280, 273))


def test_a_line_without_a_total_and_one_of_a_slow_job():
    clock = [0.0]
    progress = Progress("frames", clock=lambda: clock[0])
    assert at(progress, clock, (1.0, 2, None), (3.0, 8, None)) == "8 frames, 3.0 frames/s"
    slow = Progress("samples", total=20, done=5, clock=lambda: clock[0])
    line = at(slow, clock, (0.0, 6, 20), (20.0, 8, 20))
    assert line == "40 %, 8 of 20 samples, 10.0 s each, 2 min left"


@pytest.mark.parametrize(
    ("seconds", "text"), [(15.4, "15 s"), (119, "119 s"), (720, "12 min"), (12600, "3.5 h")]
)
def test_durations_are_shown_in_one_unit(seconds, text):
    assert duration(seconds) == text


def test_lines_are_printed_until_the_end(fast):
    with FrameBar("in.mp4") as bar:
        bar.update(3, 6)
        fast("in.mp4: 50 %, 3 of 6 frames, .* elapsed\n")
    with Activity("opening 3 runs"):
        fast("opening 3 runs: 0 s elapsed\n")
    with Stages(4) as stages:
        stages.start("load")
        stages.start("trace")
        with stages.phases() as phases:
            phases.phase("Tactics", None, 340)
            phases.step("Tactics", 11)
            fast(r"stage 2 of 4 \(trace\): 0 s elapsed; TensorRT: Tactics, 12 of 340\n")
    assert "progress" not in [thread.name for thread in threading.enumerate()]


def test_a_short_job_prints_nothing(capsys):
    with FrameBar("in.mp4") as bar, Stages(2) as stages:
        stages.start("load")
        bar.update(1, 2)
        bar.note("of yuv420p", sys.stdout)
    assert capsys.readouterr() == ("note: of yuv420p\n", "")


def test_a_missing_or_broken_stderr_is_no_error(monkeypatch):
    monkeypatch.setattr(module, "LINE_INTERVAL_S", 0.001)
    failed = threading.Event()

    class Broken(io.StringIO):
        def write(self, _):
            failed.set()
            raise BrokenPipeError

    for stderr in (None, Broken()):
        monkeypatch.setattr(sys, "stderr", stderr)
        with Progress("frames") as progress:
            progress.advance()
            if stderr is not None:
                assert failed.wait(20)
        assert progress.line().startswith("1 frames")


def test_without_tqdm_a_terminal_gets_lines(monkeypatch, fast):
    actual = builtins.__import__

    def without_tqdm(name, *rest):
        if name == "tqdm":
            raise ModuleNotFoundError(name=name)
        return actual(name, *rest)

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(builtins, "__import__", without_tqdm)
    with Progress("frames", total=4) as progress:
        progress.advance()
        fast("25 %, 1 of 4 frames")


TERMINAL = """
import sys, time
from runtime.cli.progress import Progress
with Progress("frames", label="in.mp4", total=4) as progress:
    for _ in range(3):
        time.sleep(0.15)
        progress.advance()
    progress.note("above", sys.stderr)
"""


def test_a_terminal_gets_a_bar():
    pytest.importorskip("tqdm")
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with subprocess.Popen([sys.executable, "-c", TERMINAL], stderr=there) as process:
        os.close(there)
        text = b""
        while True:
            try:
                block = os.read(here, 4096)
            except OSError:  # On Linux: the other end is closed.
                break
            if not block:
                break
            text += block
    os.close(here)
    assert process.returncode == 0
    assert re.search(rb"in.mp4: +\d+%\|.*\| \d/4 ", text), text
    assert b"above\r\n" in text
