"""The page of a report: one HTML file that holds all it shows and loads nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import string
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.report.evidence import Evidence, Latency, Parity
from bench.report.plots import (
    Plot,
    Styles,
    latency_plots,
    parity_plots,
    quality_plots,
    size_plots,
)
from bench.report.runs import (
    compared_runs,
    file_names,
    machine_name,
    measured_runs,
)
from bench.report.svg import legend_key, run_styles
from bench.report.tables import origin
from bench.report.text import NONE, Table, decibels, one_line
from bench.report.viewer import viewer

_TITLE = "IFRNet: artefacts against PyTorch"
_LONG_CELL = 30
"""Characters from which a cell may break into lines."""

_STRIPS = (
    "Every sample of a run, from top to bottom in the order measured; the bar is the median, the "
    "box holds the middle half."
)


class _Section(NamedTuple):
    """A part of the page; it is left out where `body` is empty."""

    name: str
    title: str
    body: str


def page(evidence: Evidence, tables: Mapping[str, Table]) -> str:
    """The whole page.

    Args:
        evidence: What was read.
        tables: Those of `report_tables`.

    Raises:
        MeasurementError: If a picture is missing or is no PNG file.
    """
    folder = Path(__file__).with_name("assets")
    template, style, script = (
        (folder / f"report.{suffix}").read_text("utf-8") for suffix in ("html", "css", "js")
    )
    sections = [section for section in _sections(evidence, tables) if section.body]
    # Only this script runs, even if a name that is shown were to bring one along.
    digest = hashlib.sha256(f"\n{script}\n".encode()).digest()
    return string.Template(template).substitute(
        title=_text(_TITLE),
        lede=_text(_lede(evidence)),
        nav=_nav(sections),
        headlines=_headlines(evidence),
        sections="\n".join(
            f'<section id="{name}">\n<h2>{_text(title)}</h2>\n{body}\n</section>'
            for name, title, body in sections
        ),
        style=style,
        script=script,
        script_hash=f"sha256-{base64.b64encode(digest).decode()}",
    )


def _sections(evidence: Evidence, tables: Mapping[str, Table]) -> list[_Section]:
    styles = run_styles(evidence)
    made = {name: _table(table) for name, table in tables.items()}
    titles = {name: table.title for name, table in tables.items()}
    drawn = {
        "parity": _plots(parity_plots(evidence, styles), styles),
        "latency": _plots(size_plots(evidence, styles), styles)
        + _plots(latency_plots(evidence, styles), styles, _STRIPS),
    }
    sections = [
        _Section(name, titles.get(name, ""), made.get(name, "") + drawn.get(name, ""))
        for name in ("parity", "latency", "roofline")
    ]
    quality = _plots(quality_plots(evidence, styles), styles)
    sections.insert(2, _Section("speed", "Quality against speed", quality))
    sections.append(_Section("pictures", "Pictures", viewer(evidence)))
    sections.append(_Section("evidence", "Evidence", _evidence(evidence)))
    return sections


def _nav(sections: Sequence[_Section]) -> str:
    items = (f'<li><a href="#{name}">{_text(title)}</a></li>' for name, title, _ in sections)
    return f'<nav aria-label="Sections"><ul>{"".join(items)}</ul></nav>'


def _lede(evidence: Evidence) -> str:
    """What was compared, and where."""
    compared, measured = compared_runs(evidence), measured_runs(evidence)
    sentences = []
    if compared:
        variants = dict.fromkeys(p.configuration["weights"]["variant"] for p in evidence.parities)
        datasets = dict.fromkeys(p.configuration["title"] for p in evidence.parities)
        hashes = {one.artefact["sha256"] for one in compared}
        sentences.append(
            f"{_count(len(hashes), 'artefact')} of IFRNet ({_listed(variants)}) compared with "
            f"float32 PyTorch, frame by frame, on {_listed(datasets)}."
        )
    if measured:
        sizes = dict.fromkeys(one.case["size"] for one in measured)
        labels = dict.fromkeys(one.label for one in measured)
        sentences.append(
            f"Latency of {_count(len(labels), 'run')} at {_count(len(sizes), 'frame size')}."
        )
    machines = dict.fromkeys(machine_name(file.environment) for file in evidence.files)
    return " ".join([*sentences, f"Measured on {'; '.join(machines)}."])


def _headlines(evidence: Evidence) -> str:
    """The figures that a reader asks for first."""
    found: list[tuple[str, str, str]] = []
    compared = compared_runs(evidence)
    worst = [
        (least["psnr"], one, least["sample"])
        for one in compared
        if (least := one.result["against_reference"]["worst"]) and least["psnr"] is not None
    ]
    if worst:
        db, one, sample = min(worst, key=lambda item: item[0])
        where = f"{one.artefact['name']} on {one.parity.configuration['title']}, sample {sample}"
        found.append(("Least agreement with PyTorch", f"{decibels(db, 1)} dB", where))
    losses = [
        (one.result["drop"], one)
        for one in compared
        if one.result["drop"] is not None and not one.parity.configuration["weights"]["random"]
    ]
    if losses:
        loss, one = max(losses, key=lambda item: item[0] or 0.0)
        where = f"{one.artefact['name']} on {one.parity.configuration['title']}"
        figure = f"{max(loss or 0.0, 0.0):.3f} dB"
        found.append(("Largest loss of PSNR to ground truth", figure, where))
    ratios = [
        ratio for file in evidence.latencies for c in file.record["cases"] for ratio in c["ratios"]
    ]
    for name in dict.fromkeys(ratio["slower"] for ratio in ratios):
        factors = [ratio["p50"] for ratio in ratios if ratio["slower"] == name]
        low, high = f"{min(factors):.2f}x", f"{max(factors):.2f}x"
        shown = low if low == high else f"{low} to {high}"
        found.append(
            (
                "Speed of artefacts",
                shown,
                f"against {name}, medians of {_count(len(factors), 'comparison')}",
            )
        )
    items = "".join(
        f"<div><dt>{_text(what)}</dt><dd>{_text(figure)}</dd><dd>{_text(where)}</dd></div>"
        for what, figure, where in found
    )
    return f'<dl class="headlines">{items}</dl>' if items else ""


def _table(table: Table) -> str:
    columns = table.columns
    head = "".join(
        f'<th scope="col"{_classes(table, title, "")}>{_text(title)}</th>' for title in columns
    )
    notes = [f"<li>{_text(f'{mark} {note}')}</li>" for mark, note in table.notes.items()]
    notes += [f"<li>{_text(sentence)}</li>" for sentence in table.sources]
    # It scrolls by itself where the window is narrow, and then has to be reached by keyboard.
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{_text(table.title)}">'
        f"<table>\n<thead><tr>{head}</tr></thead>\n{_rows(table)}\n</table></div>\n"
        f'<ul class="notes">{"".join(notes)}</ul>\n'
    )


def _rows(table: Table) -> str:
    """Rows that begin alike are a group, and their first cell stands there once."""
    first, *others = table.columns
    groups = []
    for name, rows in itertools.groupby(table.rows, key=lambda row: row[first]):
        lines = [
            "".join(
                f"<td{_classes(table, t, row[t])}>{_cell(table, t, row[t])}</td>" for t in others
            )
            for row in rows
        ]
        lines[0] = f'<th scope="rowgroup" rowspan="{len(lines)}">{_text(name)}</th>{lines[0]}'
        groups.append("<tbody>\n<tr>" + "</tr>\n<tr>".join(lines) + "</tr>\n</tbody>")
    return "\n".join(groups)


def _classes(table: Table, column: str, text: str) -> str:
    if table.is_number(column):
        return ' class="number"'
    return ' class="long"' if len(text) > _LONG_CELL else ""


def _cell(table: Table, column: str, text: str) -> str:
    """What stands in brackets behind a number goes below it; a minus is as wide as a plus."""
    if not table.is_number(column):
        return _text(text)
    number, space, bracket = text.partition(" (")
    if number.startswith("-") and number != NONE:
        number = f"\N{MINUS SIGN}{number[1:]}"
    return _text(number) + (f" <small>({_text(bracket)}</small>" if space else "")


def _plots(plots: Sequence[Plot], styles: Styles, caption: str = "") -> str:
    if not plots:
        return ""
    figures = "\n".join(_plot(plot, styles) for plot in plots)
    said = f'<p class="notes">{_text(caption)}</p>\n' if caption else ""
    return f'{said}<div class="plots">\n{figures}\n</div>\n'


def _plot(plot: Plot, styles: Styles) -> str:
    keys = "".join(
        f"<li>{legend_key(styles[label], f'{plot.title} {label}')}<span>{_text(label)}</span></li>"
        for label in plot.runs
    )
    legend = f'<ul class="legend">{keys}</ul>\n' if keys else ""
    caption = f"<figcaption>{_text(plot.caption)}</figcaption>\n" if plot.caption else ""
    svg = plot.svg.replace("<svg", f'<svg role="img" aria-label="{_text(plot.title)}"', 1)
    return f'<figure class="plot">\n<h3>{_text(plot.title)}</h3>\n{svg}\n{legend}{caption}</figure>'


def _evidence(evidence: Evidence) -> str:
    """Where every figure comes from: file by file, and what was left out."""
    names = file_names(evidence)
    blocks = [_file_block(names[file.path], file) for file in evidence.files]
    notes = "".join(f"<li>{_text(note)}</li>" for note in evidence.notes)
    return "\n".join(blocks) + (f'\n<ul class="notes">{notes}</ul>' if notes else "")


def _file_block(name: str, file: Latency | Parity) -> str:
    threads = file.record["threads"] if isinstance(file, Latency) else None
    facts: list[tuple[str, str]] = [
        ("measured", file.environment["time"]),
        ("with", origin(file.environment, threads)),
        ("command", file.environment["command"]),
    ]
    if isinstance(file, Parity):
        configuration = file.configuration
        weights = configuration["weights"]
        facts.append(("weights", f"{weights['name']}, sha256 {weights['sha256'] or 'unknown'}"))
        facts += [(str(key), str(value)) for key, value in configuration["protocol"].items()]
        facts += [(one["name"], f"sha256 {one['sha256']}") for one in configuration["artefacts"]]
        what = f"parity on {configuration['title']}, {weights['variant']}"
    else:
        runs = (run for case in file.record["cases"] for run in case["runs"].values())
        artefacts = {
            run["artefact"]["file"]: run["artefact"]["sha256"] for run in runs if run["artefact"]
        }
        facts += [(found, f"sha256 {digest}") for found, digest in artefacts.items()]
        what = f"latency at {_listed(dict.fromkeys(c['size'] for c in file.record['cases']))}"
    items = "".join(f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>" for key, value in facts)
    return (
        f"<details><summary>{_text(name)} <span>{_text(what)}</span></summary>"
        f"<dl>{items}</dl></details>"
    )


def _text(text: str) -> str:
    return html.escape(one_line(text))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
