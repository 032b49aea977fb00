"""Finds the tests that can notice a mutant: those that execute its line."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coverage import CoverageData

from mutation.mutants import Mutant

_LONGEST_S = 120.0
"""The slowest tests of a mutant are left out if all together take longer without a change."""


@dataclass(frozen=True)
class Recorded:
    """What each test does on the unchanged product.

    Attributes:
        seconds: Test -> its time.
        processes: The tests that start processes, whose lines are not known.
        lines: Module -> line -> the tests that execute it; "" stands for the import.
    """

    seconds: Mapping[str, float]
    processes: frozenset[str]
    lines: Mapping[str, Mapping[int, Sequence[str]]]


def read_record(folder: Path, root: Path) -> Recorded:
    """Reads what `mutation.recorder` wrote.

    Args:
        folder: Folder of the results.
        root: Folder of the checkout in which the tests ran.
    """
    seconds: dict[str, float] = {}
    processes: set[str] = set()
    for file in folder.glob("tests.*.json"):
        found = json.loads(file.read_text("utf-8"))
        seconds.update(found["seconds"])
        processes.update(found["processes"])
    lines: dict[str, dict[int, list[str]]] = {}
    for file in folder.glob("lines.*"):
        data = CoverageData(str(file))
        data.read()
        for module in data.measured_files():
            known = lines.setdefault(Path(module).relative_to(root).as_posix(), {})
            for line, tests in data.contexts_by_lineno(module).items():
                known.setdefault(line, []).extend(tests)
    return Recorded(seconds, frozenset(processes), lines)


def select_tests(
    mutant: Mutant, source: str, recorded: Recorded, mirrored: Sequence[str]
) -> list[str]:
    """The tests that can notice a mutant, those of the nearest test files first.

    They are the tests that execute its statement, and those of the mirrored files that start
    processes. A statement that runs when the module is imported has all tests of these files.

    Args:
        mutant: The mutant.
        source: The source of its module.
        recorded: What each test does.
        mirrored: The test files of the module, from `mirror`.
    """
    known = recorded.lines.get(mutant.path, {})
    tests = {test for line in statement_lines(source, mutant.line) for test in known.get(line, ())}
    files = {file: place for place, file in enumerate(mirrored)}

    def place(test: str) -> tuple[bool, int, float]:
        own = files.get(_file(test), len(files))
        return test not in tests, own, recorded.seconds[test]

    imported = "" in tests
    tests.discard("")
    usable = [
        test
        for test in recorded.seconds
        if test in tests or (_file(test) in files and (imported or test in recorded.processes))
    ]
    return _affordable(sorted(usable, key=place), recorded.seconds)


def statement_lines(source: str, line: int) -> range:
    """The lines of the innermost statement at a line; of one with a body, those of its head."""
    found = range(line, line + 1)
    for node in ast.walk(ast.parse(source)):  # Outer nodes first.
        if not isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
            continue
        first, last = _span(node)
        if first <= line <= last:
            found = range(first, last + 1)
    return found


def _span(node: ast.stmt | ast.ExceptHandler | ast.match_case) -> tuple[int, int]:
    """The first and the last line of a statement without its body."""
    if isinstance(node, ast.match_case):
        return node.pattern.lineno, node.body[0].lineno - 1
    decorators = getattr(node, "decorator_list", ())
    first = min([node.lineno, *(one.lineno for one in decorators)])
    assert node.end_lineno is not None  # Parsed nodes have an end.
    inside: list[ast.stmt | ast.match_case] = getattr(node, "body", []) or getattr(
        node, "cases", []
    )
    if not inside:
        return first, node.end_lineno
    start = inside[0].pattern if isinstance(inside[0], ast.match_case) else inside[0]
    return first, max(node.lineno, start.lineno - 1)


def _file(test: str) -> str:
    return test.partition("::")[0]


def _affordable(tests: Iterable[str], seconds: Mapping[str, float]) -> list[str]:
    """The tests without the slowest ones, in the same order."""
    ordered, total = list(tests), 0.0
    kept: set[str] = set()
    for test in sorted(ordered, key=lambda test: seconds[test]):
        total += seconds[test]
        if kept and total > _LONGEST_S:
            break
        kept.add(test)
    return [test for test in ordered if test in kept]
