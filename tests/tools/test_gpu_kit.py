"""How the Python of the GPU kit is created. tests/test_gpu_kit.py tests what it can do."""

import subprocess
import sys

import pytest

import gpu_kit
from paths import ROOT


def test_the_wheels_are_those_of_the_list(tmp_path):
    stage = tmp_path / "stage.py"
    stage.write_text(
        'A, B = "a", "b"\nWHEELS = ("numpy==2.2.6",\n          "onnx")\nraise SystemExit\n'
    )
    assert gpu_kit.wheels(stage) == ["numpy==2.2.6", "onnx"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, r"\.\./shared/gpu/stage\.py, which names the wheels, is not beside"),
     ("WHEEL = ()", "stage.py assigns no WHEELS")],
)  # fmt: skip
def test_without_wheels_there_is_a_reason(tmp_path, text, reason):
    stage = tmp_path / "stage.py"
    if text:
        stage.write_text(text)
    with pytest.raises(gpu_kit.KitError, match=reason):
        gpu_kit.wheels(stage)


@pytest.fixture
def machine(monkeypatch):
    """A machine with everything that the kit needs; commands are recorded but not run."""
    commands = []
    monkeypatch.setattr(gpu_kit, "wheels", lambda: ["numpy==2.2.6", "onnx"])
    monkeypatch.setattr(gpu_kit, "find_python", lambda: "python3.10")
    monkeypatch.setattr(gpu_kit, "run", lambda _, command: commands.append(command))
    monkeypatch.setattr(gpu_kit.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(gpu_kit.sys, "platform", "linux")
    return commands


def test_the_environment_is_created_once_and_again_for_other_wheels(machine, tmp_path, monkeypatch):
    target = tmp_path / "kit"
    target.mkdir()
    monkeypatch.setattr(gpu_kit.shutil, "rmtree", lambda *_, **__: None)
    for _ in range(2):
        gpu_kit.make(target, ["--extra-index-url", "address"])
        assert len(machine) == 2
    venv, pip = machine
    assert venv == ["python3.10", "-m", "venv", "--without-pip", str(target)]
    assert pip[-6:] == [
        "--target",
        str(target / "site"),
        "--extra-index-url",
        "address",
        "numpy==2.2.6",
        "onnx",
    ]
    assert {"--no-deps", "--only-binary=:all:"} <= set(pip)
    monkeypatch.setattr(gpu_kit, "wheels", lambda: ["numpy==2.2.7", "onnx"])
    gpu_kit.make(target, [])
    assert len(machine) == 4


def test_on_other_machines_there_is_a_reason(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_kit.platform, "machine", lambda: "aarch64")
    with pytest.raises(gpu_kit.KitError, match="the wheels are for Linux on x86-64, not "):
        gpu_kit.make(tmp_path / "kit", [])


def test_a_failed_command_gives_its_reason():
    code = "import sys; sys.exit('WARNING: one\\nERROR: no such wheel\\nlast')"
    with pytest.raises(gpu_kit.KitError, match=r"^pip cannot .* \(ERROR: no such wheel\)$"):
        gpu_kit.run("pip", [sys.executable, "-c", code])


def test_without_a_python_there_is_a_reason(monkeypatch, tmp_path):
    (tmp_path / "python3.10").write_text("#!/bin/sh\nexit 127\n")  # Like a version manager's shim.
    (tmp_path / "python3.10").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(gpu_kit.KitError, match=r"^no Python 3\.10 is on PATH or in pyenv$"):
        gpu_kit.find_python()


def test_the_command_exits_with_3_if_the_kit_is_not_available(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "tools/gpu_kit.py", tmp_path / "kit"],
        env={"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "kit").exists()
