"""Tables between the markers of a README."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bench.environment import MeasurementError
from bench.report.text import Table, markdown_table

TABLE_NAMES = ("parity", "latency", "roofline")

_MARKER = re.compile(r"<!--\s*(?:report:(?P<name>[^\s>]*)|/report)\s*-->")


def with_tables(text: str, tables: Mapping[str, Table], *, where: str) -> tuple[str, list[str]]:
    """Puts tables between their markers, <!-- report:NAME --> and <!-- /report -->.

    Args:
        text: Of a README.
        tables: By name.
        where: What to call the text in an error.

    Returns:
        The text, and the names of the tables that differ from what stood there.

    Raises:
        MeasurementError: If there is no marker, one has no counterpart, or one asks for a table
            that is not known or that there is no evidence for.
    """
    pieces, changed, end = [], [], 0
    markers = list(_MARKER.finditer(text))
    if not markers:
        raise MeasurementError(
            f"{where} has no marker: write <!-- report:{TABLE_NAMES[0]} --> and <!-- /report --> "
            "where the table is to stand"
        )
    for start, stop in zip(markers[::2], [*markers[1::2], None], strict=False):
        name = _checked_pair(start, stop, tables, where)
        assert stop is not None
        made = f"\n\n{markdown_table(tables[name])}\n"
        if text[start.end() : stop.start()] != made:
            changed.append(name)
        pieces += [text[end : start.end()], made]
        end = stop.start()
    return "".join([*pieces, text[end:]]), changed


def _checked_pair(
    start: re.Match[str], stop: re.Match[str] | None, tables: Mapping[str, Table], where: str
) -> str:
    name = start["name"]
    if name is None:
        raise MeasurementError(
            f"{where} has <!-- /report --> with no marker before it: write <!-- report:NAME -->"
        )
    if name not in TABLE_NAMES:
        raise MeasurementError(
            f"{where} asks for the table {name!r}, which is not known: "
            f"write one of {', '.join(TABLE_NAMES)}"
        )
    if stop is None or stop["name"] is not None:
        raise MeasurementError(
            f"{where} has <!-- report:{name} --> with no end: write <!-- /report --> after it"
        )
    if name not in tables:
        raise MeasurementError(
            f"{where} asks for the table {name!r}, but nothing of that was measured in the files "
            "given: give such evidence, or take the marker out"
        )
    return name
