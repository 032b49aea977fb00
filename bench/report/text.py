"""Tables of a report: rows, marks of notes, formatted numbers, Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

NONE = "-"
"""The cell of a figure that does not exist or has no meaning."""

RANDOM = "*"
"""Marks random weights."""

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_TEXT_COLUMNS = {
    "data set", "size", "variant", "precision", "I/O", "compared", "artefact", "run", "machine",
    "method", "versions", "commit", "weights", "files",
}  # fmt: skip


@dataclass
class Table:
    """Rows by column title; every row has the same titles.

    Attributes:
        name: Its name in the markers of a Markdown file.
        title: Its heading.
        rows: Cells, not escaped, with the marks of notes at their ends.
        notes: Sentence by mark.
        sources: Sentences: what was measured, on which machine, and the names of the files.
    """

    name: str
    title: str
    rows: list[dict[str, str]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """The titles of the columns that are not empty in every row."""
        return [title for title in self.rows[0] if any(row[title] for row in self.rows)]

    def is_number(self, column: str) -> bool:
        """Whether a column has numbers, which are aligned to the right."""
        return column not in _TEXT_COLUMNS

    def marked(self, cell: str, sentences: Iterable[str]) -> str:
        """Adds notes to the table, each once, and returns the cell followed by their marks."""
        for sentence in sentences:
            mark = next((mark for mark, known in self.notes.items() if known == sentence), None)
            if mark is None:
                mark = superscript(1 + sum(known != RANDOM for known in self.notes))
                self.notes[mark] = sentence
            cell += f" {mark}"
        return cell


def markdown_table(table: Table) -> str:
    """A table with its notes and sources, a paragraph each; ends with a line break."""
    columns = table.columns
    lines = [
        _row(markdown_text(title) for title in columns),
        _row("---:" if table.is_number(title) else "---" for title in columns),
        *(_row(markdown_text(row[title]) for title in columns) for row in table.rows),
    ]
    notes = [markdown_text(f"{mark} {sentence}") for mark, sentence in table.notes.items()]
    sources = [markdown_text(sentence) for sentence in table.sources]
    return "\n\n".join(["\n".join(lines), *notes, *sources]) + "\n"


def text_table(table: Table) -> list[str]:
    """Lines of a table for a terminal: aligned columns, then its notes and sources."""
    columns = table.columns
    cells = [columns, *([row[title] for title in columns] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        aligned = [
            cell.rjust(width) if table.is_number(title) else cell.ljust(width)
            for title, cell, width in zip(columns, row, widths, strict=True)
        ]
        lines.append("  ".join(aligned).rstrip())
    notes = [f"{mark} {sentence}" for mark, sentence in table.notes.items()]
    return [*lines, *notes, *table.sources]


def decibels(value: float | None, digits: int) -> str:
    """A PSNR; None is that of identical images, which is infinite."""
    return "identical" if value is None else f"{value:.{digits}f}"


def signed(value: float, digits: int) -> str:
    """A number with its sign, unless it rounds to zero."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def superscript(number: int) -> str:
    """A number in superscript digits."""
    return str(number).translate(_SUPERSCRIPTS)


def one_line(text: str) -> str:
    """Text with single spaces in place of line breaks, tabs and invisible characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def markdown_text(text: str) -> str:
    r"""Escapes text for Markdown, also in a table cell: a|b -> a\|b."""
    return re.sub(r"[\\`*\[\]<|~&$]|(?<!\w)_|_(?!\w)", r"\\\g<0>", one_line(text))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
