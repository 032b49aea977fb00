"""Runs the commands and programs of README and of the documentation."""

import ast
import contextlib
import functools
import re
import subprocess
import sys

import pytest

import gpu_fakes
from bench.harness.roofline import Ceilings
from commands import run_main, run_module
from doc_pages import LANGUAGES, blocks, module_of, pages
from moving_clips import write_clip
from paths import ROOT
from video_clips import pictures

SIZE = (96, 128)
"""(height, width) of the frames, in place of the 480x640 of the pages."""

REPLACEMENTS = {
    "256x448": "64x96",
    "480x640": f"{SIZE[0]}x{SIZE[1]}",
    "720x1280": "64x96",
    "1080x1920": "96x128",
    "2160x3840": "128x192",
    "1:30": "0:00.1",
    "2:00": "0:00.3",
    "compare authors torch": "compare authors",
}
"""Texts of the commands -> replacements that take less time or fit the short clips."""

EXTRA_ARGUMENTS = {
    "bench.latency": ["--samples", "3", "--seconds", "0.1", "--no-cold-start"],
    "runtime": ["--overwrite"],
    "runtime.__main__": ["--overwrite"],
    "runtime.cluster": ["--overwrite"],
}
"""Module -> arguments that are added to its commands. Several pages write the same videos."""

COMMANDS = list(dict.fromkeys((block.not_run, c) for block in blocks() for c in block.commands))
PROGRAMS = [block for block in blocks() if block.language == "python"]


def write_input_files(folder):
    """Writes the files that the pages expect: clips, an archive, a data set."""
    write_clip(folder / "in.mp4", 12, size=SIZE)
    for name in ("in.mkv", "more.mp4", "archive/a.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        write_clip(folder / name, 3, size=SIZE)
    sample = folder / "DIR" / "ucf101_interp_ours" / "1"
    sample.mkdir(parents=True)
    names = ("frame_00.png", "frame_01_gt.png", "frame_02.png")
    for name, frame in zip(names, pictures(3, size=(256, 256), fmt="rgb24"), strict=True):
        frame.save(str(sample / name))


def shortened(command):
    for text, other in REPLACEMENTS.items():
        command = command.replace(text, other)
    return command


def run(command, folder):
    """Runs a command in this process; it must succeed. Engines use a fake of TensorRT."""
    called = module_of(command)
    assert called, f"{command!r} is no command of this package: say why it is not run"
    module, arguments = called
    if "--resume" not in arguments:  # With it, an output that exists is kept.
        arguments += EXTRA_ARGUMENTS.get(module, [])
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        if ".engine" in command:
            stack.enter_context(gpu_fakes.machine("10.3.0", patch))
        done = run_main(module, *arguments, cwd=folder)
    assert done.returncode == 0, f"{command}\n{done.stderr}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, traced_once):
    """A folder in which all commands have run, in the order of the pages."""
    folder = tmp_path_factory.mktemp("docs")
    write_input_files(folder)
    commands = dict.fromkeys(shortened(command) for reason, command in COMMANDS if not reason)
    with traced_once(), pytest.MonkeyPatch.context() as patch:
        known = Ceilings(1e12, 1e11, "known")  # Measuring takes 3 s for each command.
        patch.setattr("bench.harness.roofline.measured_ceilings", lambda _: known)
        for command in commands:
            run(command, folder)
    return folder


def outputs(command):
    """Names of the files that a command must write."""
    words = command.split()
    named = [words[n + 1] for n, word in enumerate(words[:-1]) if word in ("--output", "--json")]
    if words[:3] == ["python", "-m", "runtime"] and "--dry-run" not in words:
        named.append(words[4])
    return [name for name in named if name != "-"]


def test_every_command_runs_and_writes_its_files(folder):
    run = [command for reason, command in COMMANDS if not reason]
    named = {name for command in run for name in outputs(command)}
    # A command with several sizes adds each size to the name of its file.
    several = {name for name in named if not (folder / name).exists()}
    assert {"model.onnx", "plain.onnx", "out.mp4", "summary.json"} <= named
    for name in several:
        stem, _, suffix = name.rpartition(".")
        assert list(folder.glob(f"{stem}_*.{suffix}")), name


@functools.cache
def help_of(*words):
    if words[0].endswith(".py"):
        done = subprocess.run(
            [sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return done.stdout
    return run_module(*words, "--help").stdout


@pytest.mark.parametrize("command", [c for reason, c in COMMANDS if reason and module_of(c)])
def test_a_command_that_is_not_run_has_options_that_exist(command):
    module, arguments = module_of(command.partition(" | ")[0].partition(" && ")[0])
    words = (module,) if module != "ifrnet_model.weights" else (module, arguments[0])
    for option in (word.partition("=")[0] for word in arguments if word.startswith("--")):
        assert re.search(rf"{option}\b", help_of(*words)), option


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.page.stem)
def test_a_program_runs(folder, block, tmp_path):
    for entry in folder.iterdir():
        if entry.name != "out.mp4":  # The programs write it.
            (tmp_path / entry.name).symlink_to(entry)
    program = tmp_path / "program.py"
    program.write_text(shortened(block.body).replace("480, 640", ", ".join(map(str, SIZE))))
    done = subprocess.run(
        [sys.executable, program.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_fragments_can_be_parsed():
    fragments = [block for block in blocks() if block.language in ("py", "python")]
    assert len(fragments) > 10
    for block in fragments:
        ast.parse(block.body, block.page.name)


def test_code_blocks_have_a_known_language():
    for block in blocks():
        assert block.language in LANGUAGES, (block.page.name, block.body)


def test_the_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+)(?: [\w-]+)*:", (ROOT / "Makefile").read_text(), re.M))
    makes = [command.split()[1] for _, command in COMMANDS if command.startswith("make ")]
    assert {"demo", "test"} <= set(makes) <= targets


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_modules_in_inline_commands_exist(page):
    for module in re.findall(r"`python -m ([\w.]+)", page.read_text()):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
