"""Everything that needs a GPU, from nothing, in one command; what it finds goes into one JSON file.

python tools/gpu_check.py --torch-python python3 --json bench/results/gpu_h200.json

Run it with a Python that has TensorRT; PyTorch may live in another. The most valuable comes first,
a step that fails is recorded and the next one runs, and the file is written after each: what ends
early keeps what it has. Graphs and engines stay in --work and are not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_check_goals import GFLOP_AT_720P, goals
from gpu_check_plan import PARTS, SIZES, VARIANTS, Plan, Step, planned

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

TAIL_LINES = 40


@dataclass(frozen=True)
class Outcome:
    """How a command ended; `tail` is the end of what it printed."""

    code: int
    seconds: float
    tail: str


Runner = Callable[[Step], Outcome]


def run_steps(
    steps: Sequence[Step],
    runner: Runner,
    record: dict[str, Any],
    write: Callable[[dict[str, Any]], None],
    *,
    minutes: float = float("inf"),
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Runs every step, whatever became of those before; whether none failed.

    `record["steps"]` gets an entry for each, and `write` is called after each.
    """
    started = clock()
    for number, step in enumerate(steps, 1):
        entry: dict[str, Any] = {"part": step.part, "command": shlex.join(step.arguments)}
        record["steps"][step.name] = entry
        missing = [path.name for path in step.needs if not path.exists()]
        if step.makes is not None and step.makes.exists():
            entry["status"] = "kept"
        elif clock() - started > minutes * 60:
            entry["status"] = "out of time"
        elif missing:
            entry |= {"status": "failed", "tail": f"not run: {', '.join(missing)} is missing"}
        else:
            if step.result is not None and not step.is_build:
                step.result.unlink(missing_ok=True)  # Of an earlier run.
            outcome = runner(step)
            entry |= {"status": "ok" if outcome.code == 0 else "failed"}
            entry |= {"code": outcome.code, "seconds": round(outcome.seconds, 2)}
            entry |= {"tail": outcome.tail}
            if (
                step.result is not None
                and step.result.exists()
                and not (
                    step.is_build and outcome.code  # The manifest is that of an earlier engine.
                )
            ):
                entry["result"] = read_result(step.result)
        print(f"[{number}/{len(steps)}] {step.name}: {entry['status']}", flush=True)
        if entry["status"] == "failed":
            print("   ", *entry["tail"].strip().splitlines()[-1:], flush=True)
        record["summary"] = goals(record["steps"])
        write(record)
    return all(record["steps"][step.name]["status"] != "failed" for step in steps)


def read_result(path: Path) -> Any:
    """What a step left: JSON, or the tests of a JUnit file."""
    try:
        if path.suffix == ".json":
            return json.loads(path.read_text())
        return {"tests": list(_junit_tests(path))}
    except (ValueError, OSError, xml.etree.ElementTree.ParseError) as error:
        return {"unreadable": str(error)}


def _junit_tests(path: Path) -> Iterator[dict[str, Any]]:
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        bad = next((e for e in case if e.tag in ("failure", "error", "skipped")), None)
        yield {
            "name": case.get("name"),
            "seconds": float(case.get("time") or 0),
            "outcome": "passed" if bad is None else bad.tag,
            "message": None if bad is None else (bad.get("message") or "")[:500],
            "found": {p.get("name"): p.get("value") for p in case.iter("property")},
        }


# The real machine


def process_runner(torch_python: str, torch_path: str, logs: Path) -> Runner:
    """Runs steps as processes in the checkout; their whole output goes to `logs`."""

    def run(step: Step) -> Outcome:
        command = [torch_python if step.torch else sys.executable, *step.arguments]
        separate = step.torch and not _same_python(torch_python)
        environment = _environment(torch_path) if separate else dict(os.environ)
        paths = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
        environment |= {"PYTHONPATH": os.pathsep.join(paths), **step.environment}
        started = time.monotonic()
        log = logs / f"{step.name}.log"
        with log.open("w") as output:
            # In a group of its own: what it started ends with it.
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            try:
                code = process.wait(step.timeout_s)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                code = 124
                output.write(f"\nended after {step.timeout_s:.0f} s\n")
        lines = log.read_text(errors="replace").splitlines()
        return Outcome(code, time.monotonic() - started, "\n".join(lines[-TAIL_LINES:]))

    return run


def _same_python(other: str) -> bool:
    return other == sys.executable


def _environment(torch_path: str) -> dict[str, str]:
    """The environment without what belongs to this Python alone, for another one."""
    ours = [sys.prefix, sys.base_prefix, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    ours = [os.path.realpath(path) + os.sep for path in ours if path and path not in ("/", "/usr")]
    libraries = [
        path
        for path in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
        if path and not (os.path.realpath(path) + os.sep).startswith(tuple(ours))
    ]
    environment = dict(os.environ)
    environment["PYTHONPATH"] = torch_path
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    return {name: value for name, value in environment.items() if value}


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Writes the JSON whole, or not at all."""
    from runtime.files import written_beside  # It loads NumPy, which a dry run does not need.

    with written_beside(path) as beside:
        beside.write_text(json.dumps(record, indent=1) + "\n")


def _nvidia_smi() -> str | None:
    wanted = "name,driver_version,clocks.sm,clocks.max.sm,power.limit,temperature.gpu,memory.total"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={wanted}", "--format=csv"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(
        prog="python tools/gpu_check.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="where everything found goes")
    made.add_argument(
        "--work", type=Path, default=ROOT / "build" / "gpu", metavar="DIR",
        help="graphs, engines, logs (default build/gpu)",
    )  # fmt: skip
    made.add_argument(
        "--torch-python", default=sys.executable, metavar="PYTHON",
        help="has torch, onnx, onnxscript, onnxruntime, safetensors (default: this one)",
    )  # fmt: skip
    made.add_argument(
        "--torch-path", default="", metavar="DIRS", help="PYTHONPATH of --torch-python"
    )
    made.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    made.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    made.add_argument("--sizes", nargs="+", default=SIZES, metavar="HxW")
    made.add_argument(
        "--minutes", type=float, default=25.0, metavar="N", help="then nothing new (default 25)"
    )
    made.add_argument("--commit", metavar="HASH", help="of a copy that is no git checkout")
    made.add_argument(
        "--resume", action="store_true", help="leave out what --json has from an earlier run"
    )
    made.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 1 if anything failed."""
    arguments = parser()
    args = arguments.parse_args(argv)
    work = args.work.resolve()
    plan = Plan(work, variants=args.variants, sizes=args.sizes)
    steps = planned(plan, args.parts)
    if args.dry_run:
        for step in steps:
            python = args.torch_python if step.torch else sys.executable
            variables = [f"{name}={shlex.quote(value)}" for name, value in step.environment.items()]
            print(f"{step.part}:", *variables, shlex.join([python, *step.arguments]))
        return 0
    if args.json is None:
        arguments.error("--json is needed: the file that everything found goes to")
    logs = work / "logs"
    for folder in (plan.models, plan.engines, plan.found, logs, args.json.resolve().parent):
        folder.mkdir(parents=True, exist_ok=True)
    earlier = _earlier(args.json)
    if args.resume:
        steps = [step for step in steps if not _is_done(step, earlier.get(step.name, {}))]

    from bench.environment import environment_record

    environment = environment_record()
    record: dict[str, Any] = {
        "what": "engines, parity, latency, tests and baselines on one GPU",
        "environment": {**environment, "commit": args.commit or environment["commit"]},
        "nvidia_smi": _nvidia_smi(),
        "gflop_at_720x1280": GFLOP_AT_720P,
        "summary": {},
        "steps": earlier,
    }
    runner = process_runner(args.torch_python, args.torch_path, logs)
    passed = run_steps(
        steps,
        runner,
        record,
        lambda now: write_record(args.json, now),
        minutes=args.minutes,
    )
    print(json.dumps(record["summary"], indent=1))
    return 0 if passed else 1


def _earlier(path: Path) -> dict[str, Any]:
    """Entries of the steps of an earlier run into the same file."""
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text()).get("steps", {})
    return found


def _is_done(step: Step, entry: Mapping[str, Any]) -> bool:
    """Whether an earlier run did it, and what it made is still there."""
    there = step.product is None or step.product.exists()
    return there and entry.get("status") in ("ok", "kept")


if __name__ == "__main__":
    sys.exit(main())
