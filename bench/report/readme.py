"""Tables between markers in Markdown files."""

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
        text: Markdown.
        tables: Tables by name.
        where: Name of the text in an error.

    Returns:
        The new text, and the names of the tables that differ from those in `text`.

    Raises:
        MeasurementError: If there is no marker, one has no counterpart, or one names a table that
            is not in `tables`.
    """
    changed = []

    def renewed(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in tables:
            raise MeasurementError(
                f"{where} has a marker for the table {name!r}, but the evidence gives only "
                f"{', '.join(tables)}: give evidence for this table, or remove the marker"
            )
        table = f"\n\n{markdown_table(tables[name])}\n"
        if found["table"] != table:
            changed.append(name)
        return found["start"] + table + found["end"]

    if len(_MARKER.findall(text)) != 2 * len(_BLOCK.findall(text)) or not _BLOCK.search(text):
        raise MeasurementError(
            f"{where} has no markers, or a marker without its counterpart: write "
            "<!-- report:NAME --> and <!-- /report --> around each table"
        )
    return _BLOCK.sub(renewed, text), changed
