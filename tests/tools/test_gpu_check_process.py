"""The GPU check as a process: its child processes, errors and packs."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paths import ROOT
from runtime.errors import InterpolationError

plan = importlib.import_module("gpu_check_steps")
running = importlib.import_module("gpu_check_run")
gpu_check = importlib.import_module("gpu_check")

FAKES = ROOT / "tests" / "fake_machine"
MODELS = plan.models_steps(plan.Scale())


def command(*arguments, fakes=True, **variables):
    """Starts tools/gpu_check.py, over the fakes of a GPU machine or on this machine."""
    path = [*([str(FAKES)] if fakes else []), str(ROOT)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), **variables}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "gpu_check.py"), *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process, seconds=120):
    """Waits for a process; returns (exit code, printed text)."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out + err


# Processes


@pytest.fixture
def machine(tmp_path):
    """A machine whose PyTorch is in another Python."""
    parser = ["--work", tmp_path / "work", "--models", tmp_path, "--torch-python", "/bin/other"]
    args = type("Args", (), {})()
    args.work, args.models, args.torch_python, args.torch_path = (*parser[1::2], "extra")
    return running.StepRunner(args, plan.Scale())


def step_of(code, part="A"):
    return plan.Step(part, 1, "step", f"-c {plan.shlex.quote(code)} MODELS/a.onnx")


def test_a_process_runs_in_the_checkout_with_its_files_and_variables(machine, tmp_path):
    code = "import os, runtime, sys; print(sys.argv[1], os.environ['CUDA_MODULE_LOADING'])"
    assert machine.run(step_of(code), 60) == (0, f"{tmp_path}/a.onnx LAZY")


def test_after_its_time_a_process_and_its_children_are_ended(machine, tmp_path):
    code = (
        "import subprocess, time; p = subprocess.Popen(['sleep', '600']);"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid)); time.sleep(600)"
    )
    assert machine.run(step_of(code), 15) == (124, "error: ended after 15 s")
    assert has_ended(int((tmp_path / "pid").read_text()))


def has_ended(pid):
    """Whether a process ends within ten seconds, or becomes a zombie."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


def test_another_python_does_not_use_the_packages_of_this_one(machine, monkeypatch, tmp_path):
    site, system = tmp_path / "site", tmp_path / "system"
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{site / 'tensorrt'}:{system}")
    python, environment = machine._python("torch")
    assert python == "/bin/other"
    assert environment["PYTHONPATH"] == f"{ROOT}:extra"
    assert environment["LD_LIBRARY_PATH"] == str(system)
    python, environment = machine._python("A")
    assert python == sys.executable
    assert environment["PYTHONPATH"] == f"{ROOT}:{site}"


@pytest.fixture
def sleeping(tmp_path):
    """A running check whose second step sleeps; returns (process, id of the child, record)."""
    python, models = tmp_path / "python", tmp_path / "models"
    python.write_text(
        f"#!/bin/bash\n[ $1 = -c ] && exit\ncd {tmp_path}\n"
        "[ -e first ] || { touch first; exit 0; }\n"
        "sleep 600 & echo $! $$ >pids.partial; mv pids.partial pids; wait\n"
    )
    python.chmod(0o755)
    models.mkdir()
    for name in ("base.pth", "small.pth"):
        (models / name).touch()
    record = tmp_path / "gpu.json"
    process = command(
        "--part", "torch", "--models", models, "--work", tmp_path / "work", "--json", record,
        "--torch-python", python,
    )  # fmt: skip
    for _ in range(600):
        if (tmp_path / "pids").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    yield process, pids, record
    process.kill()
    ended(process)


def test_a_check_that_is_terminated_ends_its_child_and_writes_its_record(sleeping):
    process, pids, record = sleeping
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 143
    assert all(map(has_ended, pids))
    statuses = [entry["status"] for entry in json.loads(record.read_text())["steps"].values()]
    assert statuses == ["done", "ended from outside"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends a child with its parent")
def test_the_child_of_a_killed_check_ends(sleeping):
    process, pids, record = sleeping
    process.kill()
    process.wait(10)
    sleep, child = pids
    assert has_ended(child)
    os.kill(sleep, signal.SIGKILL)  # Processes of the child may continue if they do not notice.
    entries = json.loads(record.read_text())["steps"].values()
    assert [entry["status"] for entry in entries] == ["done"]


# Missing requirements


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["--part", "A"], {}, "--json is missing: name the file of the record"),
        (["--part", "A", "--json", "no/where.json"], {}, "no does not exist: create the folder"),
        (["--part", "A", "--json", "gpu.json"], {"without": "fakes"},
         "no NVIDIA driver was found (libcuda.so.1 is missing): run this on a machine with"),
        (["--part", "A", "--json", "gpu.json"], {"IFRNET_FAKE_TENSORRT": "none"},
         "TensorRT cannot be imported (No module named 'tensorrt')"),
        (["--part", "torch", "--json", "gpu.json"], {}, "PyTorch sees no GPU): install PyTorch"),
        (["--part", "ort", "--json", "gpu.json"], {}, "CPUExecutionProvider']): install PyTorch"),
        (["--part", "ort", "--json", "gpu.json", "--torch-python", "/no/python"], {},
         "ort does not work in /no/python ("),
        (["--part", "A", "--json", "gpu.json", "--models", "empty"], {},
         "empty lacks 4 files, first base_720x1280_fp16.onnx: unpack a pack"),
    ],
)  # fmt: skip
def test_a_missing_requirement_is_one_sentence_before_anything_is_built(
    tmp_path, monkeypatch, arguments, variables, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    if "--models" not in arguments:
        models = tmp_path / "models"
        models.mkdir()
        for step in MODELS:
            (models / step.makes.partition("/")[2]).touch()
        arguments = [*arguments, "--models", models]
    fakes = not variables.pop("without", None)
    code, said = ended(command(*arguments, "--work", tmp_path / "work", fakes=fakes, **variables))
    assert code == 1
    (line,) = said.strip().splitlines()
    assert line.startswith("python tools/gpu_check.py: error: ")
    assert message in line
    assert [*tmp_path.glob("work/*.*")] == []


def test_without_pytorch_the_error_names_the_pack(tmp_path):
    args = type("Args", (), {"work": tmp_path, "models": None, "torch_python": "/bin/false",
                             "torch_path": ""})  # fmt: skip
    message = "it ended with 1.*or name an unpacked pack with --models"
    with pytest.raises(InterpolationError, match=message):
        running.StepRunner(args, plan.Scale()).probe("models")


@pytest.mark.parametrize("text", ['{"of": [{"gpus": []}, "a", []]}', "no JSON", "[]"])
def test_a_record_of_another_gpu_or_commit_is_refused(tmp_path, text):
    (tmp_path / "gpu.json").write_text(text)
    code, said = ended(command("--part", "torch", "--json", tmp_path / "gpu.json"))
    assert code == 1
    assert "gpu.json is not a record of this GPU, commit and scale: name a new file" in said
    assert (tmp_path / "gpu.json").read_text() == text


# Pack


@pytest.mark.skipif(shutil.which("xz") is None, reason="needs the command xz")
def test_a_pack_can_be_unpacked_with_the_printed_command(tmp_path):
    models, pack, unpacked = (tmp_path / name for name in ("models", "pack", "unpacked"))
    for folder in (models, pack, unpacked):
        folder.mkdir()
    weights = os.urandom(300_000)
    for name in ("a.onnx", "b.onnx"):
        (models / name).write_bytes(weights + name.encode())
    (pack / "models-07.part").write_bytes(b"of an earlier pack")
    gpu_check.compress(models, pack, "100K")
    parts = sorted(pack.glob("*.part"))
    assert [part.name for part in parts] == [f"models-0{k}.part" for k in range(3)]  # Not six.
    assert all(part.stat().st_size <= 100 << 10 for part in parts)
    sums = dict(line.split()[::-1] for line in (pack / "models.sha256").read_text().splitlines())
    assert sums == {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in parts}
    unpack = gpu_check.UNPACK.replace("DIR", str(unpacked))
    subprocess.run(["bash", "-c", unpack], cwd=pack, check=True)
    assert {p.name: p.read_bytes() for p in unpacked.iterdir()} == {
        p.name: p.read_bytes() for p in models.iterdir()
    }
