"""Figures as SVG that takes its colours from the page it stands in.

Nothing here depends on the time, on a random number or on the fonts of the machine that draws:
the same evidence gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.report.evidence import Evidence
from bench.report.runs import compared_runs, measured_runs
from bench.report.text import one_line

WIDTH = 4.7
"""Inches: about 340 units of the SVG, so that its text is legible on a telephone as well."""

INK, MUTED, RULE, CARD = "#010101", "#020202", "#030303", "#040404"
"""matplotlib wants colours, the page has its own for light and dark: these stand for those."""

ARTEFACT_COLOURS, BASELINE_COLOURS = 7, 2
"""How many --series-N and --baseline-N the style sheet has."""

_MARKERS = "osD^vPX<>"
_PAGE_COLOURS = {INK: "--ink", MUTED: "--muted", RULE: "--rule", CARD: "--card"}
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a $ in the name of a file is a $
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "text.color": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
}


@dataclass(frozen=True)
class Style:
    """How one run looks in every plot."""

    colour: str
    marker: str


def run_styles(evidence: Evidence) -> dict[str, Style]:
    """A colour and a marker for each label; baselines are grey."""
    measured = measured_runs(evidence)
    baselines = dict.fromkeys(one.label for one in measured if one.run["kind"] != "artefact")
    labels = dict.fromkeys(one.label for one in measured if one.run["kind"] == "artefact")
    labels |= dict.fromkeys(one.label for one in compared_runs(evidence))
    kinds = ((labels, "0a0a", ARTEFACT_COLOURS), (baselines, "0b0b", BASELINE_COLOURS))
    return {
        # More runs than colours still differ: the two periods have no common divisor.
        label: Style(f"#{kind}{number % count:02x}", _MARKERS[number % len(_MARKERS)])
        for names, kind, count in kinds
        for number, label in enumerate(names)
    }


def legend_key(style: Style, salt: str) -> str:
    """A line with a marker, to stand before a run's name; `salt` as for `svg_of`."""
    with new_figure(0.34, 0.16) as figure:
        figure.set_layout_engine("none")
        ax = figure.add_axes((0, 0, 1, 1))
        ax.axis("off")
        ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.plot([0.05, 0.95], [0.5, 0.5], color=style.colour, linewidth=1.2)
        ax.plot([0.5], [0.5], color=style.colour, marker=style.marker, markersize=5)
    return svg_of(figure, f"{salt} {style.colour}{style.marker}")


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of our style, in inches; what draws on it needs that style around it."""
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


def svg_of(figure: Figure, salt: str) -> str:
    """Markup for the inside of a page: the page's colours and fonts, and no size of its own.

    Args:
        figure: Made by `new_figure`.
        salt: Different for every figure of a page, and its ids are then different too.
    """
    with matplotlib.rc_context(_SETTINGS | {"svg.hashsalt": salt}):
        written = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    # Text is escaped, so that no name of a run can look like what is taken out here.
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    # Groups are numbered alike in every figure, and nothing refers to them.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<svg[^>]*>", _opening, svg, count=1)
    return re.sub(r"<[^>]*>", lambda tag: _coloured(tag[0]), svg)


def _opening(tag: re.Match[str]) -> str:
    """Only its coordinates: the page gives the size, and HTML needs no name spaces."""
    view_box = re.search(r'viewBox="[^"]*"', tag[0])
    assert view_box is not None
    return f"<svg {view_box[0]}>"


def _coloured(tag: str) -> str:
    for colour, variable in _PAGE_COLOURS.items():
        tag = tag.replace(colour, f"var({variable})")
    return re.sub(r"#(0a0a|0b0b)(..)", _series_variable, tag)


def _series_variable(found: re.Match[str]) -> str:
    name = {"0a0a": "series", "0b0b": "baseline"}[found[1]]
    return f"var(--{name}-{int(found[2], 16)})"


def row_label(ax: Axes, row: int, text: str) -> None:
    """A name above its row, where a long one has room."""
    ax.text(0, row - 0.3, one_line(text), transform=ax.get_yaxis_transform(), va="center")


def rows_only(ax: Axes, count: int) -> None:
    """Rows from top to bottom, which their labels name instead of an axis."""
    ax.set_ylim(count - 0.55, -0.5)
    ax.yaxis.set_visible(False)
    ax.spines["left"].set_visible(False)


def time_axis(ax: Axes, milliseconds: Sequence[float]) -> None:
    """The x axis; logarithmic where one run takes many times as long as another."""
    ax.grid(axis="x")
    if max(milliseconds) > 8 * min(milliseconds):
        ax.set_xscale("log")
        plain_log(ax.xaxis, milliseconds)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))


def plain_log(axis: Axis, values: Sequence[float]) -> None:
    """Ticks of a logarithmic axis as plain numbers, dense enough that a short one has some."""
    decades = np.log10(max(values) / min(values))
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def size_axis(ax: Axes, sizes: Sequence[str]) -> None:
    """The x axis, of pixels: ticks at the sizes, of those too near to each other at the first."""
    span = np.log(pixels(sizes[-1]) / pixels(sizes[0]))
    shown: list[str] = []
    for size in sizes:
        if not shown or np.log(pixels(size) / pixels(shown[-1])) > 0.05 * span:
            shown.append(size)
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks([pixels(size) for size in shown], shown, rotation=40, ha="right")


def pixels(size: str) -> int:
    """Of "256x448"."""
    height, _, width = size.partition("x")
    return int(height) * int(width)
