"""Compares the results of tools/gpu_check.py with goals and predictions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpu_check_steps import COMPILED, COMPILED_MAX, EAGER, REWRITES, TEST_RUNS, Scale, planned

BASE_GFLOP_AT_720P = 356.4
"""GFLOP of a pair, counted from the shapes of the convolutions; a multiply-add counts as 2."""

PREDICTED: dict[tuple[str, int], tuple[float, ...]] = {
    ("H100", 8): (2.1, 1.65, 4.3, 3.4, 0.45),
    ("H200", 8): (2.0, 1.55, 4.0, 3.1, 0.45),
    ("H100", 10): (1.5, 1.2, 3.2, 2.6),
    ("RTX 4090", 10): (4.2, 3.1, 9.5, 7.0),
    ("Orin", 10): (27, 20, 61, 44),
}
"""GPU and major version of TensorRT (10: and later) -> predicted compute times in ms, in fp16 with
a CUDA graph: base and small at 720p, base and small at 1080p, small at 448x256. A measured time
within 30 % is "as predicted"."""

EQUAL_DB = 99.0
"""PSNR that is used for equal images, whose PSNR is infinite."""

Steps = Mapping[str, Any]
Row = dict[str, Any]


def summary(steps: Steps, scale: Scale) -> list[Row]:
    """Compares the results of a check with goals and predictions.

    Args:
        steps: The entries of the record, by name.
        scale: The scale of the check.

    Returns:
        Rows with "goal", "wanted", "predicted", "measured", "status", "missing" and explanations. A
        goal without a measurement is "not measured". A goal that is met, but that missing
        measurements could still change, is "undecided".
    """
    small, middle, large = scale.sizes
    main, full, rows = f"base_{middle}", scale == Scale(), []

    def add(
        goal: str, measured: float | None, wanted: float | None = None, missing: Sequence[str] = (),
        *, at_most: bool = False, predicted: float | None = None, **more: Any,
    ) -> None:  # fmt: skip
        status = "not measured" if measured is None else "measured"
        if measured is not None and wanted is not None:
            met = measured <= wanted if at_most else measured >= wanted
            status = ("undecided" if missing else "met") if met else "not met"
        elif measured is not None and predicted is not None:
            close = abs(measured / predicted - 1) <= 0.3
            status = "as predicted" if close else "not as predicted"
        row = {"goal": goal, "wanted": wanted, "predicted": predicted, "measured": measured}
        rows.append({**row, "status": status, "missing": list(missing), **more})

    ours = compute_ms(steps, f"latency_{main}", f"{main}.engine")
    torch, failed = torch_ms(steps)
    best = min(torch, key=torch.__getitem__, default=None)
    missing = [n for n in f"{EAGER} {COMPILED} {COMPILED_MAX}".split() if n not in torch | failed]
    faster = _ratio(torch[best] if best else None, ours)
    goal = f"base {middle}: times as fast as the best PyTorch"
    add(goal, faster, 1.5, missing, best_pytorch=best, failed=failed)
    plain = compute_ms(steps, f"plain_{main}", f"plain_{main}.onnx")
    same_run = compute_ms(steps, f"plain_{main}", f"{main}.engine")
    add(f"base {middle}: times as fast as the plain export", _ratio(plain, same_run), 1.2)
    peak = _get(steps, "torch_eager_base", "ceilings", "matmul_fp16_tflops", "p50")
    share = _ratio(_ratio(BASE_GFLOP_AT_720P, ours), peak) if full else None
    add(f"base {middle}: share of the measured matmul peak", share, 0.5)
    ms = compute_ms(steps, f"latency_small_{small}", f"small_{small}.engine")
    add(f"small {small}: compute ms", ms, 0.5, at_most=True)
    for goal, begin, parts, kind, wanted in (
        ("fp16 engines: dB of the gate", "build", "ABD", "", 50),
        ("fp16 engines: dB to PyTorch on a real pair", "pair", "AB", "", 50),
        ("ONNX Runtime CUDA fp16: dB to PyTorch on a real pair", "pair", ("ort",), "fp16", 50),
        ("ONNX Runtime CUDA fp32: dB to PyTorch on a real pair", "pair", ("ort",), "fp32", 70),
    ):
        names = [s.name for s in planned(scale) if s.part in parts and s.name.startswith(begin)]
        figures = {name: psnr_db(steps, name, kind) for name in names}
        worst = min((db for db in figures.values() if db is not None), default=None)
        add(goal, worst, wanted, [name for name in names if figures[name] is None])
    tests = {f"tests_{name}": _get(steps, f"tests_{name}", "tests") for name in TEST_RUNS}
    outcomes = Counter(test["outcome"] for run in tests.values() for test in run or ())
    failures = outcomes["failure"] + outcomes["error"] if outcomes else None
    missing = [name for name, run in tests.items() if not run]
    add("GPU tests: failures", failures, 0, missing, at_most=True, outcomes=outcomes)
    order = ("base", middle), ("small", middle), ("base", large), ("small", large), ("small", small)
    predictions = [*(predicted_ms(steps) if full else ()), *[None] * len(order)]
    for name, predicted in zip((f"{v}_{size}" for v, size in order), predictions, strict=False):
        ms = compute_ms(steps, f"latency_{name}", f"{name}.engine")
        add(f"{name}: compute ms", ms, predicted=predicted)
    for change in REWRITES:
        before, after = (compute_ms(steps, f"rewrite_{change}", f"{name}.engine")
                         for name in (main, f"{main}_{change}"))  # fmt: skip
        add(f"rewrite {change}: times as fast", _ratio(before, after))
    for variant, size in order:
        for name, run in _runs(steps, f"ort_{variant}_{size}"):
            add(f"{name}: ms a pair", run["milliseconds"]["p50"])
    return rows


def _ratio(dividend: float | None, divisor: float | None) -> float | None:
    """The quotient; None if a value is missing or 0."""
    return dividend / divisor if dividend and divisor else None


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The rows as a table of text, line by line."""
    columns = ("goal", "wanted", "predicted", "measured", "status")
    for row in (dict(zip(columns, columns, strict=True)), *rows):
        cells = ["" if row[k] is None else str(row[k])[:9] for k in columns[1:4]]
        undecided = row["status"] == "undecided"
        missing = f"; missing: {', '.join(row['missing'])}" if undecided else ""
        yield "  ".join(
            (f"{row['goal']:<60}", *(f"{c:>9}" for c in cells), row["status"] + missing)
        )


def _get(steps: Steps, name: str, *keys: str) -> Any:
    """A value in the result of a step; None if it is missing."""
    value: Any = steps.get(name, {}).get("result")
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _runs(steps: Steps, step: str) -> Iterator[tuple[str, Any]]:
    for case in _get(steps, step, "cases") or ():
        yield from case["runs"].items()


def compute_ms(steps: Steps, step: str, file: str) -> float | None:
    """Median time in ms of the network alone, with one stream and a CUDA graph."""
    for title, run in _runs(steps, step):
        if title.startswith(f"{file} on") and title.endswith("1 stream, CUDA graph"):
            return float(run["parts_of_a_call_milliseconds"]["compute"]["p50"])
    return None


def torch_ms(steps: Steps) -> tuple[dict[str, float], dict[str, str]]:
    """PyTorch with base: run -> median time of the network in ms, and failed run -> reason."""
    times, failed = {}, {}
    for name in ("torch_eager_base", "torch_compile_base", "torch_max_base"):
        for _, run in _runs(steps, name):
            if run["agreement"]["finite"]:
                ms = run["parts_of_a_call_milliseconds"]["compute"]["p50"]
                times[run["pytorch"]["name"]] = float(ms)
            else:
                failed[run["pytorch"]["name"]] = "its images have values that are not finite"
        for case in _get(steps, name, "cases") or ():
            failed |= {run["compare"]: run["failed"] for run in case["failed"].values()}
    return times, failed


def psnr_db(steps: Steps, name: str, kind: str) -> float | None:
    """The PSNR in an engine's gate, or the lowest of the models whose names contain `kind`."""
    gate, models = _get(steps, name, "gate"), _get(steps, name, "models") or {}
    reports = [gate] if gate else [report for model, report in models.items() if kind in model]
    values = [report["psnr_db"] for report in reports if "psnr_db" in report]
    return min((EQUAL_DB if value is None else value for value in values), default=None)


def predicted_ms(steps: Steps) -> tuple[float, ...]:
    """The predictions for the GPU and the TensorRT that built the engines; () if there are none."""
    engines = (_get(steps, name, "engine") for name in steps if name.startswith("build"))
    for engine in filter(None, engines):
        major = min(10, int(engine["tensorrt"].split(".")[0]))
        for (gpu, version), ms in PREDICTED.items():
            if version == major and re.search(rf"\b{gpu}\b", engine["gpu"]):
                return ms
    return ()
