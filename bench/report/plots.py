"""The plots of a report. A plot without data is not in the list that is returned."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from matplotlib.ticker import MaxNLocator

from bench.records.common import Decibel
from bench.report.evidence import Evidence
from bench.report.figures import (
    Style,
    add_legend,
    new_figure,
    pixels,
    plain_log,
    row_label,
    rows_only,
    size_axis,
    svg_uri,
    time_axis,
)
from bench.report.fps import case_name
from bench.report.runs import ComparedRun, MeasuredRun, compared_runs, measured_runs
from runtime.errors import rounded

Styles = Mapping[str, Style]
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_DOTS = 120
"""Maximum number of samples of a run that are drawn; boxes and medians use all samples."""

_LEAST_SPAN_DB = 0.2
"""Minimum span of an axis of PSNR in dB, so that insignificant differences look small."""


class Plot(NamedTuple):
    """A title, the data URI of an image, and a caption that may be empty."""

    title: str
    image: str
    caption: str


def latency_plots(evidence: Evidence, styles: Styles) -> list[Plot]:
    """Plots the samples of every run, one plot for each case."""
    cases = list(_grouped(measured_runs(evidence), lambda one: id(one.case)).values())
    titles = [case_name(runs[0].case) + _factor(runs[0].case["factor"]) for runs in cases]
    plots = []
    for title, runs in zip(titles, cases, strict=True):
        # If two files have a case of the same size, the variants distinguish their titles.
        variants = dict.fromkeys(one.run["variant"] for one in runs if one.run["variant"])
        named = ", ".join((title, *variants)) if titles.count(title) > 1 else title
        plots.append(Plot(named, _latency_strips(runs, styles), ""))
    return plots


def _latency_strips(runs: Sequence[MeasuredRun], styles: Styles) -> str:
    with new_figure(0.5 + 0.46 * len(runs)) as (figure, ax):
        for row, one in enumerate(runs):
            ms = 1e3 * np.array([second for round_ in one.run["seconds"] for second in round_])
            low, median, high = np.percentile(ms, (25, 50, 75))
            colour = styles[one.label].colour
            shown = np.unique(np.linspace(0, len(ms) - 1, _DOTS).astype(int))
            # From top to bottom in the order of measurement, which makes a drift visible.
            heights = row - 0.1 + 0.36 * (shown + 0.5) / len(ms)
            ax.barh(row + 0.08, high - low, 0.42, low, color=colour, alpha=0.2, linewidth=0)
            ax.plot(
                ms[shown], heights, "o", color=colour, markersize=2.4, alpha=0.7, markeredgewidth=0
            )
            ax.plot([median] * 2, [row - 0.13, row + 0.29], color=colour, linewidth=2)
            row_label(ax, row, f"{_shortened(one.name)}: {rounded(median)} ms")
        time_axis(ax, [one.run["milliseconds"]["p50"] for one in runs])
        ax.set_xlabel("milliseconds of a pair")
        rows_only(ax, len(runs))
        return svg_uri(figure)


def size_plots(evidence: Evidence, styles: Styles) -> list[Plot]:
    """Plots milliseconds of a new frame over the frame size, one plot for each factor."""
    plots = []
    by_factor = _grouped(measured_runs(evidence), lambda one: one.case["factor"])
    for factor, runs in sorted(by_factor.items()):
        sizes = sorted({one.case["size"] for one in runs}, key=pixels)
        if pixels(sizes[0]) == pixels(sizes[-1]):
            continue
        lines = _grouped(runs, lambda one: one.label)
        with new_figure(3.3) as (figure, ax):
            ax.grid(axis="y")
            for label, of_label in lines.items():
                points = sorted(
                    (pixels(one.case["size"]), one.run["milliseconds_per_frame"])
                    for one in of_label
                )
                colour, marker = styles[label]
                ax.plot(
                    *zip(*points, strict=True),
                    color=colour, marker=marker, markersize=4.5, linewidth=1.2,
                )  # fmt: skip
            ax.set(yscale="log", ylabel="milliseconds of a new frame")
            size_axis(ax, sizes)
            plain_log(ax.yaxis, [one.run["milliseconds_per_frame"] for one in runs])
            add_legend(figure, styles, list(lines))
            image = svg_uri(figure)
        caption = (
            "Median time of a pair divided by its number of new frames. Both axes are logarithmic."
        )
        plots.append(Plot(f"Latency over frame size{_factor(factor)}", image, caption))
    return plots


def parity_plots(evidence: Evidence, styles: Styles) -> list[Plot]:
    """Plots PSNR of artefact to PyTorch, mean and worst new frame; one plot for each data set."""
    by_title = _grouped(compared_runs(evidence), lambda one: one.parity.configuration["title"])
    figures = [db for runs in by_title.values() for one in runs for db in _mean_and_worst(one)]
    finite = [db for db in figures if db is not None]
    # One axis for all data sets; identical images are drawn beyond its end.
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    span = max(high - low, 1.0)
    beyond = high + 0.12 * span
    plots = []
    for title, runs in by_title.items():
        with new_figure(0.5 + 0.38 * len(runs)) as (figure, ax):
            ax.grid(axis="x")
            for row, one in enumerate(runs):
                colour, marker = styles[one.label]
                mean, worst = (beyond if db is None else db for db in _mean_and_worst(one))
                row_label(ax, row, _shortened(one.artefact["name"]))
                ax.plot([worst, mean], [row + 0.12] * 2, color=colour, linewidth=1.4)
                for db, face in ((mean, colour), (worst, "white")):
                    ax.plot(
                        [db], [row + 0.12], marker, color=colour, markersize=5.5,
                        markerfacecolor=face, markeredgewidth=1.3,
                    )  # fmt: skip
                if mean == beyond:
                    ax.text(beyond - 0.03 * span, row + 0.12, "identical", ha="right", va="center")
            ax.set(xlim=(low - 0.06 * span, high + 0.18 * span), xlabel="PSNR to PyTorch, dB")
            rows_only(ax, len(runs))
            image = svg_uri(figure)
        caption = "Filled marker: mean. Hollow marker: the new frame with the lowest PSNR."
        plots.append(Plot(title, image, caption))
    return plots


def _mean_and_worst(one: ComparedRun) -> tuple[Decibel, Decibel]:
    agreement = one.result["against_reference"]
    mean, worst = agreement["mean"], agreement["worst"]
    return mean, mean if worst is None else worst["psnr"]


class _Point(NamedTuple):
    """One run in a plot of quality against speed."""

    label: str
    milliseconds: float
    db: float


def quality_plots(evidence: Evidence, styles: Styles) -> list[Plot]:
    """Plots PSNR over latency of the artefacts that were both compared and timed, by data set.

    With random weights the PSNR to ground truth has no meaning: a separate plot shows the
    agreement with PyTorch instead.
    """
    by_panel = _grouped(
        compared_runs(evidence),
        lambda one: (
            one.parity.configuration["title"],
            one.parity.configuration["weights"]["random"],
        ),
    )
    plots = []
    measured = measured_runs(evidence)
    for (title, random), compared in by_panel.items():
        runs = _runs_at_one_size(measured, compared)
        points = _points(runs, compared, random=random)
        if not points:
            continue
        what = "Agreement with PyTorch" if random else "PSNR to ground truth"
        case = runs[0].case
        plots.append(
            Plot(
                f"{title}: {'agreement' if random else 'quality'} against speed",
                _scatter(points, styles, what),
                f"{what} on {title}; median latency of a new frame at {case['size']}"
                f"{_factor(case['factor'])}. Up and to the left is better.",
            )
        )
    return plots


def _runs_at_one_size(
    measured: Sequence[MeasuredRun], compared: Sequence[ComparedRun]
) -> list[MeasuredRun]:
    """The runs at the size of the data set, or at the size with the most of its artefacts."""
    hashes = {one.artefact["sha256"] for one in compared}
    dataset = compared[0].parity.configuration["dataset"]
    own = [one for one in measured if one.case["dataset"] == dataset]
    runs = own if any(_hash(one) in hashes for one in own) else measured
    by_size = _grouped(runs, lambda one: (one.case["size"], one.case["factor"]))

    def worth(size: tuple[str, int]) -> tuple[int, int]:
        return len(hashes & {_hash(one) for one in by_size[size]}), -pixels(size[0])

    return by_size[max(by_size, key=worth)] if by_size else []


def _hash(one: MeasuredRun) -> str | None:
    return one.run["artefact"] and one.run["artefact"]["sha256"]


def _points(
    runs: Sequence[MeasuredRun], compared: Sequence[ComparedRun], *, random: bool
) -> list[_Point]:
    """Points of the artefacts, and of PyTorch if the weights are trained."""
    points = []
    variants: dict[str, Decibel] = {}
    for run in runs:
        for one in compared:
            db = one.result["against_reference"]["mean"] if random else one.result["psnr"]
            if _hash(run) == one.artefact["sha256"] and db is not None:
                points.append(_Point(run.label, run.run["milliseconds_per_frame"], db))
                variant = one.parity.configuration["weights"]["variant"]
                variants.setdefault(variant, one.result["reference_psnr"])
    for run in runs:
        db = variants.get(run.run["variant"] or "")
        if run.run["kind"] == "pytorch" and not random and db is not None:
            points.append(_Point(run.label, run.run["milliseconds_per_frame"], db))
    return points


def _scatter(points: Sequence[_Point], styles: Styles, what: str) -> str:
    with new_figure(2.9) as (figure, ax):
        ax.grid(axis="y")
        for label, milliseconds, db in points:
            colour, marker = styles[label]
            ax.plot([milliseconds], [db], marker, color=colour, markersize=7)
        low, high = (limit(point.db for point in points) for limit in (min, max))
        margin = max(0.15 * (high - low), (_LEAST_SPAN_DB - (high - low)) / 2)
        ax.set(xlabel="milliseconds of a new frame", ylabel=f"{what}, dB")
        ax.set_ylim(low - margin, high + margin)
        ax.yaxis.set_major_locator(MaxNLocator(5))
        time_axis(ax, [point.milliseconds for point in points])
        ax.margins(x=0.1)
        add_legend(figure, styles, list(dict.fromkeys(point.label for point in points)))
        return svg_uri(figure)


def _grouped(items: Iterable[V], key: Callable[[V], K]) -> dict[K, list[V]]:
    """Items by key, in their order."""
    groups: dict[K, list[V]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _factor(factor: int) -> str:
    return "" if factor == 2 else f", factor {factor}"


def _shortened(name: str, limit: int = 58) -> str:
    """Cuts the middle of a long name, because beginning and end distinguish runs."""
    return name if len(name) <= limit else f"{name[: limit // 2 - 2]} ... {name[3 - limit // 2 :]}"
