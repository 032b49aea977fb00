"""Changes the product in small ways, and counts the changes that its tests do not notice.

make mutate
PYTHONPATH=tools python -m mutation --within export/gate --sample 40 --seed 7
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from bench.environment import MeasurementError, check_writable, write_evidence
from mutation.mutants import Mutant, area_of, draw, modules, mutants_of
from mutation.runs import MutationError, Outcome, Verdict, copies, judge, mirror, seconds_of
from runtime.cli.command import command_parser, run_command

FORMAT_VERSION = 1
ROOT = Path(__file__).resolve().parents[2]

_SLOWER = 5.0
"""A mutant is a timeout after this many times the time of its tests on the unchanged product."""
_SPARE_S = 60.0

Result = TypeVar("Result")


def _mutate(args: argparse.Namespace) -> None:
    if args.json is not None:
        check_writable(args.json, "--json")
    places: dict[str, list[list[Mutant]]] = {}
    for path in modules(ROOT, args.within):
        if found := mutants_of(path, (ROOT / path).read_text("utf-8")):
            places.setdefault(area_of(path), []).extend(found)
    if not places:
        raise MeasurementError(
            f"--within names no module that can be changed: {', '.join(args.within)}; give paths "
            "such as export/gate"
        )
    for option, value, least in (
        ("--sample", args.sample, len(places)),
        ("--workers", args.workers, 1),
    ):
        if value < least:
            raise MeasurementError(f"{option} is {value}: use {least} or more")
    sample = draw(places, args.sample, args.seed)
    mutants = [mutant for found in sample.values() for mutant in found]
    began = time.monotonic()
    verdicts: dict[Mutant, Verdict] = {}
    for mutant, verdict in _judged(mutants, args.workers):
        verdicts[mutant] = verdict
        print(
            f"{len(verdicts)} of {len(mutants)}: {mutant.path}:{mutant.line}: "
            f"{verdict.outcome} {verdict.test}".rstrip(),
            *(_diff(mutant) if verdict.outcome == "survived" else ()),
            sep="\n  ",
            flush=True,
        )
    counts = {
        area: Counter(verdicts[mutant].outcome for mutant in found)
        for area, found in sample.items()
    }
    _print_score(counts)
    if args.json is not None:
        record = {
            "kind": "mutation",
            "format_version": FORMAT_VERSION,
            "seed": args.seed,
            "seconds": round(time.monotonic() - began, 1),
            "areas": {area: dict(found) for area, found in counts.items()},
            "mutants": [_record(mutant, verdicts[mutant]) for mutant in mutants],
        }
        write_evidence(args.json, record)


def _judged(mutants: Sequence[Mutant], workers: int) -> Iterator[tuple[Mutant, Verdict]]:
    """Judges mutants in several copies of the checkout; yields each when its tests end."""
    tests = {path: mirror(ROOT, path) for path in {mutant.path for mutant in mutants}}
    with (
        tempfile.TemporaryDirectory(prefix="exports-") as folder,
        copies(ROOT, workers) as made,
        ThreadPoolExecutor(workers) as pool,
    ):
        exports, free = Path(folder), SimpleQueue[Path]()
        for copy in made:
            free.put(copy)

        def in_a_copy(run: Callable[[Path], Result]) -> Result:
            copy = free.get()
            try:
                return run(copy)
            finally:
                free.put(copy)

        files = sorted({file for found in tests.values() for file in found})
        print(f"{len(files)} test files on the unchanged product ...", flush=True)
        seconds = in_a_copy(lambda copy: seconds_of(copy, files, exports, workers))

        def judged(mutant: Mutant) -> Verdict:
            found = tests[mutant.path]
            limit = _SPARE_S + _SLOWER * sum(seconds[file] for file in found)
            return in_a_copy(lambda copy: judge(mutant, copy, found, exports, limit))

        started = {pool.submit(judged, mutant): mutant for mutant in mutants}
        for done in as_completed(started):
            yield started[done], done.result()


def _record(mutant: Mutant, verdict: Verdict) -> dict[str, object]:
    return {
        "module": mutant.path,
        "line": mutant.line,
        "operator": mutant.operator,
        "diff": _diff(mutant),
        "outcome": verdict.outcome,
        "test": verdict.test,
    }


def _diff(mutant: Mutant) -> list[str]:
    return mutant.diff((ROOT / mutant.path).read_text("utf-8"))


def _print_score(counts: Mapping[str, Counter[Outcome]]) -> None:
    print()
    total: Counter[Outcome] = Counter()
    for area, found in [*counts.items(), ("all", total)]:
        total.update(found if found is not total else {})
        noticed = found.total() - found["survived"]
        print(f"{area:16} {noticed:4} of {found.total():4} noticed, {noticed / found.total():.0%}")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = command_parser("python -m mutation", (__doc__ or "").partition("\n")[0], "%(prog)s")
    parser.add_argument("--sample", type=int, default=200, help="number of changes")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument(
        "--within", nargs="+", default=[], metavar="PATH", help="only modules below these paths"
    )
    parser.add_argument("--workers", type=int, default=2, help="number of processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    return parser


if __name__ == "__main__":
    run_command(
        make_parser(), _mutate, extra="bench,dev", expected=(MutationError,), argv=sys.argv[1:]
    )
