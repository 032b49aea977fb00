"""Figures as SVG in the style of a report, the look of each run, and axes that plots share."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.report.evidence import Evidence
from bench.report.runs import compared_runs, measured_runs
from bench.report.text import one_line

# After Okabe and Ito, who chose them for all common kinds of colour blindness.
ARTEFACT_COLOURS = "#0072b2", "#d55e00", "#008a64", "#b8578f", "#3a9bd6", "#c08400", "#6a4fb3"
BASELINE_COLOURS = "#4c535e", "#8b929c"

_MARKERS = "osD^vPX<>"
_WIDTH = 4.7
"""Width of a figure in inches: about 340 units of the SVG, legible on a telephone as well."""
_LEGEND_CHARACTERS = 60
_LEGEND_LINE_INCHES = 0.19
_STYLE_SHEET = Path(__file__).with_name("assets") / "report.mplstyle"


class Style(NamedTuple):
    """How one run looks in every plot."""

    colour: str
    marker: str


def run_styles(evidence: Evidence) -> dict[str, Style]:
    """A colour and a marker for each label; baselines are grey."""
    measured = measured_runs(evidence)
    baselines = dict.fromkeys(one.label for one in measured if one.run["kind"] != "artefact")
    labels = dict.fromkeys(one.label for one in measured if one.run["kind"] == "artefact")
    labels |= dict.fromkeys(one.label for one in compared_runs(evidence))
    return {
        # More runs than colours still differ: the two periods have no common divisor.
        label: Style(colours[number % len(colours)], _MARKERS[number % len(_MARKERS)])
        for names, colours in ((labels, ARTEFACT_COLOURS), (baselines, BASELINE_COLOURS))
        for number, label in enumerate(names)
    }


@contextmanager
def new_figure(height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure, `height` inches high, and its axes, to be drawn and saved inside the context."""
    with style.context(_STYLE_SHEET, after_reset=True):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        yield figure, figure.add_subplot()


def svg_uri(figure: Figure) -> str:
    """The figure as the data URI of an SVG image, without the time at which it was drawn."""
    written = io.BytesIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(written.getvalue()).decode()}"


def add_legend(figure: Figure, styles: Mapping[str, Style], labels: Sequence[str]) -> None:
    """Adds a legend of runs below the axes, and makes the figure higher by its lines."""
    keys = [
        Line2D([], [], color=styles[label].colour, marker=styles[label].marker, linewidth=1.2)
        for label in labels
    ]
    # matplotlib leaves out labels that begin with "_", so they begin with a space.
    names = [" " + textwrap.fill(one_line(label), _LEGEND_CHARACTERS) for label in labels]
    lines = sum(name.count("\n") + 1 for name in names)
    figure.set_figheight(figure.get_figheight() + _LEGEND_LINE_INCHES * lines)
    figure.legend(keys, names, loc="outside lower left")


def row_label(ax: Axes, row: int, text: str) -> None:
    """Writes a name above its row, where a long name fits."""
    ax.text(0, row - 0.3, one_line(text), transform=ax.get_yaxis_transform(), va="center")


def rows_only(ax: Axes, count: int) -> None:
    """Orders rows from top to bottom and hides the y axis, since they have labels."""
    ax.set_ylim(count - 0.55, -0.5)
    ax.yaxis.set_visible(False)
    ax.spines["left"].set_visible(False)


def time_axis(ax: Axes, milliseconds: Sequence[float]) -> None:
    """Formats the x axis; it is logarithmic if one run takes many times as long as another."""
    ax.grid(axis="x")
    if max(milliseconds) > 8 * min(milliseconds):
        ax.set_xscale("log")
        plain_log(ax.xaxis, milliseconds)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))


def plain_log(axis: Axis, values: Sequence[float]) -> None:
    """Labels a logarithmic axis with plain numbers, also one that spans less than a decade."""
    decades = np.log10(max(values) / min(values))
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def size_axis(ax: Axes, sizes: Sequence[str]) -> None:
    """Puts ticks of sizes on an x axis of pixels; of sizes near each other, the first has one."""
    span = np.log(pixels(sizes[-1]) / pixels(sizes[0]))
    shown: list[str] = []
    for size in sizes:
        if not shown or np.log(pixels(size) / pixels(shown[-1])) > 0.05 * span:
            shown.append(size)
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks([pixels(size) for size in shown], shown, rotation=40, ha="right")


def pixels(size: str) -> int:
    """The number of pixels of a size such as "256x448"."""
    height, _, width = size.partition("x")
    return int(height) * int(width)
