"""Runs the steps of tools/gpu_check.py, each in a process that ends with its parent."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.environment import MeasurementError
from gpu_check_steps import IN_TORCH_PYTHON, Scale, Step

ROOT = Path(__file__).resolve().parent.parent

_QUIETLY = "from runtime.telemetry import import_quietly; o = import_quietly('onnxruntime'); "
_TENSORRT = f"""{_QUIETLY}
import onnx, polygraphy, tqdm
from export.trt.engine import target_at
from runtime.backends.cuda.runtime import import_cuda
from runtime.backends.trt.engine import logger_for
trt, _ = target_at(0).trt, import_cuda()
assert trt.Builder(logger_for(trt)), logger_for(trt).take_errors()
print(trt.__version__)"""
PROBES = {
    "models": (f"{_QUIETLY}import av, onnx, onnxscript, safetensors, torch",
               "ifrnet-deploy[cpu,export], or name an unpacked pack with --models"),
    "ort": (f"import torch, tqdm; {_QUIETLY}p = o.get_available_providers(); "
            "assert 'CUDAExecutionProvider' in p, f'it has {p}'",
            "PyTorch for CUDA, tqdm, and onnxruntime-gpu without onnxruntime"),
    "torch": ("import torch, tqdm; assert torch.cuda.is_available(), 'PyTorch sees no GPU'",
              "PyTorch for CUDA and tqdm"),
    "tensorrt": (_TENSORRT, "ifrnet-deploy[tensorrt,cpu,build]"),
    "C": ("import filelock, pytest", "pytest and filelock"),
}  # fmt: skip
"""Part, or "tensorrt" -> code that must run in its Python, and the packages that it needs."""

_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class StepRunner:
    """Runs steps as processes, in the Python that each needs.

    Attributes:
        work: Folder of engines, results and logs.
        models: Folder of checkpoints, graphs and pairs.
        variables: Environment variables of all processes.
    """

    def __init__(self, args: argparse.Namespace, scale: Scale) -> None:
        self.torch_python, self.torch_path = args.torch_python, args.torch_path
        self.work = args.work.resolve()
        self.models = (args.models or self.work / "models").resolve()
        self.variables = {
            "CUDA_MODULE_LOADING": "LAZY", "FAIL_WITHOUT_GPU": "1",
            "IFRNET_GPU_MODELS": str(self.models),
            "IFRNET_GPU_ENGINES": str(self.work / "test_engines"),
            "IFRNET_GPU_OPENINGS": str(scale.openings),
            "IFRNET_GPU_INFERENCES": str(scale.inferences),
        }  # fmt: skip

    def path(self, name: str) -> Path:
        """The path of a file that a step names, for example "MODELS/base.pth"."""
        folder, _, file = name.partition("/")
        return {"MODELS": self.models, "WORK": self.work}[folder] / file

    def probe(self, name: str) -> str:
        """Runs one of PROBES and returns its output.

        Raises:
            MeasurementError: If it fails; the message names the packages to install.
        """
        code, packages = PROBES[name]
        step = Step(name, 0, f"probe_{name}", f"-c {shlex.quote(code)}")
        try:
            failed, output = self.run(step, 120)
        except OSError as error:
            failed, output = 1, str(error)
        if failed:
            reason = (output.splitlines() or [f"it ended with {failed}"])[-1]
            python, _ = self._python(name)
            raise MeasurementError(
                f"{name} does not work in {python} ({reason}): install {packages}, or choose "
                "another --torch-python or --part"
            )
        return output

    def run(self, step: Step, limit: float) -> tuple[int, str]:
        """Runs a step in a process, and ends it with all its children.

        Args:
            step: The step.
            limit: Limit of its time in seconds.

        Returns:
            The exit code, 124 if the limit was reached, and the last 40 lines of the output.
        """
        python, environment = self._python(step.part)
        words = [str(self.path(word)) if word.startswith(("MODELS/", "WORK/")) else word
                 for word in shlex.split(step.command)]  # fmt: skip
        log = self.work / "logs" / f"{step.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        if step.makes:
            self.path(step.makes).parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as output:
            child = subprocess.Popen(
                [python, *words], cwd=ROOT, env=environment, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=_end_with_parent(os.getpid()),
            )  # fmt: skip
            try:
                code = child.wait(limit)
            except subprocess.TimeoutExpired:
                code = 124
                output.write(f"\nerror: ended after {limit:.0f} s\n")
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)  # Its children end too.
                child.wait()
        return code, "\n".join(log.read_text(errors="replace").strip().splitlines()[-40:])

    def _python(self, part: str) -> tuple[str, dict[str, str]]:
        """The Python of a part and its environment; packages of this one are hidden from others."""
        environment = dict(os.environ)
        python = self.torch_python if part in IN_TORCH_PYTHON else sys.executable
        if python != sys.executable:
            own = [sys.prefix, *environment.get("PYTHONPATH", "").split(os.pathsep)]
            own = [os.path.realpath(path) + os.sep for path in own if path not in ("", "/usr")]
            libraries = [
                path
                for path in environment.get("LD_LIBRARY_PATH", "").split(os.pathsep)
                if path and not f"{os.path.realpath(path)}{os.sep}".startswith(tuple(own))
            ]
            environment["PYTHONPATH"] = self.torch_path
            environment["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
        paths = filter(None, (str(ROOT), environment.get("PYTHONPATH")))
        return python, {**environment, **self.variables, "PYTHONPATH": os.pathsep.join(paths)}


def _end_with_parent(parent: int) -> Callable[[], None]:
    """A function for the child to call first, so that Linux kills it when `parent` ends."""

    def prepare() -> None:
        if _PRCTL is not None:
            _PRCTL(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:  # The parent has ended already.
                os._exit(1)

    return prepare


def run_steps(
    steps: Sequence[Step], runner: StepRunner, record: dict[str, Any],
    write: Callable[[], None], *, seconds: float,
) -> None:  # fmt: skip
    """Runs the steps that fit into the time; a failed step does not stop the others.

    Args:
        steps: The steps, in order.
        runner: Runs one step.
        record: Gets an entry in "steps" for each step, with a "status": "done", "failed", "not run"
            (a file that it needs is missing), "out of time" or "ended from outside".
        write: Called after each step.
        seconds: Limit of the time of all steps.
    """
    end, entries = time.monotonic() + seconds, record["steps"]
    runner.models.mkdir(parents=True, exist_ok=True)
    for number, step in enumerate(steps, 1):
        tiny = entries.get("build_smoke_tiny", {}).get("status")
        if "matrix" in step.name and tiny not in (None, "failed"):
            continue  # The matrix shows why the tiny engine fails.
        left = end - time.monotonic()
        missing = [name for name in step.needs if not runner.path(name).exists()]
        entry = entries[step.name] = {
            "part": step.part, "command": step.command, "predicted_seconds": step.seconds,
            "run": len(record["runs"]) - 1, "status": "ended from outside",
        }  # fmt: skip
        if missing:
            entry |= {"status": "not run", "tail": f"error: there is no {', '.join(missing)}"}
        elif step.part == "models" and runner.path(step.makes).exists():
            entry["status"] = "done"
        elif step.seconds > left:
            entry["status"] = "out of time"
        else:
            if step.result and not step.makes:
                runner.path(step.result).unlink(missing_ok=True)  # It may be of an earlier run.
            started = time.monotonic()
            try:
                code, tail = runner.run(step, min(max(600, 3 * step.seconds), left))
            except BaseException:
                write()
                raise
            entry |= {"status": "failed" if code else "done", "code": code, "tail": tail}
            entry["seconds"] = round(time.monotonic() - started, 1)
            # After a failed build the manifest is that of an earlier engine.
            if step.result and not (code and step.makes):
                entry["result"] = read_result(runner.path(step.result))
        print(f"[{number}/{len(steps)}] {step.name}: {entry['status']}", flush=True)
        if entry["status"] in ("failed", "not run"):
            print("   ", *entry["tail"].splitlines()[-1:], flush=True)
        write()


def read_result(path: Path) -> Any:
    """Reads a JSON file, or the tests of a JUnit file; None if it is missing or damaged."""
    try:
        if path.suffix == ".json":
            return json.loads(path.read_text())
        cases = [*xml.etree.ElementTree.parse(path).iter("testcase")]
    except (OSError, ValueError, xml.etree.ElementTree.ParseError):
        return None
    tests = []
    for case in cases:
        problem = next((e for e in case if e.tag in ("failure", "error", "skipped")), None)
        outcome, message = "passed", None
        if problem is not None:
            outcome, message = problem.tag, problem.get("message")
        properties = {p.get("name"): p.get("value") for p in case.iter("property")}
        tests.append({**case.attrib, "outcome": outcome, "message": message, "found": properties})
    return {"tests": tests}
