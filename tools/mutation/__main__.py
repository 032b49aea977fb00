"""Changes the product in small ways, and counts the changes that its tests do not notice.

make mutate
PYTHONPATH=tools python -m mutation --within export/gate --sample 40 --seed 7
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from bench.environment import MeasurementError, check_writable, write_evidence
from mutation.mutants import Mutant, area_of, draw, modules, mutants_of
from mutation.runs import MutationError, Outcome, Verdict, copies, failing, judge, mirror, record
from mutation.selection import select_tests
from runtime.cli.command import command_parser, run_command

FORMAT_VERSION = 1
ROOT = Path(__file__).resolve().parents[2]

_SLOWER = 5.0
"""A mutant is a timeout after this many times the time of its tests on the unchanged product."""
_SPARE_S = 60.0


def _mutate(args: argparse.Namespace) -> None:
    for option in ("json", "resume"):
        if (path := getattr(args, option)) is not None:
            check_writable(path, f"--{option}")
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
    sample = draw(places, args.sample, args.seed, lambda mutant: mutant.compiles(_source(mutant)))
    mutants = [mutant for found in sample.values() for mutant in found]
    began = time.monotonic()
    verdicts = _judge_all(mutants, args.workers, args.resume)
    counts = {
        area: Counter(verdicts[mutant].outcome for mutant in found)
        for area, found in sample.items()
    }
    _print_score(counts)
    if args.json is not None:
        evidence = {
            "kind": "mutation",
            "format_version": FORMAT_VERSION,
            "seed": args.seed,
            "seconds": round(time.monotonic() - began, 1),
            "areas": {area: dict(found) for area, found in counts.items()},
            "mutants": [_record(mutant, verdicts[mutant]) for mutant in mutants],
        }
        write_evidence(args.json, evidence)


def _judge_all(
    mutants: Sequence[Mutant], workers: int, resume: Path | None
) -> dict[Mutant, Verdict]:
    """Judges mutants in several copies of the checkout, and prints each verdict.

    Args:
        mutants: The mutants.
        workers: Number of copies, and of processes in which tests run.
        resume: File of verdicts, one JSON object in each line, for those of an earlier run; new
            ones are appended. None for no file.
    """
    mirrored = {path: mirror(ROOT, path) for path in {mutant.path for mutant in mutants}}
    verdicts = _known(resume, mutants) if resume is not None else {}
    with (
        tempfile.TemporaryDirectory(prefix="exports-") as folder,
        copies(ROOT, workers) as made,
        ThreadPoolExecutor(workers) as pool,
    ):
        exports, free = Path(folder), SimpleQueue[Path]()
        for copy in made:
            free.put(copy)
        files = sorted({file for found in mirrored.values() for file in found})
        print(f"{len(files)} test files on the unchanged product ...", flush=True)
        recorded = record(made[0], files, exports, workers)

        def judged(mutant: Mutant) -> Verdict:
            tests = select_tests(mutant, _source(mutant), recorded, mirrored[mutant.path])
            limit = _SPARE_S + _SLOWER * sum(recorded.seconds[test] for test in tests)
            copy = free.get()
            try:
                return judge(mutant, copy, tests, exports, limit)
            finally:
                free.put(copy)

        left = [mutant for mutant in mutants if mutant not in verdicts]
        started = {pool.submit(judged, mutant): mutant for mutant in left}
        try:
            for done in as_completed(started):
                mutant, verdict = started[done], done.result()
                verdicts[mutant] = verdict
                _print_verdict(mutant, verdict, f"{len(verdicts)} of {len(mutants)}")
                if resume is not None:
                    with resume.open("a", encoding="utf-8") as file:
                        print(json.dumps(_record(mutant, verdict)), file=file)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # Else the others are judged first.
            raise
        tests = sorted({found.test for found in verdicts.values() if "::" in found.test})
        wrong = failing(made[0], tests, exports) if tests else set()
    for mutant, verdict in verdicts.items():
        if verdict.test in wrong:
            verdicts[mutant] = Verdict("survived", "")
            _print_verdict(mutant, verdicts[mutant], f"{verdict.test} fails without a change")
    return verdicts


def _known(path: Path, mutants: Sequence[Mutant]) -> dict[Mutant, Verdict]:
    """The verdicts of a file on those of the mutants that it has, with the same change."""
    found = {}
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            one = json.loads(line)
            verdict = Verdict(one.pop("outcome"), one.pop("test"))
            found[json.dumps(one)] = verdict
    keys = {mutant: json.dumps(_change(mutant)) for mutant in mutants}
    return {mutant: found[key] for mutant, key in keys.items() if key in found}


def _print_verdict(mutant: Mutant, verdict: Verdict, label: str) -> None:
    text = f"{label}: {mutant.path}:{mutant.line}: {verdict.outcome} {verdict.test}".rstrip()
    diff = _diff(mutant) if verdict.outcome == "survived" else ()
    print(text, *diff, sep="\n  ", flush=True)


def _record(mutant: Mutant, verdict: Verdict) -> dict[str, Any]:
    return {**_change(mutant), "outcome": verdict.outcome, "test": verdict.test}


def _change(mutant: Mutant) -> dict[str, Any]:
    """The part of a record that says which change it is about."""
    return {
        "module": mutant.path,
        "line": mutant.line,
        "operator": mutant.operator,
        "diff": _diff(mutant),
    }


def _diff(mutant: Mutant) -> list[str]:
    return mutant.diff(_source(mutant))


def _source(mutant: Mutant) -> str:
    return (ROOT / mutant.path).read_text("utf-8")


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
    parser.add_argument(
        "--resume", type=Path, metavar="FILE",
        help="file of verdicts of a run that was stopped; new ones are appended",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    return parser


if __name__ == "__main__":
    run_command(
        make_parser(), _mutate, extra="bench,dev", expected=(MutationError,), argv=sys.argv[1:]
    )
