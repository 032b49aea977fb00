"""Summarises the samples of a parity run: means, worst frames, the printed table, the gate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from bench.data.notes import sample_notes
from bench.data.published import published_text
from bench.quality.metrics import mean_db
from bench.records.parity import ArtefactSummary, Configuration, PublishedRecord, SampleSummary

if TYPE_CHECKING:
    from ifrnet_model.weights.table import Published

Line = Mapping[str, Any]


class NewFrame(NamedTuple):
    """One new frame of one artefact.

    Attributes:
        sample: Name of the sample.
        timestep: Time step in (0, 1).
        reference: PSNR in dB between PyTorch and the true frame; inf if identical.
        artefact: PSNR in dB between the artefact and the true frame; inf if identical.
        agreement: PSNR in dB between the artefact and PyTorch; inf if identical.
    """

    sample: str
    timestep: float
    reference: float
    artefact: float
    agreement: float

    @property
    def drop(self) -> float:
        """`reference` - `artefact` in dB; nan if PyTorch equals the true frame."""
        return self.reference - self.artefact if math.isfinite(self.reference) else math.nan


def new_frames(lines: Sequence[Line], artefact: str, compared: str) -> list[NewFrame]:
    """All new frames of an artefact, in order of samples and time.

    Args:
        lines: Lines of the samples; damaged samples are skipped.
        artefact: Name of the artefact.
        compared: Whether it is compared as "floats" or as "bytes".
    """

    def numbers(values: Sequence[float | None]) -> Iterator[float]:
        return (math.inf if value is None else value for value in values)

    frames = []
    for line in lines:
        if "damaged" in line:
            continue
        result = line["artefacts"][artefact]
        columns = [
            list(numbers(values))
            for values in (
                line["reference"][compared]["psnr"], result["psnr"], result["against_reference"],
            )
        ]  # fmt: skip
        factor = len(columns[0]) + 1
        frames += [
            NewFrame(line["sample"], k / factor, *row)
            for k, row in enumerate(zip(*columns, strict=True), 1)
        ]
    return frames


def summarise(
    lines: Sequence[Line], artefacts: Mapping[str, str], metrics: Sequence[str], factor: int
) -> SampleSummary:
    """The summary of a run.

    Args:
        lines: Lines of the samples.
        artefacts: By name of the artefact whether it is compared as "floats" or as "bytes".
        metrics: Names of the metrics.
        factor: Factor of the protocol.

    Returns:
        "samples", the number of readable samples; "damaged", the names of the others; "artefacts",
        what `summary_of` returns for each.
    """
    whole = [line for line in lines if "damaged" not in line]
    return {
        "samples": len(whole),
        "damaged": [line["sample"] for line in lines if "damaged" in line],
        "artefacts": {
            name: summary_of(whole, name, compared, metrics, factor)
            for name, compared in artefacts.items()
        },
    }


def summary_of(
    lines: Sequence[Line], artefact: str, compared: str, metrics: Sequence[str], factor: int
) -> ArtefactSummary:
    """The summary of one artefact: means over all new frames, and the worst frame.

    If PyTorch or the artefact equals the true frame, its PSNR is infinite. Such a frame is left out
    of both means, so that they stay comparable, and is counted in "identical_to_truth".

    Args:
        lines: Lines of the readable samples.
        artefact: Name of the artefact.
        compared: Whether it is compared as "floats" or as "bytes".
        metrics: Names of the metrics.
        factor: Factor of the protocol.
    """
    frames = new_frames(lines, artefact, compared)
    counted = [f for f in frames if math.isfinite(f.reference) and math.isfinite(f.artefact)]
    reference = mean_db([f.reference for f in counted])
    psnr = mean_db([f.artefact for f in counted])
    worst = min(frames, key=lambda f: f.agreement)
    loses = max(counted, key=lambda f: f.drop, default=None)
    summary: ArtefactSummary = {
        "compared": compared,
        "psnr": psnr,
        "reference_psnr": reference,
        "drop": reference - psnr if counted else 0.0,
        "identical_to_truth": len(frames) - len(counted),
        "by_timestep": [
            [
                k / factor,
                mean_db([f.reference for f in counted if f.timestep == k / factor]),
                mean_db([f.artefact for f in counted if f.timestep == k / factor]),
            ]
            for k in range(1, factor)
            if factor > 2
        ],
        "against_reference": {
            "mean": mean_db([f.agreement for f in frames]),
            "identical": sum(math.isinf(f.agreement) for f in frames),
            "worst": {"sample": worst.sample, "timestep": worst.timestep, "psnr": worst.agreement},
        },
        "worst_drop": None
        if loses is None
        else {"sample": loses.sample, "timestep": loses.timestep, "drop": loses.drop},
    }
    further: dict[str, float] = {}
    for metric in metrics:
        if metric != "psnr":
            further[metric] = _mean(line["artefacts"][artefact][metric] for line in lines)
            further[f"reference_{metric}"] = _mean(
                line["reference"][compared][metric] for line in lines
            )
    return cast(ArtefactSummary, {**summary, **further})


def published_record(lines: Sequence[Line], figure: Published | None) -> PublishedRecord | None:
    """A published figure beside the same figure of PyTorch, from floats; None without one."""
    if figure is None:
        return None
    references = [line["reference"]["floats"] for line in lines if "damaged" not in line]
    values = [value for one in references for value in one["psnr"]]

    def mean_of(metric: str, wanted: float | None) -> float | None:
        return None if wanted is None else _mean(one[metric] for one in references)

    return {
        "source": figure.source,
        "psnr": figure.psnr,
        "ssim": figure.ssim,
        "ssim_kind": figure.ssim_kind,
        "ie": figure.ie,
        "measured": {
            "psnr": mean_db([math.inf if value is None else value for value in values]),
            "ssim": mean_of(figure.ssim_kind, figure.ssim),
            "ie": mean_of("ie", figure.ie),
        },
    }


def _mean(values: Iterator[Sequence[float]]) -> float:
    flat = [value for sample in values for value in sample]
    return math.fsum(flat) / len(flat)


def worst_frames(
    lines: Sequence[Line], artefacts: Mapping[str, str], count: int
) -> list[tuple[str, NewFrame]]:
    """The `count` new frames of each artefact with the lowest PSNR to PyTorch, lowest first."""
    return [
        (name, frame)
        for name, compared in artefacts.items()
        for frame in sorted(new_frames(lines, name, compared), key=lambda f: f.agreement)[:count]
    ]


def table(configuration: Configuration, summary: Mapping[str, Any]) -> list[str]:
    """Lines of the table that is printed at the end."""
    weights = configuration["weights"]
    seconds = summary["wall_seconds"]
    lines = [
        f"{configuration['title']}, {summary['samples']} samples"
        f"{'' if seconds is None else f' in {seconds:.1f} s'}, "
        f"weights {weights['name']} ({weights['variant']})"
    ]
    further = [metric for metric in configuration["metrics"] if metric != "psnr"]
    names = [f"{metric} (PyTorch)" for metric in further]
    width = max(8, *(len(name) for name in summary["artefacts"]))
    lines.append(
        f"  {'artefact':{width}}  compared  PyTorch dB  artefact dB  difference  "
        f"to PyTorch: mean   worst (sample)  {'  '.join(names)}"
    )
    for name, found in summary["artefacts"].items():
        against = found["against_reference"]
        difference = round(-found["drop"], 4) + 0.0  # No minus before a zero.
        values = "  ".join(
            f"{found[metric]:.4f} ({found[f'reference_{metric}']:.4f})" for metric in further
        )
        lines.append(
            f"  {name:{width}}  {found['compared']:8}  {found['reference_psnr']:10.3f}  "
            f"{found['psnr']:11.3f}  {difference:+10.4f}  {_agreement(against):>16}  "
            f"{_db(against['worst']['psnr'])} ({against['worst']['sample']})  {values}"
        )
        if found["identical_to_truth"]:
            lines.append(
                f"    {found['identical_to_truth']} new frames are identical to the true frames "
                "and left out of the means"
            )
    if summary["published"]:
        lines += _published_lines(summary)
    lines += [f"  {sentence}" for sentence in sample_notes(configuration)]
    if damaged := summary["damaged"]:
        lines.append(f"  {len(damaged)} samples could not be read: {', '.join(damaged)}")
    return lines


def _published_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """The published figure, the same from floats of PyTorch, and what rounding to bytes costs."""
    published, measured = published_text(summary["published"])
    yield f"  published:      {published}"
    if not measured:
        return
    yield f"  PyTorch, here:  {measured}, from floats as published"
    floats = summary["published"]["measured"]["psnr"]
    of_bytes = [one for one in summary["artefacts"].values() if one["compared"] == "bytes"]
    if of_bytes and math.isfinite(floats):
        loss = floats - of_bytes[0]["reference_psnr"]
        yield f"  rounding:       new frames as bytes have {loss:.3f} dB less than as floats"


def _agreement(against: Mapping[str, Any]) -> str:
    """The mean PSNR to PyTorch; in brackets the number of identical frames, left out of it."""
    some = against["identical"] and not math.isinf(against["mean"])
    return _db(against["mean"]) + (f" ({against['identical']} identical)" if some else "")


def _db(value: float) -> str:
    return "identical" if math.isinf(value) else f"{value:.1f} dB"


def failures(
    lines: Sequence[Line], summary: Mapping[str, Any], max_drop: float, *, shown: int = 5
) -> list[str]:
    """Reasons for which the gate fails, as sentences; empty if it passes.

    Args:
        lines: Lines of the samples.
        summary: Summary of the run.
        max_drop: Maximum loss of an artefact against PyTorch in mean PSNR, in dB.
        shown: Number of worst frames to name.
    """
    reasons = []
    for name, one in summary["artefacts"].items():
        if one["drop"] > max_drop:
            frames = [f for f in new_frames(lines, name, one["compared"]) if f.drop > 0]
            worst = sorted(frames, key=lambda f: -f.drop)[:shown]
            named = ", ".join(f"{f.sample} at {f.timestep:g}: {f.drop:.4f} dB" for f in worst)
            reasons.append(
                f"{name} loses {one['drop']:.4f} dB against PyTorch, --max-drop is {max_drop:g}; "
                f"worst: {named}"
            )
    if summary["damaged"]:
        reasons.append(
            f"{len(summary['damaged'])} samples could not be read, --max-drop needs all of them: "
            f"{', '.join(summary['damaged'])}"
        )
    return reasons
