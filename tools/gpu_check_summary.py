"""What tools/gpu_check.py found, beside goals and predictions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpu_check_steps import COMPILED, COMPILED_MAX, EAGER, REWRITES, TEST_RUNS, Scale, planned

BASE_GFLOP_AT_720P = 356.4
"""Arithmetic of a pair, counted from the shapes of the convolutions, a multiply-add as 2."""

PREDICTED: dict[tuple[str, int], tuple[float, ...]] = {
    ("H100", 8): (2.1, 1.65, 4.3, 3.4, 0.45),
    ("H200", 8): (2.0, 1.55, 4.0, 3.1, 0.45),
    ("H100", 10): (1.5, 1.2, 3.2, 2.6),
    ("RTX 4090", 10): (4.2, 3.1, 9.5, 7.0),
    ("Orin", 10): (27, 20, 61, 44),
}
"""By GPU and TensorRT (10 stands for later ones too): ms of compute with a CUDA graph in fp16 of
base and small at 720p, base and small at 1080p, small at 448x256; right within 30 %."""

EQUAL_DB = 99.0
"""Stands for the PSNR of equal pictures."""

Steps = Mapping[str, Any]
Row = dict[str, Any]


def summary(steps: Steps, scale: Scale) -> list[Row]:
    """Rows of "goal", "wanted", "predicted", "measured", "status" and what explains them.

    What was not measured is never met; what is met while measurements are missing that could
    change that is undecided.
    """
    small, middle, large = scale.sizes
    main, full, rows = f"base_{middle}", scale == Scale(), []

    def add(
        goal: str, found: float | None, wanted: float | None = None, missing: Sequence[str] = (),
        *, at_most: bool = False, predicted: float | None = None, **more: Any,
    ) -> None:  # fmt: skip
        status = "not measured" if found is None else "measured"
        if found is not None and wanted is not None:
            met = found <= wanted if at_most else found >= wanted
            status = ("undecided" if missing else "met") if met else "not met"
        elif found is not None and predicted is not None:
            status = "as predicted" if abs(found / predicted - 1) <= 0.3 else "not as predicted"
        row = {"goal": goal, "wanted": wanted, "predicted": predicted, "measured": found}
        rows.append({**row, "status": status, "missing": list(missing), **more})

    ours = compute_ms(steps, f"latency_{main}", f"{main}.engine")
    torch, failed = torch_ms(steps)
    best = min(torch, key=torch.__getitem__, default=None)
    missing = [n for n in f"{EAGER} {COMPILED} {COMPILED_MAX}".split() if n not in torch | failed]
    faster = _over(torch[best] if best else None, ours)
    goal = f"base {middle}: times as fast as the best PyTorch"
    add(goal, faster, 1.5, missing, best_pytorch=best, failed=failed)
    plain = compute_ms(steps, f"plain_{main}", f"plain_{main}.onnx")
    beside = compute_ms(steps, f"plain_{main}", f"{main}.engine")
    add(f"base {middle}: times as fast as the plain export", _over(plain, beside), 1.2)
    peak = _get(steps, "torch_eager_base", "ceilings", "matmul_fp16_tflops", "p50")
    share = _over(_over(BASE_GFLOP_AT_720P, ours), peak) if full else None
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
        found = {name: psnr_db(steps, name, kind) for name in names}
        worst = min((db for db in found.values() if db is not None), default=None)
        add(goal, worst, wanted, [name for name in names if found[name] is None])
    tests = {f"tests_{name}": _get(steps, f"tests_{name}", "tests") for name in TEST_RUNS}
    ended = Counter(test["outcome"] for run in tests.values() for test in run or ())
    failures = ended["failure"] + ended["error"] if ended else None
    missing = [name for name, run in tests.items() if not run]
    add("GPU tests: failures", failures, 0, missing, at_most=True, outcomes=ended)
    order = ("base", middle), ("small", middle), ("base", large), ("small", large), ("small", small)
    said = [*(predicted_ms(steps) if full else ()), *[None] * len(order)]
    for name, predicted in zip((f"{v}_{size}" for v, size in order), said, strict=False):
        ms = compute_ms(steps, f"latency_{name}", f"{name}.engine")
        add(f"{name}: compute ms", ms, predicted=predicted)
    for change in REWRITES:
        before, after = (compute_ms(steps, f"rewrite_{change}", f"{name}.engine")
                         for name in (main, f"{main}_{change}"))  # fmt: skip
        add(f"rewrite {change}: times as fast", _over(before, after))
    for variant, size in order:
        for name, run in _runs(steps, f"ort_{variant}_{size}"):
            add(f"{name}: ms a pair", run["milliseconds"]["p50"])
    return rows


def _over(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The rows as lines of text."""
    shown = ("goal", "wanted", "predicted", "measured", "status")
    for row in (dict(zip(shown, shown, strict=True)), *rows):
        cells = ["" if row[k] is None else str(row[k])[:9] for k in shown[1:4]]
        undecided = row["status"] == "undecided"
        missing = f"; missing: {', '.join(row['missing'])}" if undecided else ""
        yield "  ".join(
            (f"{row['goal']:<60}", *(f"{c:>9}" for c in cells), row["status"] + missing)
        )


def _get(steps: Steps, name: str, *keys: str) -> Any:
    """A value of a step's result; None where it is not there."""
    value: Any = steps.get(name, {}).get("result")
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _runs(steps: Steps, step: str) -> Iterator[tuple[str, Any]]:
    for case in _get(steps, step, "cases") or ():
        yield from case["runs"].items()


def compute_ms(steps: Steps, step: str, file: str) -> float | None:
    """Median ms of the network alone, with one stream and a CUDA graph."""
    for run, found in _runs(steps, step):
        if run.startswith(f"{file} on") and run.endswith("1 stream, CUDA graph"):
            return float(found["parts_of_a_call_milliseconds"]["compute"]["p50"])
    return None


def torch_ms(steps: Steps) -> tuple[dict[str, float], dict[str, str]]:
    """PyTorch with base: median ms of the network by run, and why others have none."""
    found, failed = {}, {}
    for name in ("torch_eager_base", "torch_compile_base", "torch_max_base"):
        for _, run in _runs(steps, name):
            if run["agreement"]["finite"]:
                ms = run["parts_of_a_call_milliseconds"]["compute"]["p50"]
                found[run["pytorch"]["name"]] = float(ms)
            else:
                failed[run["pytorch"]["name"]] = "its pictures have values that are not finite"
        for case in _get(steps, name, "cases") or ():
            failed |= {one["compare"]: one["failed"] for one in case["failed"].values()}
    return found, failed


def psnr_db(steps: Steps, name: str, kind: str) -> float | None:
    """The worst of an engine's gate, or of the models of a pair whose names hold `kind`."""
    gate, models = _get(steps, name, "gate"), _get(steps, name, "models") or {}
    found = [gate] if gate else [said for model, said in models.items() if kind in model]
    values = [said["psnr_db"] for said in found if "psnr_db" in said]
    return min((EQUAL_DB if value is None else value for value in values), default=None)


def predicted_ms(steps: Steps) -> tuple[float, ...]:
    """Of the GPU and the TensorRT that built the engines; nothing for those without predictions."""
    engines = (_get(steps, name, "engine") for name in steps if name.startswith("build"))
    for engine in filter(None, engines):
        major = min(10, int(engine["tensorrt"].split(".")[0]))
        for (gpu, version), ms in PREDICTED.items():
            if version == major and re.search(rf"\b{gpu}\b", engine["gpu"]):
                return ms
    return ()
