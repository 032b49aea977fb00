"""Tables and a page of what bench.latency and bench.parity measured.

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
    # Both need a package of the extra, which run_command names where it is missing.
    from bench.report.evidence import read_evidence
    from bench.report.tables import report_tables

    if args.check and args.readme is None:
        raise MeasurementError("--check was given without --readme: say which README to check")
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
        _write_page(args.html, evidence, tables)
    if args.readme is None and args.markdown is None and args.html is None:
        print(tables_as_markdown(tables), end="")


def _renew(path: Path, tables: Mapping[str, Table], *, check: bool) -> None:
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise MeasurementError(f"{path} is not UTF-8 text: give a Markdown file") from error
    renewed, changed = with_tables(text, tables, where=str(path))
    if not changed:
        print(f"{path}: up to date")
    elif check:
        raise MeasurementError(
            f"{path} is out of date: {', '.join(changed)} differ from the evidence; "
            "run this command without --check"
        )
    else:
        _write(path, renewed)
        print(f"{path}: {', '.join(changed)} renewed")


def _write_page(path: Path, evidence: Evidence, tables: Mapping[str, Table]) -> None:
    # matplotlib and Jinja2 are loaded for a page only.
    from bench.report.page import page

    text = page(evidence, tables)
    _write(path, text)
    print(f"{path}: the page, {len(text) / 1e6:.1f} MB")


def _write(path: Path, text: str) -> None:
    """Writes bytes, so that line ends are the same on every system."""
    with written_beside(path) as beside:
        beside.write_bytes(text.encode())


def make_parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """The parser of the command, which is called as `prog`."""
    parser = command_parser(
        prog,
        "Makes tables and a page from evidence of bench.latency and bench.parity. "
        "Prints the tables where no file is asked for.",
        "%(prog)s bench/results --html report.html",
        "%(prog)s bench/results --readme README.md --check",
    )
    parser.add_argument(
        "evidence",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="evidence: files of bench.latency and bench.parity, or folders",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write one page with everything in it"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", help="renew the tables between its markers"
    )
    parser.add_argument(
        "--check", action="store_true", help="change no README, fail if it is out of date"
    )
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = _PROG) -> NoReturn:
    """The command line."""
    run_command(make_parser(prog), _report, extra="bench", argv=argv)


if __name__ == "__main__":
    main()
