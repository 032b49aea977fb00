"""Feeds mutated files, values and servers to the package, and counts what happens.

make fuzz
PYTHONPATH=tools python -m fuzz --target manifest --first 117 --cases 1 --seed 0
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from bench.environment import check_writable, write_evidence
from fuzz.engine import Case, Result, run_cases
from fuzz.outcomes import GOOD, OUTCOMES, Outcome, Target
from fuzz.targets import all_targets
from runtime.cli.command import command_parser, run_command

FORMAT_VERSION = 1
_SHOWN = 20
"""Number of bad inputs of each target that are listed."""


def cases_of(
    targets: Sequence[Target], count: int, seed: int, *, first: int, until: float | None
) -> Iterator[Case]:
    """The inputs in random order, by the weights of the targets, until the time is over.

    Args:
        targets: The targets.
        count: Number of inputs.
        seed: Seed of the order.
        first: Number of the first input of each target.
        until: Time of time.monotonic() after which none starts; None for no limit.
    """
    rng = Random(seed)
    numbers: Counter[str] = Counter()
    weights = [target.weight for target in targets]
    for _ in range(count):
        if until is not None and time.monotonic() > until:
            return
        (target,) = rng.choices(targets, weights)
        yield target.name, first + numbers[target.name]
        numbers[target.name] += 1


def _fuzz(args: argparse.Namespace) -> int:
    if args.json is not None:
        check_writable(args.json, "--json")
    known = all_targets()
    targets = [one for one in known if not args.target or one.name in args.target]
    until = None if args.seconds is None else time.monotonic() + args.seconds
    cases = cases_of(targets, args.cases, args.seed, first=args.first, until=until)
    began = time.monotonic()
    counts: dict[str, Counter[Outcome]] = {target.name: Counter() for target in targets}
    bad: dict[str, list[Result]] = {target.name: [] for target in targets}
    for result in run_cases(cases, args.seed, workers=args.workers, find=all_targets):
        name, number = result.case
        counts[name][result.outcome] += 1
        if args.verbose and result.outcome == "refused":
            print(f"{name} {number}: refused: {result.detail[:300]}")
        if result.outcome not in GOOD:
            bad[name].append(result)
            print(f"{name} {number}: {result.outcome}: {result.detail[:300]}", flush=True)
    _print_table(counts)
    if args.json is not None:
        record = {
            "kind": "fuzz",
            "format_version": FORMAT_VERSION,
            "seed": args.seed,
            "seconds": round(time.monotonic() - began, 1),
            "targets": {
                name: {outcome: found[outcome] for outcome in OUTCOMES}
                for name, found in counts.items()
            },
            "bad": {
                name: [
                    {"number": one.case[1], "outcome": one.outcome, "detail": one.detail}
                    for one in found[:_SHOWN]
                ]
                for name, found in bad.items()
                if found
            },
        }
        write_evidence(args.json, record)
    return 1 if any(bad.values()) else 0


def _print_table(counts: dict[str, Counter[Outcome]]) -> None:
    width = max(map(len, counts))
    print(f"{'':{width}}  {'  '.join(f'{outcome:>9}' for outcome in OUTCOMES)}")
    for name, found in counts.items():
        print(f"{name:{width}}  {'  '.join(f'{found[outcome]:9}' for outcome in OUTCOMES)}")
    print(f"{sum(map(Counter.total, counts.values()))} inputs")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = command_parser("python -m fuzz", (__doc__ or "").partition("\n")[0], "%(prog)s")
    parser.add_argument("--target", nargs="+", metavar="NAME", help="only these targets")
    parser.add_argument("--cases", type=int, default=20_000, help="number of inputs")
    parser.add_argument("--seconds", type=float, help="start no input after this time")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    parser.add_argument("--workers", type=int, default=2, help="number of processes")
    parser.add_argument("--verbose", action="store_true", help="print refused inputs too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts as JSON")
    return parser


if __name__ == "__main__":
    run_command(make_parser(), _fuzz, extra="bench,cpu,export,openvino,video", argv=sys.argv[1:])
