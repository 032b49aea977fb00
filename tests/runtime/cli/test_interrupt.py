"""Ctrl-C and SIGTERM in real processes."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest

from commands import need_torch
from runtime.cli.command import command_parser, run_command

COMMAND = """
import concurrent.futures, sys, time
from runtime.cli.command import command_parser, run_command
from runtime.cli.progress import Progress

def ready():
    print("ready", flush=True)

def command(args):
{body}

run_command(command_parser("made", "A command."), command, extra="none")
"""

BODIES = {
    "sleeps": """
ready()
time.sleep(60)
""",
    "imports": """
ready()
sys.path.insert(0, {folder!r})
import slow
""",
    "turned into another exception": """
try:
    ready()
    time.sleep(60)
except BaseException:
    raise RuntimeError("the export failed")
""",
    "caught until the next report": """
with Progress("frames") as progress:
    try:
        ready()
        time.sleep(60)
    except BaseException:
        pass
    progress.advance()
    time.sleep(60)
""",
    "caught until the end": """
try:
    ready()
    time.sleep(60)
except BaseException:
    pass
""",
    "dropped in a destructor": """
class Slow:
    def __del__(self):
        ready()
        time.sleep(60)
slow = Slow()
del slow
time.sleep(60)
""",
    "waits for a thread pool": """
with concurrent.futures.ThreadPoolExecutor(1) as pool:
    result = pool.submit(time.sleep, 3)
    ready()
    result.result()
""",
    "a thread stays": """
import threading
threading.Thread(target=time.sleep, args=(60,)).start()
ready()
time.sleep(60)
""",
}


@contextmanager
def started(body, **options):
    """Starts a process that runs `body` as a command; the end of the test kills it."""
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(body=indented)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.2)  # Waits until it sleeps.
            yield process
        finally:
            process.kill()


SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
ENDS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "ended by SIGTERM")}


@SIGNALS
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_signal_is_one_line_and_its_code(body, number, tmp_path):
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    with started(body.replace("{folder!r}", repr(str(tmp_path)))) as process:
        process.send_signal(number)
        out, errors = process.communicate(timeout=20)
    code, how = ENDS[number]
    assert (process.returncode, out, errors) == (code, "", f"made: {how}\n")


@SIGNALS
def test_a_second_signal_ends_at_once(number):
    body = """
try:
    ready()
    time.sleep(60)
finally:
    print("cleaning up", flush=True)
    time.sleep(60)
"""
    with started(body) as process:
        process.send_signal(number)
        assert process.stdout.readline() == "cleaning up\n"
        process.send_signal(number)
        assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == -number


@SIGNALS
def test_an_ignored_signal_stays_ignored(number):
    def ignore():
        signal.signal(number, signal.SIG_IGN)

    with started("ready()\ntime.sleep(1)\nreturn 7\n", preexec_fn=ignore) as process:
        process.send_signal(number)
        assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 7


def test_sigterm_ends_a_command_whose_ctrl_c_is_ignored():
    def ignore():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    with started("ready()\ntime.sleep(60)\n", preexec_fn=ignore) as process:
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20) == ("", "made: ended by SIGTERM\n")
    assert process.returncode == 143


@pytest.mark.parametrize("arguments", [["inspect", "."], ["convert", ".", "out.safetensors"]])
def test_sigterm_ends_the_commands_of_weights(arguments, tmp_path):
    need_torch()
    fifo = tmp_path / "weights.pth"
    os.mkfifo(fifo)  # Reading it waits for a writer.
    command = ["-m", "ifrnet_model.weights", *(str(fifo) if a == "." else a for a in arguments)]
    with (
        subprocess.Popen(
            [sys.executable, *command],
            stderr=subprocess.PIPE, text=True,
        ) as process,
        fifo.open("wb"),  # Waits for the reader.
    ):  # fmt: skip
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20)[1].endswith(": ended by SIGTERM\n")
    assert process.returncode == 143


def test_too_little_memory_is_one_line(capsys):
    def fill(_):
        np.empty(1 << 60, np.uint8)

    with pytest.raises(SystemExit) as left:
        run_command(command_parser("made", "A command."), fill, extra="none", argv=[])
    assert left.value.code == 1
    assert re.fullmatch(
        r"made: error: there is not enough memory \(Unable to allocate .*\): close other programs, "
        r"or give smaller frames\n",
        capsys.readouterr().err,
    )


def test_the_signal_handlers_are_restored(capsys):
    seen = []
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray may have set one here.

    def fail(_):
        seen.extend(map(signal.getsignal, (signal.SIGINT, signal.SIGTERM)))
        raise OSError("full")

    with pytest.raises(SystemExit) as left:
        run_command(command_parser("made", "A command."), fail, extra="none", argv=[])
    assert (left.value.code, capsys.readouterr().err) == (1, "made: error: full\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler is not seen[0]
    assert seen[1] is seen[0]
    assert signal.signal(signal.SIGTERM, before) is signal.SIG_DFL
