"""What the samples of a parity run come to: means, worst frames, the table, the gate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bench.quality.metrics import mean_db

Line = Mapping[str, Any]


class NewFrame(NamedTuple):
    """One new frame of one artefact.

    Attributes:
        sample: Its name.
        timestep: In (0, 1).
        reference: PSNR of PyTorch to the true frame, in dB; inf where identical.
        made: PSNR of the artefact to the true frame.
        against: PSNR of the artefact to PyTorch.
    """

    sample: str
    timestep: float
    reference: float
    made: float
    against: float

    @property
    def drop(self) -> float:
        """What the artefact loses to the true frame, in dB; nan where PyTorch is identical."""
        return self.reference - self.made if math.isfinite(self.reference) else math.nan


def new_frames(lines: Sequence[Line], artefact: str, compared: str) -> list[NewFrame]:
    """Every new frame of an artefact, in order."""

    def numbers(values: Sequence[float | None]) -> Iterator[float]:
        return (math.inf if value is None else value for value in values)

    found = []
    for line in lines:
        if "damaged" in line:
            continue
        made = line["artefacts"][artefact]
        columns = [
            list(numbers(values))
            for values in (
                line["reference"][compared]["psnr"], made["psnr"], made["against_reference"],
            )
        ]  # fmt: skip
        factor = len(columns[0]) + 1
        found += [
            NewFrame(line["sample"], k / factor, *row)
            for k, row in enumerate(zip(*columns, strict=True), 1)
        ]
    return found


def summarise(
    lines: Sequence[Line], artefacts: Mapping[str, str], metrics: Sequence[str], factor: int
) -> dict[str, Any]:
    """The last line of the file; see `summary_of`.

    Args:
        lines: Of the samples.
        artefacts: By name, what each is compared as: "floats" or "bytes".
        metrics: What was measured.
        factor: Of the protocol.
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
) -> dict[str, Any]:
    """Means over all new frames, and the worst of them.

    A frame that PyTorch or the artefact makes exactly as the true one has no finite PSNR: it is
    in neither mean, so that the two stay comparable, and counted.
    """
    frames = new_frames(lines, artefact, compared)
    counted = [f for f in frames if math.isfinite(f.reference) and math.isfinite(f.made)]
    reference = mean_db([f.reference for f in counted])
    made = mean_db([f.made for f in counted])
    worst = min(frames, key=lambda f: f.against)
    loses = max(counted, key=lambda f: f.drop, default=None)
    summary: dict[str, Any] = {
        "compared": compared,
        "psnr": made,
        "reference_psnr": reference,
        "drop": reference - made if counted else 0.0,
        "identical_to_truth": len(frames) - len(counted),
        "by_timestep": [
            [
                k / factor,
                mean_db([f.reference for f in counted if f.timestep == k / factor]),
                mean_db([f.made for f in counted if f.timestep == k / factor]),
            ]
            for k in range(1, factor)
            if factor > 2
        ],
        "against_reference": {
            "mean": mean_db([f.against for f in frames]),
            "identical": sum(math.isinf(f.against) for f in frames),
            "worst": {"sample": worst.sample, "timestep": worst.timestep, "psnr": worst.against},
        },
        "worst_drop": loses
        and {"sample": loses.sample, "timestep": loses.timestep, "drop": loses.drop},
    }
    for metric in metrics:
        if metric != "psnr":
            summary[metric] = _mean(line["artefacts"][artefact][metric] for line in lines)
            summary[f"reference_{metric}"] = _mean(
                line["reference"][compared][metric] for line in lines
            )
    return summary


def _mean(values: Iterator[Sequence[float]]) -> float:
    flat = [one for some in values for one in some]
    return math.fsum(flat) / len(flat)


def worst_frames(
    lines: Sequence[Line], artefacts: Mapping[str, str], count: int
) -> list[tuple[str, NewFrame]]:
    """For each artefact the `count` new frames that are farthest from PyTorch, worst first."""
    return [
        (name, frame)
        for name, compared in artefacts.items()
        for frame in sorted(new_frames(lines, name, compared), key=lambda f: f.against)[:count]
    ]


def table(configuration: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    """What is printed at the end, for a person."""
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
        f"  {'artefact':{width}}  as      PyTorch dB  artefact dB  difference  "
        f"to PyTorch: mean   worst (sample)  {'  '.join(names)}"
    )
    for name, found in summary["artefacts"].items():
        against = found["against_reference"]
        difference = round(-found["drop"], 4) + 0.0  # No minus before a zero.
        values = "  ".join(
            f"{found[metric]:.4f} ({found[f'reference_{metric}']:.4f})" for metric in further
        )
        lines.append(
            f"  {name:{width}}  {found['compared']:6}  {found['reference_psnr']:10.3f}  "
            f"{found['psnr']:11.3f}  {difference:+10.4f}  {_db(against['mean']):>16}  "
            f"{_db(against['worst']['psnr'])} ({against['worst']['sample']})  {values}"
        )
        if found["identical_to_truth"]:
            lines.append(
                f"    {found['identical_to_truth']} new frames are exactly the true ones and in "
                "no mean"
            )
    if published := summary["published"]:
        error = "" if published["ie"] is None else f", IE {published['ie']}"
        ssim = (
            "" if published["ssim"] is None else f", {published['ssim_kind']} {published['ssim']}"
        )
        lines.append(f"  published: {published['psnr']} dB{ssim}{error} ({published['source']})")
    lines += [f"  {sentence}" for sentence in configuration["notes"]]
    if damaged := summary["damaged"]:
        lines.append(f"  {len(damaged)} samples could not be read: {', '.join(damaged)}")
    return lines


def _db(value: float) -> str:
    return "identical" if math.isinf(value) else f"{value:.1f} dB"


def failures(
    lines: Sequence[Line], summary: Mapping[str, Any], max_drop: float, *, shown: int = 5
) -> list[str]:
    """Why the gate is not passed, as sentences; none where it is.

    Args:
        lines: Of the samples.
        summary: Made of them.
        max_drop: What an artefact may lose against PyTorch in mean PSNR, in dB.
        shown: How many of the worst samples are named.
    """
    found = []
    for name, one in summary["artefacts"].items():
        if one["drop"] > max_drop:
            frames = [f for f in new_frames(lines, name, one["compared"]) if f.drop > 0]
            worst = sorted(frames, key=lambda f: -f.drop)[:shown]
            named = ", ".join(f"{f.sample} at {f.timestep:g}: {f.drop:.4f} dB" for f in worst)
            found.append(
                f"{name} loses {one['drop']:.4f} dB against PyTorch, --max-drop is {max_drop:g}; "
                f"worst: {named}"
            )
    if summary["damaged"]:
        found.append(
            f"{len(summary['damaged'])} samples could not be read, --max-drop needs all: "
            f"{', '.join(summary['damaged'])}"
        )
    return found
