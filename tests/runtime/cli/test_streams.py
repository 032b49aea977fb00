"""Real processes whose standard streams are closed, missing or broken."""

import subprocess
import sys
from pathlib import Path

import pytest

from paths import ROOT

CLIP = ROOT / "tests" / "data" / "bear-vp9-odd-dimensions.webm"

COMMANDS = {
    "doctor": ("-m", "runtime.doctor"),
    "weights": ("-m", "ifrnet_model.weights", "list"),
    "ifrnet weights": ("-m", "runtime.cli.ifrnet", "weights", "list"),
    "weights --help": ("-m", "ifrnet_model.weights", "--help"),
    "video": ("-m", "runtime", str(CLIP), "out.mp4", "--model", "demo", "--end", "0.1"),
}


def shell(command, redirection, cwd):
    """Runs `python COMMAND REDIRECTION` in a shell; prints the code of Python at the end."""
    return subprocess.run(
        ["sh", "-c", f'{{ "$@" {redirection}', "sh", sys.executable, *command],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_commands_work_with_closed_streams(command, closed, tmp_path):
    done = shell(command, f"{closed}; }}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (">&-" not in closed.replace("2>&-", ""))
    if command[1] == "runtime":
        assert (tmp_path / "out.mp4").read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_closed_pipe_on_stdout_ends_the_command_quietly(command, tmp_path):
    done = shell(command, "; echo $? >code; } | true", tmp_path)
    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "code").read_text() == "0\n"
    if command[1] == "runtime":
        assert (tmp_path / "out.mp4").read_bytes()[4:8] == b"ftyp"


def test_a_closed_pipe_on_stderr_keeps_the_exit_status(tmp_path):
    done = shell(("-m", "runtime", "no.mp4", "out.mp4", "--model", "demo"),
                 "2>&1 >/dev/null; echo $? >code; } | true", tmp_path)  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "code").read_text() == "1\n"


def test_a_full_disk_is_an_error(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    done = shell(COMMANDS["doctor"], ">/dev/full; }", tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


def test_y4m_on_stdout_is_complete_without_stderr(tmp_path):
    video = ("-m", "runtime", str(CLIP), "-", "--model", "demo", "--end", "0.1")
    both = [
        subprocess.run(
            ["sh", "-c", f'"$@" {rest}', "sh", sys.executable, *video],
            stdout=subprocess.PIPE, check=True,
        ).stdout
        for rest in ("2>/dev/null", "2>&-")
    ]  # fmt: skip
    assert both[0].startswith(b"YUV4MPEG2")
    assert both[0] == both[1]


NO_CONSOLE = """
import sys
sys.stdin = sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None
from runtime.doctor import main
main(["--json", "report.json"])
"""


def test_a_program_without_a_console_works(tmp_path):
    subprocess.run([sys.executable, "-c", NO_CONSOLE], cwd=tmp_path, check=True)
    assert (tmp_path / "report.json").is_file()


HOSTILE = """
import sys
from runtime.cli.streams import repair_streams
repair_streams()
for stream in (sys.stdout, sys.stderr):
    print("tab\\tred \\x1b[31m bell \\a back \\x9b \\u202eover \\udcff \\rfirst é 字", file=stream)
    stream.write("\\rbar")
    stream.write("\\n\\x1b[A")
"""


def test_control_characters_are_printed_as_escapes():
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", HOSTILE.replace("\\\\", "\\")],
        capture_output=True, check=True,
    )  # fmt: skip
    expected = (
        "tab\tred \\x1b[31m bell \\x07 back \\x9b \\u202eover \\udcff \\rfirst é 字\n\rbar\n\x1b[A"
    )
    assert done.stdout.decode() == done.stderr.decode() == expected
