"""The README's commands and its program do what they say."""

import re
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT
from test_runtime_video import write_clip

from bench.report.evidence import read_evidence
from bench.report.readme import with_tables
from bench.report.tables import report_tables

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands():
    lines = [line for kind, body in BLOCKS if not kind for line in body.splitlines()]
    return [line.split("#")[0].strip() for line in lines if line.strip()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the README's commands ran, in its order, on a clip of the size it builds for."""
    folder = tmp_path_factory.mktemp("readme")
    write_clip(folder / "in.mp4", 3, size=(480, 640))
    for command in commands():
        if command.startswith("python"):
            arguments = [sys.executable, *shlex.split(command)[1:]]
            done = subprocess.run(
                arguments, cwd=folder, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, (command, done.stderr)
    return folder


def test_every_command_runs_and_leaves_its_files(folder):
    assert {"model.onnx", "model.onnx.json", "out.mp4"} <= {p.name for p in folder.iterdir()}


def test_the_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    wanted = {c.split()[1] for c in commands() if c.startswith("make")}
    assert wanted == {"demo", "test"}
    assert wanted <= targets


def test_the_program_runs(folder):
    (program,) = (body for kind, body in BLOCKS if kind == "python")
    program += "\nassert middle.shape == (480, 640, 3) and len(three) == 3"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_links_into_the_repository_lead_somewhere():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", TEXT)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_the_inline_commands_are_real():
    for module in re.findall(r"`python -m ([\w.]+)", TEXT):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_its_tables_are_those_of_the_committed_evidence():
    evidence = read_evidence([ROOT / "bench" / "results"])
    assert evidence.notes == []  # All of it can be used.
    assert with_tables(TEXT, report_tables(evidence), where="README.md") == (TEXT, [])
