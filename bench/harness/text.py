"""Formats the evidence of one case as text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from bench.harness.layers import Layers, layer_lines
from bench.records.latency import CaseRecord, ImageAgreement, RunRecord
from runtime.errors import counted, rounded

_INDENT = " " * 4


def case_lines(
    case: CaseRecord, layers: Mapping[str, Layers], *, threads: int | None
) -> Iterator[str]:
    """Yields the lines of a case: a table of the runs, their details, ratios, layers.

    Args:
        case: The evidence of the case.
        layers: Milliseconds of each layer, by name of the file.
        threads: CPU threads of the runs; None if all ran on a GPU.
    """
    runs = case["runs"]
    rounds = max((len(run["seconds"]) for run in runs.values()), default=0)
    on = f", {counted(threads, 'thread')}" if threads else ""
    name = f"{case['dataset']}, " if case["dataset"] else ""
    yield ""
    yield f"{name}{case['size']}, factor {case['factor']}{on}, {rounds} interleaved rounds"
    heading = "milliseconds of a pair"
    width = max(map(len, [heading, *runs]))
    yield (
        f"  {heading:{width}} {'p50':>9} {'p90':>9} {'p99':>9} {'mean':>9} "
        f"{'IQR':>6} {'per frame':>9} {'fps':>8} {'samples':>7}"
    )
    for run_name, run in runs.items():
        ms = run["milliseconds"]
        yield (
            f"  {run_name:{width}} {ms['p50']:9.3f} {ms['p90']:9.3f} {ms['p99']:9.3f} "
            f"{ms['mean']:9.3f} {ms['iqr'] / ms['p50']:6.1%} {run['milliseconds_per_frame']:9.3f} "
            f"{rounded(run['fps']):>8} {run['samples']:7}"
        )
    for run_name, failure in case["failed"].items():
        yield f"  {run_name} failed: {failure['failed']}"
    for run_name, run in runs.items():
        if details := list(_details(run)):
            yield f"  {run_name}"
            yield from (f"{_INDENT}{line}" for line in details)
    yield from (f"  {line}" for line in _ratio_lines(case))
    for file, of_file in layers.items():
        yield f"  {file}"
        yield from (f"{_INDENT}{line}" for line in layer_lines(of_file))


def _details(run: RunRecord) -> Iterator[str]:
    """Lines about a run below the table: agreement, parts, cold start, roofline, warnings."""
    pytorch = run["pytorch"]
    if pytorch and "gpu" in pytorch:
        yield f"computes  {pytorch['how']}"
        yield (
            f"first     result after {pytorch['seconds_to_first_result']:.1f} s, "
            f"{pytorch['gpu_memory_bytes'] / 2**20:.0f} MiB of GPU memory"
        )
    if compared := run["agreement"]:
        yield f"compared  {_agreement(compared)}"
    if parts := run["parts_of_a_call_milliseconds"]:
        times = ", ".join(f"{part} {figures['p50']:.3f} ms" for part, figures in parts.items())
        yield f"call      {times}"
    if stream := run["stream"]:
        yield f"stream    {stream['pairs_per_second']:.1f} pairs per second"
    if cold_start := run["cold"]:
        memory = [
            f"{size / 2**20:.0f} MiB {where}"
            for size, where in (
                (cold_start["peak_host_bytes"], "of host memory"),
                (cold_start["device_bytes"], "of GPU memory"),
            )
            if size is not None
        ]
        times = (
            f"import {cold_start['import_seconds']:.2f} s, "
            f"load {cold_start['load_seconds']:.2f} s, "
            f"first pair {cold_start['first_pair_seconds']:.2f} s"
        )
        yield f"cold      {', '.join([times, *memory])}"
    if work := run["work"]:
        yield (
            f"work      {work['operations'] / 1e9:.1f} GFLOP; {work['bytes_moved'] / 1e9:.2f} GB "
            f"moved without fusion, {work['bytes_least'] / 1e6:.1f} MB at least"
        )
    if roofline := run["roofline"]:
        yield (
            f"roofline  {roofline['flops_per_second'] / 1e9:.1f} GFLOP/s, "
            f"{roofline['share_of_matmul']:.0%} of the matmul peak; "
            f"{roofline['bytes_per_second'] / 1e9:.1f} GB/s, "
            f"{roofline['share_of_copy']:.0%} of the copy peak"
        )
    for warning in run["warnings"]:
        yield f"warning   {warning}"


def _agreement(compared: ImageAgreement) -> str:
    if not compared["finite"]:
        return f"with {compared['reference']}: the result has values that are not finite"
    db = compared["psnr_db"]
    worst = compared.get("worst_psnr_db")
    frames = compared.get("frames", 1)
    least = f", worst of {frames} frames {worst:.1f} dB" if worst is not None and frames > 1 else ""
    return f"{'identical' if db is None else f'{db:.1f} dB'} to {compared['reference']}{least}"


def _ratio_lines(case: CaseRecord) -> Iterator[str]:
    """Lines of the pairs of artefact and PyTorch without a ratio, and of all ratios."""
    known = {(ratio["slower"], ratio["faster"]) for ratio in case["ratios"]}
    names = {
        kind: [name for name, run in case["runs"].items() if run["kind"] == kind]
        for kind in ("pytorch", "artefact")
    }
    for slower, faster in itertools.product(names["pytorch"], names["artefact"]):
        if (slower, faster) not in known:
            yield f"no ratio of {slower} to {faster}: their variant or flow scale differs"
    for ratio in case["ratios"]:
        yield (
            f"{ratio['faster']} is {ratio['p50']:.2f}x as fast as {ratio['slower']} "
            f"({ratio['confidence']:.0%} interval {ratio['low']:.2f} to {ratio['high']:.2f})"
        )
    for ratio in case["compute_ratios"]:
        yield (
            f"{ratio['faster']} computes {ratio['p50']:.2f}x as fast as {ratio['slower']} "
            f"({ratio['confidence']:.0%} interval {ratio['low']:.2f} to {ratio['high']:.2f}), "
            "without copies"
        )
