"""Checks on one GPU what this project claims: builds, parity, speed, tests. Makes one JSON record.

Run it with the Python that has TensorRT; PyTorch may be in another one. The record is written
after each step: a run that is ended has what it did, and --resume does the rest. See docs/gpu.md.
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
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import gpu_check_steps as plan  # noqa: E402
from bench.environment import MeasurementError, check_writable, environment_record  # noqa: E402
from gpu_check_run import PROBES, Machine, run_steps  # noqa: E402
from gpu_check_steps import PARTS, Scale, Step  # noqa: E402
from gpu_check_summary import summary, table  # noqa: E402
from runtime.cli import command_parser, run_command  # noqa: E402
from runtime.files import written_beside  # noqa: E402
from runtime.machine import gpu_driver, loads_library  # noqa: E402

_RESERVE_S = 5.0
"""For the last record of a run."""

_PACK = """set -eo pipefail; rm -f models-*.part
tar -C "$0" --sort=name -c . | xz --lzma2=preset=6,dict=256MiB -c |
    split -b "$1" -d --additional-suffix=.part - models-
sha256sum models-*.part >models.sha256"""
"""The dictionary spans many graphs, because each holds the same weights again."""
UNPACK = "sha256sum -c models.sha256 && cat models-*.part | xz -dc | tar -xC DIR"


def check(args: argparse.Namespace) -> int:
    """Runs what was asked for; 1 if anything failed, 3 if steps are left."""
    started, scale = time.monotonic(), plan.QUICK if args.quick else Scale()
    asked = [*(args.part or ()), *(["smoke"] if args.smoke else [])]
    steps = [step for step in plan.planned(scale) if step.part in (asked or PARTS)]
    if args.plan:
        print_plan(steps)
        return 0
    machine = Machine(args, scale)
    if args.pack:
        return pack(args.pack, machine, plan.models_steps(scale))
    if args.json is None:
        raise MeasurementError("--json is missing: name the file that everything found goes to")
    check_writable(args.json, "--json")
    record = opened_record(args, scale)
    if args.resume:
        entries = record["steps"]
        steps = [step for step in steps if not is_done(step, entries.get(step.name, {}), machine)]
    if not args.models:
        steps = plan.with_models(steps, plan.models_steps(scale))
    check_pieces(steps, machine, record["runs"][-1])
    steps = plan.for_tensorrt(steps, record["runs"][-1]["probes"].get("tensorrt", "8."))

    def write() -> None:
        record["summary"] = summary(record["steps"], scale)
        text = json.dumps(record, indent=1).replace(f"{Path.home()}/", "~/")
        with written_beside(args.json) as beside:
            beside.write_text(text + "\n")

    seconds = started + 60 * args.minutes - _RESERVE_S - time.monotonic()
    run_steps(steps, machine, record, write, seconds=seconds)
    write()
    print(*table(record["summary"]), sep="\n")
    ended = [record["steps"][step.name]["status"] for step in steps if step.name in record["steps"]]
    if late := ended.count("out of time"):
        print(f"{late} steps are left for want of time: run the same again with --resume")
    return 1 if {"failed", "not run"} & {*ended} else 3 if late else 0


def is_done(step: Step, entry: dict[str, Any], machine: Machine) -> bool:
    """Whether an earlier run did it, and what it made is still there."""
    there = not step.makes or machine.path(step.makes).exists()
    return there and entry.get("status") == "done"


def print_plan(steps: Sequence[Step]) -> None:
    """Every step with its seconds and what it proves."""
    for part, meaning in PARTS.items():
        of_part = [step for step in steps if step.part == part]
        seconds = sum(step.seconds for step in of_part if not step.name.startswith("matrix"))
        print(*([f"\n{part}: {meaning}; {seconds:.0f} s"] if of_part else []), sep="")
        for step in of_part:
            proves = plan.PROVES[step.name.partition("_")[0]]
            print(f"{step.seconds:6.0f} s  {step.name:<45} {proves}")


def opened_record(args: argparse.Namespace, scale: Scale) -> dict[str, Any]:
    """The record of --json with this run in it; refuses that of another GPU, commit or scale."""
    environment = environment_record()
    environment["commit"] = args.commit or environment["commit"]
    same = [environment["gpu"], environment["commit"], [*map(str, scale)]]
    weights = {"base": "RANDOM, for speed and parity only", "small": "the demo weights"}
    record: dict[str, Any] = {"of": same, "weights": weights}
    record |= {"summary": [], "runs": [], "steps": {}}
    if args.json.exists():
        try:
            record = json.loads(args.json.read_text())
            known = record["of"] == same
        except (ValueError, LookupError, TypeError):
            known = False
        if not known:
            raise MeasurementError(
                f"{args.json} is no record of this GPU, commit and scale: name a new file"
            )
    libraries = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
    disk = shutil.disk_usage(args.json.resolve().parent).free / 2**30
    run = {"environment": environment, "disk_free_gib": disk}
    record["runs"].append({**run, "libcudart": [name for name in libraries if loads_library(name)]})
    return record


def check_pieces(steps: Sequence[Step], machine: Machine, run: dict[str, Any]) -> None:
    """Raises MeasurementError with the remedy for what the steps lack: files, a GPU, packages."""
    made = {step.makes for step in steps}
    wanted = {name for step in steps for name in step.needs if name.startswith("MODELS/")}
    if missing := sorted(name for name in wanted - made if not machine.path(name).exists()):
        raise MeasurementError(
            f"{machine.models} lacks {len(missing)} files, {missing[0][7:]} first: unpack there "
            "what --pack made of this version, or leave out --models to export them here"
        )
    if problem := gpu_driver().problem:
        raise MeasurementError(f"{problem}: run this where an NVIDIA GPU is, or see --plan")
    run["probes"] = {}
    for part in dict.fromkeys(step.part for step in steps):
        needed = (part,) if part in plan.IN_TORCH_PYTHON else ("tensorrt", part)
        for name in needed:
            if name in PROBES and name not in run["probes"]:
                run["probes"][name] = machine.probe(name)


def pack(folder: Path, machine: Machine, steps: Sequence[Step]) -> int:
    """Makes all models, then one compressed tar of them in parts, with a list of hashes."""
    machine.probe("models")
    record: dict[str, Any] = {"steps": {}, "runs": []}
    run_steps(steps, machine, record, lambda: None, seconds=float("inf"))
    if any(entry["status"] != "done" for entry in record["steps"].values()):
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    compress(machine.models, folder, "50M")
    print("the weights of base are RANDOM: for speed and parity, not for quality")
    print(f"unpack in that folder: {UNPACK}")
    return 0


def compress(models: Path, folder: Path, part: str) -> None:
    """All files of `models` in parts of this size, as of split(1), with a list of hashes."""
    subprocess.run(["bash", "-c", _PACK, models.resolve(), part], cwd=folder, check=True)


def arguments() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = command_parser(
        "python tools/gpu_check.py",
        "Checks on one GPU what this project claims; see docs/gpu.md.",
        "python tools/gpu_check.py --minutes 90 --json gpu.json",
        "python tools/gpu_check.py --part A B --models MODELS --resume --json gpu.json",
    )
    flag = {"action": "store_true"}
    add = parser.add_argument
    add("--plan", **flag, help="print the steps, with seconds and what each proves; runs nothing")
    add("--pack", type=Path, metavar="DIR", help="make what a machine without PyTorch needs")
    add("--smoke", **flag, help="as --part smoke: does TensorRT work here")
    add("--part", nargs="+", choices=tuple(PARTS), help="of --plan (default: all)")
    add("--models", type=Path, metavar="DIR", help="an unpacked pack (default: exported here)")
    add("--minutes", type=float, default=9.0, metavar="N", help="all of it (default 9)")
    add("--resume", **flag, help="leave out the steps that --json has as done")
    add("--json", type=Path, metavar="FILE", help="the record")
    work = ROOT / "build" / "gpu"
    add("--work", type=Path, default=work, metavar="DIR", help="engines, logs (build/gpu)")
    add("--torch-python", default=sys.executable, metavar="PYTHON", help="has PyTorch (this one)")
    add("--torch-path", default="", metavar="DIRS", help="PYTHONPATH of --torch-python")
    add("--commit", metavar="HASH", help="of a copy that is no git checkout")
    add("--quick", **flag, help="tiny frames: tries the check itself, no figure of it counts")
    return parser


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run_command(arguments(), check, extra="tensorrt,cpu,build", argv=argv)


if __name__ == "__main__":
    main()
