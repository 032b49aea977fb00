"""What tools/gpu_check.py found, held against the goals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpu_check_plan import ALL_REWRITES, REWRITES, TORCH_RUNS

GFLOP_AT_720P = {"small": 202.4, "base": 356.4, "large": 1411.8}
"""Arithmetic of one pair at 720x1280, 2 for a multiplication with an addition, counted from the
shapes of the convolutions of IFRNet (CVPR 2022)."""


def goals(steps: Mapping[str, Any]) -> dict[str, Any]:
    """Each goal with its numbers: met, not met, or not measured."""
    base_ms = compute_ms(steps, "base_720x1280_fp16")
    best = best_torch(steps)
    plain = _get(steps, "plain_base_720x1280", "plain_over_ours") or {}
    plain_ratio = min((ratio["p50"] for ratio in plain.values()), default=None)
    peak = _get(steps, "torch_matmul_peak", "tflops", "p50")
    reached = GFLOP_AT_720P["base"] / base_ms if base_ms else None  # GFLOP / ms = TFLOP/s
    share = reached / peak if reached and peak else None
    small_ms = compute_ms(steps, "small_256x448_fp16")
    parity, missing = parities(steps, "fp16")
    worst = min(parity.values(), default=None)
    tests = _get(steps, "tests", "tests") or []
    return {
        "base fp16 at 720x1280: compute 1.5 times as fast as the best PyTorch": _goal(
            best and base_ms and best[1] / base_ms, 1.5, compute_ms=base_ms, best_pytorch=best
        ),
        "base fp16 at 720x1280: compute 1.2 times as fast as the plain export": _goal(
            plain_ratio, 1.2, plain_over_ours=plain
        ),
        "base fp16 at 720x1280: half of the measured matmul peak": _goal(
            share, 0.5, tflops=reached, peak_tflops=peak, gflop=GFLOP_AT_720P["base"]
        ),
        "small fp16 at 256x448: compute under 0.5 ms with a CUDA graph": _goal(
            small_ms, 0.5, at_most=True, end_to_end_ms=end_to_end_ms(steps, "small_256x448_fp16")
        ),
        "every fp16 engine that was built: 50 dB or more": _goal(
            worst, 50.0, psnr_db=parity, not_measured=missing
        ),
        "every fp32 engine that was built: 70 dB or more": _goal(
            min(parities(steps, "fp32")[0].values(), default=None),
            70.0,
            psnr_db=parities(steps, "fp32")[0],
            not_measured=parities(steps, "fp32")[1],
        ),
        "GPU tests: all passed": _goal(
            sum(t["outcome"] in ("failure", "error") for t in tests) if tests else None,
            0.0,
            at_most=True,
            count=len(tests),
            skipped=[t["name"] for t in tests if t["outcome"] == "skipped"],
        ),
        "rewrites": rewrite_table(steps),
    }


def _goal(
    found: float | None, wanted: float, *, at_most: bool = False, **numbers: Any
) -> dict[str, Any]:
    status = "not measured"
    if found is not None:
        met = found <= wanted if at_most else found >= wanted
        status = "met" if met else "not met"
    return {"status": status, "found": found, "wanted": wanted, **numbers}


def _get(steps: Mapping[str, Any], name: str, *keys: str) -> Any:
    """A value of a step's result; None where it is not there."""
    value: Any = steps.get(name, {}).get("result")
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _run_of(steps: Mapping[str, Any], step: str, engine: str) -> Any:
    """An engine's run with one stream and a CUDA graph, in what bench.latency wrote of one size."""
    for case in _get(steps, step, "cases") or []:
        for name, run in case["runs"].items():
            if name.startswith(f"{engine}.engine on") and name.endswith("1 stream, CUDA graph"):
                return run
    return None


def compute_ms(steps: Mapping[str, Any], engine: str, step: str | None = None) -> float | None:
    """Median milliseconds of the network with one stream and a CUDA graph."""
    run = _run_of(steps, step or f"latency_{engine}", engine)
    return None if run is None else float(run["parts_of_a_call_milliseconds"]["compute"]["p50"])


def end_to_end_ms(steps: Mapping[str, Any], engine: str) -> float | None:
    """Median milliseconds of a pair from host to host, with one stream and a CUDA graph."""
    run = _run_of(steps, f"latency_{engine}", engine)
    return None if run is None else float(run["milliseconds"]["p50"])


def best_torch(steps: Mapping[str, Any]) -> tuple[str, float] | None:
    """The fastest PyTorch of base at 720x1280 and its milliseconds.

    However far from float32, if only it gives numbers.
    """
    found = {
        run: _get(steps, f"torch_{run}_base_720x1280", "milliseconds", "p50")
        for run in TORCH_RUNS["base"]
        if _get(steps, f"torch_{run}_base_720x1280", "finite")
    }
    measured = {run: float(ms) for run, ms in found.items() if ms}
    return min(measured.items(), key=lambda item: item[1]) if measured else None


def parities(steps: Mapping[str, Any], precision: str) -> tuple[dict[str, float], list[str]]:
    """The worst PSNR that the gate of each engine saw, and the engines that there are not."""
    found: dict[str, float] = {}
    missing = []
    for name, entry in steps.items():
        if entry["part"] != "build" or not name.endswith(precision):
            continue
        gate = _get(steps, name, "gate")
        if entry["status"] != "ok" or gate is None:
            missing.append(name)
        else:  # Null where all pictures were identical.
            found[name] = 999.0 if gate["psnr_db"] is None else float(gate["psnr_db"])
    return found, missing


def rewrite_table(steps: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Change, predicted, measured."""
    engine = "base_720x1280_fp16"
    table = []
    for change in (*REWRITES, "all"):
        step = f"rewrite_{change}"
        before = compute_ms(steps, engine, step)
        after = compute_ms(steps, f"{engine}_{change}", step)
        table.append(
            {
                "change": change,
                "predicted": REWRITES.get(change, f"{', '.join(ALL_REWRITES)} together"),
                "plain_ms": before,
                "changed_ms": after,
                "times_as_fast": before / after if before and after else None,
                "psnr_db": _get(steps, f"build_{engine}_{change}", "gate", "psnr_db"),
            }
        )
    return table
