"""The summary of the GPU check: results compared with goals and predictions."""

from __future__ import annotations

import importlib

import pytest

plan = importlib.import_module("gpu_check_steps")
summaries = importlib.import_module("gpu_check_summary")
STEPS = plan.planned(plan.Scale())


def engine_run(ms):
    parts = {"compute": {"p50": ms}}
    return {"milliseconds": {"p50": 2 * ms}, "parts_of_a_call_milliseconds": parts}


def latencies(**ms):
    """A record of bench.latency by file, each also with a slower run without a CUDA graph."""
    runs = {}
    for file, value in ms.items():
        title = f"{file} on tensorrt 8.6.0 cuda:0, 1 stream, "
        runs[f"{title}no CUDA graph"] = engine_run(2 * value)
        runs[f"{title}CUDA graph"] = engine_run(value)
    return {"cases": [{"size": "x", "runs": runs, "failed": {}}]}


def pytorch(failed=(), finite=True, **ms):
    """A record of bench.latency with PyTorch."""
    runs = {
        f"PyTorch eager ({name}) on cuda:0": {
            **engine_run(value), "kind": "pytorch", "pytorch": {"name": name},
            "agreement": {"finite": finite, "psnr_db": 60.0},
        }
        for name, value in ms.items()
    }  # fmt: skip
    gone = {name: {"kind": "pytorch", "compare": name, "failed": "why"} for name in failed}
    peak = {"matmul_fp16_tflops": {"p50": 400.0}}
    return {"cases": [{"size": "x", "runs": runs, "failed": gone}], "ceilings": peak}


@pytest.fixture
def found():
    """The steps of a complete check, with their results."""
    results = {
        "torch_eager_base": pytorch(**dict.fromkeys(plan.EAGER.split(), 6.0)),
        "torch_compile_base": pytorch(**dict.fromkeys(plan.COMPILED.split(), 5.0)),
        "torch_max_base": pytorch(**dict.fromkeys(plan.COMPILED_MAX.split(), 3.6)),
        "plain_base_720x1280": latencies(
            **{"plain_base_720x1280.onnx": 2.0, "base_720x1280.engine": 2.0}
        ),
    }
    for name in ("base_720x1280", "small_720x1280", "small_256x448"):
        results[f"latency_{name}"] = latencies(**{f"{name}.engine": 2.0})
    for change, ms in (("side", 1.6), ("all", 4.0)):
        engines = {"base_720x1280.engine": 2.0, f"base_720x1280_{change}.engine": ms}
        results[f"rewrite_{change}"] = latencies(**engines)
    for step in STEPS:
        if step.name.startswith("build"):
            engine = {"gpu": "NVIDIA H100 80GB HBM3", "tensorrt": "8.6.0"}
            results[step.name] = {"gate": {"psnr_db": 61.5}, "engine": engine}
        if step.name.startswith("pair"):
            files = {"a_fp16.onnx": {"psnr_db": 55.0}, "a_fp32.onnx": {"psnr_db": None}}
            results[step.name] = {"models": files}
        if step.name.startswith("tests"):
            results[step.name] = {"tests": [{"outcome": "passed"}, {"outcome": "skipped"}]}
    return {name: {"status": "done", "result": result} for name, result in results.items()}


def rows(steps):
    return {row["goal"]: row for row in summaries.summary(steps, plan.Scale())}


TORCH = "base 720x1280: times as fast as the best PyTorch"
PLAIN = "base 720x1280: times as fast as the plain export"
PEAK = "base 720x1280: share of the measured matmul peak"


def test_the_summary_compares_results_with_goals_and_predictions(found):
    said = rows(found)
    assert (said[TORCH]["measured"], said[TORCH]["status"]) == (pytest.approx(1.8), "met")
    assert said[TORCH]["best_pytorch"] == plan.COMPILED_MAX
    assert (said[PLAIN]["measured"], said[PLAIN]["status"]) == (1.0, "not met")
    assert said[PEAK]["measured"] == pytest.approx(0.44550)  # 356.4 GFLOP in 2 ms of 400 TFLOP/s
    assert said["small 256x448: compute ms"]["status"] == "not met"
    assert said["fp16 engines: dB of the gate"]["status"] == "met"
    assert said["ONNX Runtime CUDA fp32: dB to PyTorch on a real pair"]["measured"] == 99.0
    tests = said["GPU tests: failures"]
    assert (tests["measured"], tests["status"]) == (0, "met")
    assert tests["outcomes"] == {"passed": 5, "skipped": 5}
    base, small = (said[f"{v}_720x1280: compute ms"] for v in ("base", "small"))
    assert (base["predicted"], base["status"]) == (2.1, "as predicted")
    assert (small["predicted"], small["status"]) == (1.65, "as predicted")
    assert said["rewrite side: times as fast"]["measured"] == pytest.approx(1.25)
    assert said["rewrite prelu_max: times as fast"]["status"] == "not measured"
    text = "\n".join(summaries.table([*said.values()]))
    assert all(goal in text for goal in said)


def test_goals_without_a_measurement_are_not_met():
    said = rows({})
    assert {row["status"] for row in said.values()} == {"not measured"}


@pytest.mark.parametrize("gone", ["torch_max_base", "torch_compile_base"])
def test_the_comparison_with_the_best_pytorch_is_undecided_while_runs_are_missing(found, gone):
    del found[gone]
    row = rows(found)[TORCH]
    names = {"torch_max_base": plan.COMPILED_MAX, "torch_compile_base": plan.COMPILED}[gone]
    assert (row["status"], row["missing"]) == ("undecided", names.split())
    assert f"missing: {names.split()[0]}" in "\n".join(summaries.table([row]))
    found["latency_base_720x1280"]["result"] = latencies(**{"base_720x1280.engine": 4.0})
    assert rows(found)[TORCH]["status"] == "not met"  # No further run can change that.


def test_runs_of_pytorch_that_fail_or_give_nan_are_named_and_not_compared(found):
    found["torch_max_base"]["result"] = pytorch(failed=[plan.COMPILED_MAX])
    found["torch_compile_base"]["result"] = pytorch(
        finite=False, **dict.fromkeys(plan.COMPILED.split(), 0.1)
    )
    row = rows(found)[TORCH]
    assert (row["status"], row["measured"], row["missing"]) == ("met", 3.0, [])
    assert row["failed"][plan.COMPILED_MAX] == "why"
    assert row["failed"].keys() == {plan.COMPILED_MAX, *plan.COMPILED.split()}


def test_skipped_tests_leave_the_goal_undecided(found):
    del found["tests_leaks"]
    row = rows(found)["GPU tests: failures"]
    assert (row["status"], row["missing"]) == ("undecided", ["tests_leaks"])
    found["tests_frames"]["result"]["tests"].append({"outcome": "error"})
    assert rows(found)["GPU tests: failures"]["status"] == "not met"


@pytest.mark.parametrize(
    ("gpu", "version", "predicted"),
    [("NVIDIA H200", "8.6.0", 2.0), ("NVIDIA H200", "10.3.0", None),
     ("NVIDIA GH200 480GB", "8.6.0", None), ("NVIDIA GeForce RTX 4090", "11.4.0.1", 4.2),
     ("Orin", "10.3.0", 27)],
)  # fmt: skip
def test_predictions_depend_on_gpu_and_tensorrt(found, gpu, version, predicted):
    for entry in found.values():
        if "engine" in entry["result"]:
            entry["result"]["engine"] = {"gpu": gpu, "tensorrt": version}
    assert rows(found)["base_720x1280: compute ms"]["predicted"] == predicted
