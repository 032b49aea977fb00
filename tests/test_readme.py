"""The README's commands and its program do what they say."""

import contextlib
import importlib
import re
import shlex
import subprocess
import sys

import pytest

import gpu_fakes
from bench.report.evidence import read_evidence
from bench.report.readme import with_tables
from bench.report.tables import report_tables
from commands import run_module
from moving_clips import write_clip
from paths import ROOT
from runtime.cli.ifrnet import COMMANDS
from video_clips import pictures

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


NOT_RUN = {
    "make ": "runs this test, or what it runs",
    "pip install": "tools/installed installs the package in environments of its own",
    "weights download": "needs the internet",
    "IFRNet_S_GoPro.pth": "lies behind a share page",
    "mpv": "needs FFmpeg's command and a player",
    "ray://head": "needs a cluster with GPUs",
    "tritonserver": "needs the server; tests/test_triton_server.py runs one",
    "--plain": "needs an export of the authors' formulation",
    "bench.latency --device cuda": "needs PyTorch with a GPU",
    "triton://": "needs the server; tests/test_triton_server.py runs one",
}
"""By a part of the command. Of those of Python, the options are checked."""

SIZE = (96, 128)
"""(height, width) of the frames, where a reader has 480x640."""

INSTEAD = {
    "480x640": f"{SIZE[0]}x{SIZE[1]}",
    "720x1280 1080x1920": "64x96 96x128",
    "720x1280": "64x96",
    "256x448": "64x96",
    "1:30": "0:00.1",
    "2:00": "0:00.3",
    "compare authors torch": "compare authors --samples 3 --seconds 0.1 --no-cold-start",
    "--json latency.json": "--json latency.json --samples 3 --seconds 0.1 --no-cold-start",
}
"""What a test has no time for, or no clip of that length, and what is run for it."""

MADE = {
    "model.onnx", "model.onnx.json", "ov.onnx", "int8.onnx", "plain.onnx", "any.onnx",
    "model_64x96.engine", "model_96x128.engine", "model.engine", "model.engine.json",
    "small.engine", "repository", "out.mp4", "out.mkv", "summary.json", "made", "said.json",
    "ucf101.jsonl", "latency.json", "report.html",
}  # fmt: skip
"""By the commands, in the folder where a reader runs them all."""


def commands():
    """Those of all blocks, in the order in which a reader meets them."""
    lines = [
        line
        for kind, body in BLOCKS
        if kind in ("", "sh")
        for line in body.replace("\\\n", " ").splitlines()
    ]
    return [" ".join(line.split("#")[0].split()) for line in lines if line.strip()]


def is_run(command):
    return not any(part in command for part in NOT_RUN)


def prepare(folder):
    """What a reader brings: clips, an archive, a data set."""
    write_clip(folder / "in.mp4", 12, size=SIZE)
    for name in ("in.mkv", "more.mp4", "archive/a.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        write_clip(folder / name, 3, size=SIZE)
    sample = folder / "DIR" / "ucf101_interp_ours" / "1"
    sample.mkdir(parents=True)
    names = ("frame_00.png", "frame_01_gt.png", "frame_02.png")
    for name, frame in zip(names, pictures(3, size=(256, 256), fmt="rgb24"), strict=True):
        frame.save(str(sample / name))


def run(command, folder):
    """Runs a command in this process; its exit status. Engines are those of a fake of TensorRT."""
    for text, other in INSTEAD.items():
        command = command.replace(text, other)
    first, *arguments = shlex.split(command)
    if first == "ifrnet":
        module = COMMANDS[arguments.pop(0)].module
    else:
        _, module, *arguments = arguments
    if (ROOT / module.replace(".", "/")).is_dir():
        module += ".__main__"
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [module, *arguments])
        if ".engine" in command:
            stack.enter_context(gpu_fakes.machine("10.3.0", patch))
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(module).main(arguments)
    return ended.value.code or 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the README's commands ran one after the other, on files that they themselves made."""
    folder = tmp_path_factory.mktemp("readme")
    prepare(folder)
    for command in filter(is_run, commands()):
        assert run(command, folder) == 0, command
    return folder


def test_every_command_runs_and_leaves_its_files(folder):
    assert {path.name for path in folder.iterdir()} >= MADE


@pytest.mark.parametrize("command", [c for c in commands() if "python -m" in c and not is_run(c)])
def test_what_is_not_run_has_options_that_exist(command):
    arguments = command.partition("python -m ")[2].partition(" | ")[0].split()
    module, *rest = arguments
    words = [module] if module != "ifrnet_model.weights" else [module, rest[0]]
    usage = run_module(*words, "--help").stdout
    for option in (word for word in rest if word.startswith("--")):
        assert option in usage


def test_all_that_is_not_run_is_in_the_readme():
    for part in NOT_RUN:
        assert any(part in command for command in commands()), part


def test_the_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    wanted = {c.split()[1] for c in commands() if c.startswith("make")}
    assert wanted == {"demo", "test"}
    assert wanted <= targets


def test_the_program_runs(folder):
    (program,) = (body for kind, body in BLOCKS if kind == "python")
    size = ", ".join(map(str, SIZE))
    assert "480, 640" in program
    program = program.replace("480, 640", size)
    program += f"\nassert middle.shape == ({size}, 3) and len(three) == 3"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_links_into_the_repository_lead_somewhere():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", TEXT)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_the_files_that_the_architecture_names_exist():
    text = (ROOT / "docs" / "architecture.md").read_text()
    files = {
        path.relative_to(ROOT).as_posix()
        for folder in ("ifrnet_model", "export", "runtime", "bench", "tools", "tests")
        for path in (ROOT / folder).rglob("*.*")
    }
    named = re.findall(r"`([\w/]+\.py)`", text)
    assert len(named) > 50
    for name in named:
        assert any(file == name or file.endswith(f"/{name}") for file in files), name
    for folder in re.findall(r"`([\w/]+)/`", text):
        assert any(f"{folder}/" in file for file in files), folder


def test_the_inline_commands_are_real():
    for module in re.findall(r"`python -m ([\w.]+)", TEXT):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_its_tables_are_those_of_the_committed_evidence():
    evidence = read_evidence([ROOT / "bench" / "results"])
    assert evidence.notes == []  # All of it can be used.
    assert with_tables(TEXT, report_tables(evidence), where="README.md") == (TEXT, [])
