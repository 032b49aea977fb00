"""Creates tables and a page from the evidence of bench.latency, bench.parity, bench.alternatives.

python -m bench.report bench/results --html report.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bench.environment import MeasurementError
from bench.report.readme import with_tables
from bench.report.text import Table, markdown_table
from runtime.cli.command import command_parser, run_command
from runtime.files import written_beside

if TYPE_CHECKING:
    from bench.report.evidence import Evidence

_PROG = "python -m bench.report"


def tables_as_markdown(tables: Mapping[str, Table]) -> str:
    """All tables under their headings, ending with a line break."""
    return "\n".join(f"## {one.title}\n\n{markdown_table(one)}" for one in tables.values())


def _report(args: argparse.Namespace) -> None:
    # Both need a package of the extra; run_command names it if it is missing.
    from bench.report.evidence import read_evidence
    from bench.report.tables import report_tables

    if args.check and args.readme is None:
        raise MeasurementError(
            "--check was given without --readme: give the Markdown files to check with --readme"
        )
    evidence = read_evidence(args.evidence)
    for note in evidence.notes:
        print(note, file=sys.stderr)
    tables = report_tables(evidence)
    if args.readme is not None:
        _renew(args.readme, tables, check=args.check)
    if args.markdown is not None:
        _write(args.markdown, tables_as_markdown(tables))
        print(f"{args.markdown}: {', '.join(tables)}")
    if args.html is not None:
        write_page(args.html, evidence, tables)
    if args.readme is None and args.markdown is None and args.html is None:
        print(tables_as_markdown(tables), end="")


def _renew(paths: Sequence[Path], tables: Mapping[str, Table], *, check: bool) -> None:
    """Renews the tables of Markdown files, or only compares them; no file is written on an error.

    Raises:
        MeasurementError: If a file is not UTF-8, its markers do not fit `tables`, or with `check`
            its tables differ from these.
    """
    texts = {}
    for path in paths:
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError as error:
            raise MeasurementError(f"{path} is not UTF-8 text: give a Markdown file") from error
        texts[path] = with_tables(text, tables, where=str(path))
    if check and (old := {path: names for path, (_, names) in texts.items() if names}):
        named = "; ".join(f"{path} ({', '.join(names)})" for path, names in old.items())
        raise MeasurementError(f"tables are out of date in {named}: run this without --check")
    for path, (text, names) in texts.items():
        if names:
            _write(path, text)
        print(f"{path}: {', '.join(names)} renewed" if names else f"{path}: up to date")


def write_page(path: Path, evidence: Evidence, tables: Mapping[str, Table]) -> None:
    """Writes the page of `bench.report.page.page` and prints its size."""
    # matplotlib and Jinja2 are loaded for a page only.
    from bench.report.page import page

    text = page(evidence, tables)
    _write(path, text)
    print(f"{path}: a page of {len(text) / 1e6:.1f} MB")


def _write(path: Path, text: str) -> None:
    """Writes bytes, so that line ends are the same on every system."""
    with written_beside(path) as beside:
        beside.write_bytes(text.encode())


def make_parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """The parser of the command, which is called as `prog`."""
    parser = command_parser(
        prog,
        "Creates tables and a page from evidence. Without an output option it prints the tables.",
        "%(prog)s bench/results --html report.html",
        "%(prog)s latency.json ucf101.jsonl --markdown tables.md",
        "%(prog)s bench/results --readme README.md docs/benchmarks.md --check",
    )
    parser.add_argument(
        "evidence",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="evidence files of bench.latency, bench.parity and bench.alternatives, or folders "
        "with such files",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with tables, plots and images"
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables as Markdown"
    )
    parser.add_argument(
        "--readme",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="replace the tables between <!-- report:NAME --> and <!-- /report --> in Markdown "
        "files, each of which needs such markers",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="with --readme: write nothing, and fail if a table is out of date",
    )
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = _PROG) -> NoReturn:
    """Runs the command and exits."""
    run_command(make_parser(prog), _report, extra="bench", argv=argv)


if __name__ == "__main__":
    main()
