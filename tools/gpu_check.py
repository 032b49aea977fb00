"""Checks builds, parity, speed and tests on one GPU, and writes one JSON record.

Run it with the Python that has TensorRT; PyTorch may be in another one. The record is written after
each step, so an interrupted run loses nothing and --resume continues it. See docs/gpu.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import gpu_check_steps as plan  # noqa: E402
from bench.environment import MeasurementError, check_writable, environment_record  # noqa: E402
from gpu_check_run import PROBES, StepRunner, run_steps  # noqa: E402
from gpu_check_steps import PARTS, Scale, Step  # noqa: E402
from gpu_check_summary import summary, table  # noqa: E402
from runtime.cli.command import command_parser, run_command  # noqa: E402
from runtime.files import written_beside  # noqa: E402
from runtime.machine import gpu_driver, loads_library  # noqa: E402

_RESERVE_S = 5.0
"""Seconds for writing the record at the end of a run."""

_PACK = """set -eo pipefail; rm -f models-*.part
tar -C "$0" --sort=name -c . | xz --lzma2=preset=6,dict=256MiB -c |
    split -b "$1" -d --additional-suffix=.part - models-
sha256sum models-*.part >models.sha256"""
"""The dictionary of xz spans many graphs, because all of them hold the same weights."""
UNPACK = "sha256sum -c models.sha256 && cat models-*.part | xz -dc | tar -xC DIR"


def check(args: argparse.Namespace) -> int:
    """Runs the selected steps.

    Returns:
        The exit code: 1 if a step failed or could not run, 3 if steps are left, else 0.

    Raises:
        MeasurementError: If the record cannot be written, or a requirement is missing.
    """
    started, scale = time.monotonic(), plan.QUICK if args.quick else Scale()
    parts = [*(args.part or ()), *(["smoke"] if args.smoke else [])]
    steps = [step for step in plan.planned(scale) if step.part in (parts or PARTS)]
    if args.step:
        steps = matching(steps, args.step)
    if args.plan:
        print_plan(steps)
        return 0
    runner = StepRunner(args, scale)
    if args.pack:
        return pack(args.pack, runner, plan.models_steps(scale))
    if args.json is None:
        raise MeasurementError("--json is missing: name the file of the record")
    check_writable(args.json, "--json")
    record = open_record(args, scale)
    if args.resume:
        entries = record["steps"]
        steps = [step for step in steps if not is_done(step, entries.get(step.name, {}), runner)]
    if not args.models:
        steps = plan.with_models(steps, plan.models_steps(scale))
    check_requirements(steps, runner, record["runs"][-1])
    steps = plan.for_tensorrt(steps, record["runs"][-1]["probes"].get("tensorrt", "8."))

    def write() -> None:
        record["summary"] = summary(record["steps"], scale)
        text = json.dumps(record, indent=1).replace(f"{Path.home()}/", "~/")
        with written_beside(args.json) as temporary:
            temporary.write_text(text + "\n")

    seconds = started + 60 * args.minutes - _RESERVE_S - time.monotonic()
    run_steps(steps, runner, record, write, seconds=seconds)
    write()
    print(*table(record["summary"]), sep="\n")
    entries = record["steps"]
    statuses = [entries[step.name]["status"] for step in steps if step.name in entries]
    if left := statuses.count("out of time"):
        print(f"steps that did not fit into --minutes: {left}; run the same command with --resume")
    return 1 if {"failed", "not run"} & {*statuses} else 3 if left else 0


def is_done(step: Step, entry: dict[str, Any], runner: StepRunner) -> bool:
    """Whether the record has a step as done, and the file that it makes exists."""
    exists = not step.makes or runner.path(step.makes).exists()
    return exists and entry.get("status") == "done"


def matching(steps: Sequence[Step], patterns: Sequence[str]) -> list[Step]:
    """The steps whose names match one of the shell patterns, in the order of the patterns.

    Raises:
        MeasurementError: If a pattern matches none.
    """
    found: dict[str, Step] = {}
    for pattern in patterns:
        matched = [step for step in steps if fnmatchcase(step.name, pattern)]
        if not matched:
            raise MeasurementError(
                f"--step {pattern} matches no step: --plan shows their names, and --part selects "
                "the parts"
            )
        for step in matched:
            found.setdefault(step.name, step)
    return [*found.values()]


def print_plan(steps: Sequence[Step]) -> None:
    """Prints each step with its predicted seconds and what it proves."""
    for part, meaning in PARTS.items():
        of_part = [step for step in steps if step.part == part]
        seconds = sum(step.seconds for step in of_part if not step.name.startswith("matrix"))
        print(*([f"\n{part} ({seconds:.0f} s): {meaning}"] if of_part else []), sep="")
        for step in of_part:
            proves = plan.PROVES[step.name.partition("_")[0]]
            print(f"{step.seconds:6.0f} s  {step.name:<45} {proves}")


def open_record(args: argparse.Namespace, scale: Scale) -> dict[str, Any]:
    """Reads the record of --json, or starts one, and adds this run to it.

    Raises:
        MeasurementError: If the file is not a record of this GPU, commit and scale.
    """
    environment = environment_record()
    environment["commit"] = args.commit or environment["commit"]
    identity = [environment["gpu"], environment["commit"], [*map(str, scale)]]
    weights = {"base": "RANDOM, for speed and parity only", "small": "the demo weights"}
    record: dict[str, Any] = {"of": identity, "weights": weights}
    record |= {"summary": [], "runs": [], "steps": {}}
    if args.json.exists():
        try:
            record = json.loads(args.json.read_text())
            matches = record["of"] == identity
        except (ValueError, LookupError, TypeError):
            matches = False
        if not matches:
            raise MeasurementError(
                f"{args.json} is not a record of this GPU, commit and scale: name a new file"
            )
    libraries = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
    disk = shutil.disk_usage(args.json.resolve().parent).free / 2**30
    run = {"environment": environment, "disk_free_gib": disk}
    record["runs"].append({**run, "libcudart": [name for name in libraries if loads_library(name)]})
    return record


def check_requirements(steps: Sequence[Step], runner: StepRunner, run: dict[str, Any]) -> None:
    """Checks that steps have their files, a GPU and packages; adds the "probes" to `run`.

    Raises:
        MeasurementError: If one is missing; the message has the remedy.
    """
    made = {step.makes for step in steps}
    needed = {name for step in steps for name in step.needs if name.startswith("MODELS/")}
    if missing := sorted(name for name in needed - made if not runner.path(name).exists()):
        raise MeasurementError(
            f"{runner.models} lacks {len(missing)} files, first {missing[0][7:]}: unpack a pack of "
            "this version there, or leave out --models to export them here"
        )
    if problem := gpu_driver().problem:
        raise MeasurementError(
            f"{problem}: run this on a machine with an NVIDIA GPU, or use --plan"
        )
    run["probes"] = {}
    for part in dict.fromkeys(step.part for step in steps):
        names = (part,) if part in plan.IN_TORCH_PYTHON else ("tensorrt", part)
        for name in names:
            if name in PROBES and name not in run["probes"]:
                run["probes"][name] = runner.probe(name)


def pack(folder: Path, runner: StepRunner, steps: Sequence[Step]) -> int:
    """Makes all models, and packs them into `folder`; returns the exit code."""
    runner.probe("models")
    record: dict[str, Any] = {"steps": {}, "runs": []}
    run_steps(steps, runner, record, lambda: None, seconds=float("inf"))
    if any(entry["status"] != "done" for entry in record["steps"].values()):
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    compress(runner.models, folder, "50M")
    print("the weights of base are RANDOM: use them for speed and parity, not for quality")
    print(f"command that unpacks the models, to be run in {folder}: {UNPACK}")
    return 0


def compress(models: Path, folder: Path, part: str) -> None:
    """Writes a compressed tar of `models` to `folder`, and a list of hashes.

    The tar is split into parts of size `part`, as split(1) takes it, for example "50M".
    """
    subprocess.run(["bash", "-c", _PACK, models.resolve(), part], cwd=folder, check=True)


def arguments() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = command_parser(
        "python tools/gpu_check.py",
        "Checks builds, parity, speed and tests on one GPU; see docs/gpu.md.",
        "python tools/gpu_check.py --minutes 90 --json gpu.json",
        "python tools/gpu_check.py --part A B --models MODELS --resume --json gpu.json",
    )
    flag = {"action": "store_true"}
    add = parser.add_argument
    add(
        "--plan",
        **flag,
        help="print the steps, the seconds that each takes and what it shows, and exit",
    )
    add(
        "--pack",
        type=Path,
        metavar="DIR",
        help="export the models and pack them into DIR, for a machine without PyTorch",
    )
    add("--smoke", **flag, help="check that TensorRT works; the same as --part smoke")
    add("--part", nargs="+", choices=tuple(PARTS), help="the parts to run (default: all)")
    add(
        "--step",
        nargs="+",
        metavar="PATTERN",
        help="run only the steps whose names match, for example 'build_*'",
    )
    add(
        "--models",
        type=Path,
        metavar="DIR",
        help="folder with unpacked models (default: export them)",
    )
    add("--minutes", type=float, default=9.0, metavar="N", help="time limit in minutes (default 9)")
    add("--resume", **flag, help="skip the steps that the record of --json has as done")
    add("--json", type=Path, metavar="FILE", help="file for the record of the check")
    work = ROOT / "build" / "gpu"
    add(
        "--work",
        type=Path,
        default=work,
        metavar="DIR",
        help="folder for engines and logs (default: build/gpu)",
    )
    add(
        "--torch-python",
        default=sys.executable,
        metavar="PYTHON",
        help="Python that has PyTorch (default: this one)",
    )
    add("--torch-path", default="", metavar="DIRS", help="PYTHONPATH of --torch-python")
    add("--commit", metavar="HASH", help="commit of the sources, if they are not a git checkout")
    add(
        "--quick", **flag, help="use tiny frames, to try the check itself; its results mean nothing"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run_command(arguments(), check, extra="tensorrt,cpu,build", argv=argv)


if __name__ == "__main__":
    main()
