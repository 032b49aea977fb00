"""Tables between the markers of a README."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bench.environment import MeasurementError
from bench.report.text import Table, markdown_table

_BLOCK = re.compile(
    r"(?P<start><!--\s*report:(?P<name>[^\s>]*)\s*-->)(?P<table>.*?)(?P<end><!--\s*/report\s*-->)",
    re.DOTALL,
)
_MARKER = re.compile(r"<!--\s*(?:report:[^\s>]*|/report)\s*-->")


def with_tables(text: str, tables: Mapping[str, Table], *, where: str) -> tuple[str, list[str]]:
    """Puts tables between their markers, <!-- report:NAME --> and <!-- /report -->.

    Args:
        text: Text of a README.
        tables: Tables by name.
        where: Name of the text in an error.

    Returns:
        The text, and the names of the tables that differ from what stood there.

    Raises:
        MeasurementError: If there is no marker, one has no counterpart, or one asks for a table
            that is not in `tables`.
    """
    changed = []

    def renewed(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in tables:
            raise MeasurementError(
                f"{where} asks for the table {name!r}, but the files given have "
                f"{', '.join(tables)}: give evidence for it, or take the marker out"
            )
        made = f"\n\n{markdown_table(tables[name])}\n"
        if found["table"] != made:
            changed.append(name)
        return found["start"] + made + found["end"]

    if len(_MARKER.findall(text)) != 2 * len(_BLOCK.findall(text)) or not _BLOCK.search(text):
        raise MeasurementError(
            f"{where} has no markers, or one without its counterpart: write "
            "<!-- report:NAME --> and <!-- /report --> where a table is to stand"
        )
    return _BLOCK.sub(renewed, text), changed
