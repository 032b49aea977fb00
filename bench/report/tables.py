"""The tables of a report, with their notes and sources."""

from __future__ import annotations

import math

from bench.data.notes import sample_notes
from bench.data.published import METRIC_TITLES, published_text
from bench.harness.warnings import run_warnings
from bench.report.alternatives import clip_tables, speed_summary
from bench.report.evidence import Evidence, Latency
from bench.report.fps import case_name, fps_table
from bench.report.origins import origin_sentence, origins_table
from bench.report.runs import (
    ComparedRun,
    MeasuredRun,
    compared_runs,
    computed_precision,
    file_names,
    machine_name,
    measured_runs,
    several_machines,
)
from bench.report.text import NONE, RANDOM, Table, decibels, signed
from runtime.errors import rounded

_RANDOM_NOTE = (
    "Random weights: only the agreement of artefact and PyTorch has a meaning, so the PSNR to "
    "ground truth is left out."
)
_DIGITS = {"ssim_3d": 4, "ssim_2d": 4, "ie": 2}
"""Digits of metrics behind the point."""
_SHIPPED = "demo"
"""Name of the shipped weights in evidence."""
_SUMMARISED = (("fp32", ""), ("int8", "openvino"))
"""Precision and backend of the rows of the summary."""


def report_tables(evidence: Evidence) -> dict[str, Table]:
    """The tables that the evidence has data for, by name, in the order of a report."""
    clips = clip_tables(evidence.alternatives)
    for file, table in zip(evidence.alternatives, clips, strict=True):
        table.sources.append(origin_sentence(evidence, file))
    tables = (
        short_table(evidence),
        parity_table(evidence),
        latency_table(evidence),
        roofline_table(evidence),
        origins_table(evidence),
        *clips,
        quality_summary(evidence),
        speed_summary(evidence.alternatives),
    )
    return {table.name: table for table in tables if table.rows}


def short_table(evidence: Evidence) -> Table:
    """The fastest artefact of every case, `bench.report.fps.fps_table`."""
    cases = [
        (case, _machine_cell(file, evidence))
        for file in evidence.latencies
        for case in file.record["cases"]
    ]
    return fps_table(cases, fastest_only=True)


def parity_table(evidence: Evidence) -> Table:
    """Artefact against PyTorch and both against ground truth, by data set and artefact."""
    table = Table("parity", "Quality and parity")
    compared = compared_runs(evidence)
    if any(one.parity.configuration["weights"]["random"] for one in compared):
        table.notes[RANDOM] = _RANDOM_NOTE
    for one in compared:
        table.rows.append(_parity_row(table, one, evidence))
    # The name of a file is shown only if the other columns do not distinguish the rows.
    keys = ("data set", "variant", "precision", "I/O", "compared", "machine")
    if len({tuple(row[key] for key in keys) for row in table.rows}) == len(table.rows):
        for row in table.rows:
            row["artefact"] = ""
    return table


def quality_summary(evidence: Evidence) -> Table:
    """One row for each data set: the shipped weights in float32, and in int8 where measured.

    Of several results of a data set the one with the most samples is used, and of these the one
    with the lowest PSNR to PyTorch. Only comparisons of bytes are used, because users get bytes.
    """
    table = Table("quality-summary", "Quality, in short")
    candidates = [
        one
        for one in compared_runs(evidence)
        if one.parity.configuration["weights"]["name"] == _SHIPPED
        and not one.parity.configuration["weights"]["random"]
        and one.artefact["io"] == "frames"
    ]
    for title in dict.fromkeys(one.parity.configuration["title"] for one in candidates):
        for precision, backend in _SUMMARISED:
            found = [
                one
                for one in candidates
                if one.parity.configuration["title"] == title
                and computed_precision(one.artefact).partition(",")[0] == precision
                and one.artefact["backend"].startswith(backend)
            ]
            if found:
                table.rows.append(_quality_row(min(found, key=_rank)))
    return table


def _rank(one: ComparedRun) -> tuple[int, float]:
    worst = one.result["against_reference"]["worst"]
    lowest = None if worst is None else worst["psnr"]
    return -one.parity.summary["samples"], math.inf if lowest is None else lowest


def _samples_cell(one: ComparedRun) -> str:
    """The number of samples; of a part also that of the official data set, as "48 of 379"."""
    samples, official = one.parity.summary["samples"], one.parity.configuration["official_samples"]
    return str(samples) if official in (None, samples) else f"{samples} of {official}"


def _quality_row(one: ComparedRun) -> dict[str, str]:
    configuration, result = one.parity.configuration, one.result
    factor = configuration["protocol"]["factor"]
    worst, drop = result["against_reference"]["worst"], result["drop"]
    return {
        "data set": configuration["title"] + ("" if factor == 2 else f", {factor}x"),
        "samples": _samples_cell(one),
        "precision": computed_precision(one.artefact),
        "PSNR of PyTorch to the true frames, dB": decibels(result["reference_psnr"], 2),
        "PSNR of the artefact to the true frames, dB": decibels(result["psnr"], 2),
        "difference, dB": NONE if drop is None else signed(-drop, 3),
        "lowest PSNR of the artefact to PyTorch, dB": decibels(worst["psnr"] if worst else None, 1),
    }


def _parity_row(table: Table, one: ComparedRun, evidence: Evidence) -> dict[str, str]:
    configuration, summary, result = one.parity.configuration, one.parity.summary, one.result
    random = configuration["weights"]["random"]
    title, official = configuration["title"], configuration["official_samples"]
    notes = [f"{title}: {note}" for note in sample_notes(configuration)]
    if damaged := summary["damaged"]:
        notes.append(f"{title}: {len(damaged)} damaged, left out: {', '.join(damaged)}")
    if official == summary["samples"] and (seconds := summary.get("wall_seconds")):
        count = len(configuration["artefacts"])
        what = "one artefact" if count == 1 else f"{count} artefacts"
        notes.append(f"{title}: {official} samples in {seconds:.0f} s (PyTorch, {what}, metrics)")
    drop = None if random else result["drop"]
    row = {
        "data set": table.marked(title, notes),
        "samples": _samples_cell(one),
        "machine": machine_name(one.parity.environment) if several_machines(evidence) else "",
        "variant": configuration["weights"]["variant"] + (f" {RANDOM}" if random else ""),
        "artefact": one.artefact["name"],
        "precision": computed_precision(one.artefact),
        "I/O": one.artefact["io"],
        "compared": one.artefact["compared"],
        "PyTorch, dB": NONE if random else decibels(result["reference_psnr"], 2),
        "artefact, dB": NONE if random else decibels(result["psnr"], 2),
        "difference, dB": NONE if drop is None else signed(-drop, 3),
        **_agreement_cells(one),
    }
    for metric, digits in _DIGITS.items():
        value = result.get(metric)
        shown = f"{value:.{digits}f}" if isinstance(value, float | int) else ""
        row[METRIC_TITLES[metric]] = NONE if shown and random else shown
    return row | _published_cells(one)


def _agreement_cells(one: ComparedRun) -> dict[str, str]:
    agreement = one.result["against_reference"]
    mean, worst = decibels(agreement["mean"], 1), agreement["worst"]
    if agreement["mean"] is not None and agreement["identical"]:
        mean += f" ({agreement['identical']} identical)"
    least = NONE if worst is None else decibels(worst["psnr"], 1)
    if worst is not None and worst["psnr"] is not None:
        # Only factors above 2 have time steps other than the middle.
        at = "" if worst["timestep"] == 0.5 else f", t = {worst['timestep']:g}"
        least += f" ({worst['sample']}{at})"
    return {"artefact against PyTorch: mean, dB": mean, "worst, dB (sample)": least}


def _published_cells(one: ComparedRun) -> dict[str, str]:
    """The published figure, and the same of PyTorch here, from floats as published figures are."""
    record = one.parity.summary["published"]
    if record is None or one.parity.configuration["weights"]["random"]:
        return {"published": "", "PyTorch here, from floats": ""}
    published, measured = published_text(record)
    return {"published": published, "PyTorch here, from floats": measured}


def latency_table(evidence: Evidence) -> Table:
    """Every run of every case, with its speed against each baseline of the same rounds."""
    table = Table("latency", "Latency")
    runs = measured_runs(evidence)
    ratios = [ratio for one in runs for ratio in one.case["ratios"]]
    baselines = list(dict.fromkeys(ratio["slower"] for ratio in ratios))
    for one in runs:
        run, milliseconds = one.run, one.run["milliseconds"]
        table.rows.append(
            {
                "size": case_name(one.case),
                "factor": str(one.case["factor"]),
                "machine": _machine_cell(one.latency, evidence),
                "variant": run["variant"] or NONE,
                "run": table.marked(one.name, run_warnings(one.case, run)),
                "median, ms": rounded(milliseconds["p50"]),
                "p90, ms": rounded(milliseconds["p90"]),
                "per new frame, ms": rounded(run["milliseconds_per_frame"]),
                "new frames/s": rounded(run["fps"]),
                "IQR, %": f"{100 * milliseconds['iqr'] / milliseconds['p50']:.1f}",
                **{f"against {name}": _ratio_cell(one, name) for name in baselines},
                **_cold_cells(one),
            }
        )
    table.sources = list(dict.fromkeys(_sentence(f.record["what"]) for f in evidence.latencies))
    table.sources += _failures(evidence)
    table.sources += [
        f"In brackets: the {100 * confidence:g} % confidence interval of the ratio."
        for confidence in sorted({ratio["confidence"] for ratio in ratios})
    ]
    return table


def _failures(evidence: Evidence) -> list[str]:
    """A sentence for each run that failed."""
    return [
        f"Missing in {name} at {case['size']}: {run} ({failure['failed']})."
        for file, name in ((file, file_names(evidence)[file.path]) for file in evidence.latencies)
        for case in file.record["cases"]
        for run, failure in case.get("failed", {}).items()
    ]


def _ratio_cell(one: MeasuredRun, baseline: str) -> str:
    for ratio in one.case["ratios"]:
        if (ratio["slower"], ratio["faster"]) == (baseline, one.name):
            return f"{ratio['p50']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})"
    return ""


def _cold_cells(one: MeasuredRun) -> dict[str, str]:
    cold = one.run["cold"]
    peak, device = (cold["peak_host_bytes"], cold["device_bytes"]) if cold else (None, None)
    return {
        "peak memory, MB": "" if peak is None else rounded(peak / 1e6),
        "GPU memory, MB": "" if device is None else rounded(device / 1e6),
        "load, s": rounded(cold["load_seconds"]) if cold else "",
    }


def roofline_table(evidence: Evidence) -> Table:
    """The share of its machine's peak performance that each run reaches, if its work is known."""
    table = Table("roofline", "Share of the machine's peak performance")
    paths = set()
    for one in measured_runs(evidence):
        work, roofline = one.run["work"], one.run["roofline"]
        if work is None:
            continue
        paths.add(one.latency.path)
        table.rows.append(
            {
                "size": case_name(one.case),
                "factor": str(one.case["factor"]),
                "machine": _machine_cell(one.latency, evidence),
                "run": one.name,
                "GFLOP of a pair": rounded(work["operations"] / 1e9),
                "GFLOP/s": rounded(roofline["flops_per_second"] / 1e9) if roofline else NONE,
                "of the matmul ceiling": _percent(roofline["share_of_matmul"])
                if roofline
                else NONE,
                "MB moved": rounded(work["bytes_moved"] / 1e6),
                "of the copy ceiling": _percent(roofline["share_of_copy"]) if roofline else NONE,
            }
        )
    files = [file for file in evidence.latencies if file.path in paths]
    table.sources = [_ceilings(file, evidence) for file in files]
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _machine_cell(file: Latency, evidence: Evidence) -> str:
    return machine_name(file.environment) if several_machines(evidence) else ""


def _ceilings(file: Latency, evidence: Evidence) -> str:
    name, ceilings = file_names(evidence)[file.path], file.record["ceilings"]
    if "problem" in ceilings:
        return f"Ceilings in {name}: not measured ({ceilings['problem']})."
    if "gpu" in ceilings:
        tflops = rounded(ceilings["matmul_fp16_tflops"]["p50"])
        return (
            f"Ceilings in {name}: matmul of float16 {tflops} TFLOP/s on {ceilings['gpu']}, "
            f"measured with {ceilings['measured_with']}."
        )
    return (
        f"Ceilings in {name}: matmul {rounded(ceilings['matmul_flops_per_second'] / 1e9)} GFLOP/s, "
        f"copy {rounded(ceilings['copy_bytes_per_second'] / 1e9)} GB/s, "
        f"measured with {ceilings['measured_with']}."
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
