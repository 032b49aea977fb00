"""Finds the places of a module that can be changed, and draws a sample of mutants.

The changes are those of cosmic-ray: an operator, a comparison, a number, a condition, a loop
without iterations, an exception that is not caught, a decorator that is gone.
"""

from __future__ import annotations

import ast
import difflib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

AREAS = ("ifrnet_model", "export", "runtime/backends", "runtime", "bench")
"""Folders of the product that are judged each on its own; a module belongs to the first that
contains it."""

_Position = tuple[int, int]


@dataclass(frozen=True)
class Mutant:
    """A change of one place.

    Attributes:
        path: Path of the module, relative to the checkout, with "/".
        line: Line of the place, from 1.
        operator: Name of the change in cosmic-ray.
        occurrence: Number of the place among those that the operator can change in the module.
    """

    path: str
    line: int
    operator: str
    occurrence: int

    def apply(self, source: str) -> str:
        """The source of the module with this change."""
        changed = mutate_code(source, _operator(self.operator), self.occurrence)
        assert changed is not None  # The place was found in the same source.
        return str(changed)

    def compiles(self, source: str) -> bool:
        """Whether the changed module is valid: cosmic-ray also changes the * of `f(*, a)`."""
        try:
            compile(self.apply(source), self.path, "exec", dont_inherit=True)
        except SyntaxError:
            return False
        return True

    def diff(self, source: str) -> list[str]:
        """The lines that change, with "-" and "+" in front."""
        lines = difflib.unified_diff(
            source.splitlines(), self.apply(source).splitlines(), lineterm="", n=0
        )
        return [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def mutants_of(path: str, source: str) -> list[list[Mutant]]:
    """The places of a module that can be changed, each as its alternative mutants.

    Places that have no effect at run time are left out: annotations, assertions (they inform the
    type checker), blocks under TYPE_CHECKING and the arguments of `dataclass`.

    Args:
        path: Path of the module, for the mutants.
        source: Its source.
    """
    without_effect = list(_without_effect(ast.parse(source)))
    nodes = list(ast_nodes(get_ast(source)))
    places: dict[tuple[_Position, str], list[Mutant]] = {}
    for name in _operators():
        operator = _operator(name)
        positions = (at for node in nodes for at in operator.mutation_positions(node))
        for occurrence, (start, end) in enumerate(positions):
            if any(first <= start and end <= last for first, last in without_effect):
                continue
            kind = name.partition("/")[2].partition("_")[0]
            places.setdefault((start, kind), []).append(Mutant(path, start[0], name, occurrence))
    return list(places.values())


def draw(
    places: Mapping[str, Sequence[Sequence[Mutant]]],
    count: int,
    seed: int,
    valid: Callable[[Mutant], bool],
) -> dict[str, list[Mutant]]:
    """A random sample: the same number of mutants in each area, one for each place drawn.

    Args:
        places: Area -> its places, from `mutants_of`.
        count: Number of mutants in all.
        seed: Seed of the sample.
        valid: Whether a mutant can be judged; others are not drawn.
    """
    sample = {}
    for number, (area, known) in enumerate(places.items()):
        share = count // len(places) + (number < count % len(places))
        rng = Random(f"{seed} {area}")
        drawn = (rng.choice(place) for place in rng.sample(known, len(known)))
        sample[area] = list(itertools.islice(filter(valid, drawn), share))
    return sample


def area_of(path: str) -> str:
    """The entry of AREAS that contains a module."""
    return next(area for area in AREAS if path.startswith(f"{area}/"))


def modules(root: Path, within: Iterable[str]) -> list[str]:
    """The modules of the product in a checkout, as sorted relative paths with "/".

    Args:
        root: Folder of the checkout.
        within: Beginnings of the paths that count; empty for all.
    """
    chosen = tuple(within)
    found = (
        path.relative_to(root).as_posix()
        for package in sorted({area.partition("/")[0] for area in AREAS})
        for path in (root / package).rglob("*.py")
    )
    return sorted(path for path in found if not chosen or path.startswith(chosen))


def _operators() -> list[str]:
    """The names of the changes that need no arguments."""
    return [name for name in operator_names() if not get_operator(name).arguments()]


def _operator(name: str) -> Any:
    return get_operator(name)()


def _without_effect(tree: ast.Module) -> Iterator[tuple[_Position, _Position]]:
    """Start and end (line from 1, column from 0) of code that has no effect at run time."""
    for node in ast.walk(tree):
        match node:
            case ast.arg(annotation=ast.expr() as part) | ast.AnnAssign(annotation=part):
                yield _span(part)
            case ast.FunctionDef(returns=ast.expr() as part):
                yield _span(part)
            case ast.Assert() | ast.If(test=ast.Name("TYPE_CHECKING")):
                yield _span(node)
            case ast.Call(func=ast.Name("dataclass")):
                yield _span(node)


def _span(node: ast.expr | ast.stmt) -> tuple[_Position, _Position]:
    assert node.end_lineno is not None  # Parsed nodes have an end.
    assert node.end_col_offset is not None
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
