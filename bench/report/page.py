"""The page of a report: one HTML file that contains everything it shows and loads no other file."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

from bench.report.answers import answers
from bench.report.evidence import Evidence
from bench.report.figures import run_styles
from bench.report.origins import origin
from bench.report.pictures import read_pictures
from bench.report.plots import Plot, latency_plots, parity_plots, quality_plots, size_plots
from bench.report.runs import compared_runs, file_names, machine_name, measured_runs
from bench.report.text import NONE, Table, one_line
from runtime.errors import counted

_ASSETS = Path(__file__).with_name("assets")


class _Section(NamedTuple):
    """A part of the page; it is left out if it has neither a table nor plots.

    Attributes:
        name: Name in links.
        table: None in the section "speed".
        plots: Below the table.
        strips: Plots of single samples, below `plots`.
    """

    name: str
    table: Table | None
    plots: Sequence[Plot] = ()
    strips: Sequence[Plot] = ()

    @property
    def title(self) -> str:
        """The heading."""
        return self.table.title if self.table else "Quality against speed"


def page(evidence: Evidence, tables: Mapping[str, Table]) -> str:
    """The whole page.

    Args:
        evidence: The files to show.
        tables: The tables that `report_tables` returns for them.

    Raises:
        MeasurementError: If an image is missing or is not a PNG file.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ASSETS),
        autoescape=True,
        finalize=_shown,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style, script = ((_ASSETS / f"report.{suffix}").read_text("utf-8") for suffix in ("css", "js"))
    # The page's policy allows only this script, even if a name in the evidence contains another.
    digest = hashlib.sha256(script.encode()).digest()
    return templates.get_template("report.html").render(
        title="IFRNet: artefacts against PyTorch",
        lede=_lede(evidence),
        answers=answers(evidence),
        sections=[one for one in _sections(evidence, tables) if one.table or one.plots],
        pictures=read_pictures(evidence),
        evidence=evidence,
        file_names=file_names(evidence),
        origin=origin,
        row_groups=_row_groups,
        number_parts=_number_parts,
        style=style,
        script=script,
        script_hash=f"sha256-{base64.b64encode(digest).decode()}",
    )


def _shown(value: object) -> object:
    """Text on one line without invisible characters; Markup, a subclass of str, is not changed."""
    return one_line(value) if type(value) is str else value


def _sections(evidence: Evidence, tables: Mapping[str, Table]) -> list[_Section]:
    styles = run_styles(evidence)
    return [
        _Section("fps", tables.get("fps")),
        _Section("parity", tables.get("parity"), parity_plots(evidence, styles)),
        _Section(
            "latency",
            tables.get("latency"),
            size_plots(evidence, styles),
            latency_plots(evidence, styles),
        ),
        _Section("speed", None, quality_plots(evidence, styles)),
        _Section("roofline", tables.get("roofline")),
        *(_Section(name, tables[name]) for name in tables if name.startswith("alternatives-")),
    ]


def _lede(evidence: Evidence) -> str:
    """The introduction: artefacts, data sets, number of runs, machines."""
    compared, measured = compared_runs(evidence), measured_runs(evidence)
    sentences = []
    if compared:
        variants = dict.fromkeys(p.configuration["weights"]["variant"] for p in evidence.parities)
        datasets = dict.fromkeys(p.configuration["title"] for p in evidence.parities)
        hashes = {one.artefact["sha256"] for one in compared}
        sentences.append(
            f"{counted(len(hashes), 'artefact')} of IFRNet ({', '.join(variants)}) compared with "
            f"float32 PyTorch, frame by frame, on {', '.join(datasets)}."
        )
    if measured:
        sizes = {one.case["size"] for one in measured}
        labels = {one.label for one in measured}
        sentences.append(
            f"Latency of {counted(len(labels), 'run')} at {counted(len(sizes), 'frame size')}."
        )
    machines = dict.fromkeys(machine_name(file.environment) for file in evidence.files)
    return " ".join([*sentences, f"Measured on {'; '.join(machines)}."])


def _row_groups(table: Table) -> list[tuple[str, list[dict[str, str]]]]:
    """Groups consecutive rows by their first cell."""
    first = table.columns[0]
    groups = itertools.groupby(table.rows, key=lambda row: row[first])
    return [(name, list(rows)) for name, rows in groups]


def _number_parts(text: str) -> tuple[str, str]:
    """Splits a cell into its number, with a typographic minus sign, and the brackets after it."""
    number, _, bracket = text.partition(" (")
    if number.startswith("-") and number != NONE:
        number = f"\N{MINUS SIGN}{number[1:]}"
    return number, f"({bracket}" if bracket else ""
