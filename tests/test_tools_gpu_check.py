"""The GPU check without a GPU: its commands are real, and it goes on whatever fails."""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_gpu import GRAPHS, SIZE

import export.build_engine
from bench import latency
from export import to_onnx
from export.arguments import graph_options
from export.tuning_trt import REWRITES

TOOLS = ROOT / "tools"


@pytest.fixture(scope="module")
def gpu_check():
    return importlib.import_module("gpu_check")


@pytest.fixture(scope="module")
def plan_module():
    return importlib.import_module("gpu_check_plan")


@pytest.fixture
def plan(plan_module, tmp_path):
    made = plan_module.Plan(tmp_path, variants=plan_module.VARIANTS, sizes=plan_module.SIZES)
    for folder in (made.models, made.engines, made.found):
        folder.mkdir()
    return made


@pytest.fixture
def steps(plan_module, plan):
    return plan_module.planned(plan, plan_module.PARTS)


@pytest.fixture
def parsed(monkeypatch):
    """Parses the arguments of a step with the parser of the command itself; None for pytest."""
    modules = {
        "export.to_onnx": to_onnx,
        "export.build_engine": export.build_engine,
        "bench.latency": latency,
        "tools/gpu_check_torch.py": importlib.import_module("gpu_check_torch"),
        "tools/gpu_check_plain.py": importlib.import_module("gpu_check_plain"),
    }
    found = []
    for module in modules.values():
        monkeypatch.setattr(
            module,
            "run_command",
            lambda parser, *_, argv, **__: found.append(parser.parse_args(argv)),
        )

    def parse(step):
        command, *arguments = [a for a in step.arguments if a != "-m"]
        if command == "pytest":
            return None
        modules[command].main(arguments)
        return found[-1]

    return parse


def test_a_dry_run_prints_every_command_and_imports_nothing_heavy():
    code = (
        "import runpy, sys; sys.argv = ['gpu_check.py', '--dry-run', '--torch-python', 'other'];"
        "sys.path.insert(0, 'tools')\n"
        "try: runpy.run_path('tools/gpu_check.py', run_name='__main__')\n"
        "except SystemExit as left: assert left.code == 0\n"
        "assert not {'numpy', 'onnx', 'torch', 'tensorrt'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) > 90
    assert any("FAIL_WITHOUT_GPU=1" in line and "tests/test_gpu.py" in line for line in lines)
    exports = [line for line in lines if "export.to_onnx" in line]
    assert all(shlex.split(line)[1] == "other" for line in exports)


def test_every_command_is_one_that_its_program_takes(steps, parsed):
    for step in steps:
        parsed(step)


def test_everything_that_is_needed_is_made_before(steps):
    made = set()
    for step in steps:
        assert set(step.needs) <= made, step.name
        made |= {step.makes, step.result}
        if step.is_build:
            made.add(step.result.with_suffix(""))


def test_every_variant_size_and_precision_is_built(steps, plan_module):
    built = {step.name for step in steps if step.part == "build"}
    assert built == {
        f"build_{variant}_{size}_{precision}"
        for variant in plan_module.VARIANTS
        for size in plan_module.SIZES
        for precision in ("fp16", "fp32")
    }


def test_names_are_those_of_the_project(plan_module):
    assert tuple(plan_module.REWRITES) == tuple(REWRITES)
    torch_tool = importlib.import_module("gpu_check_torch")
    for runs in plan_module.TORCH_RUNS.values():
        assert set(runs) <= set(torch_tool.RUNS)


def test_the_graphs_are_those_that_the_gpu_tests_build_from(steps, parsed):
    for name, options in GRAPHS.items():
        (step,) = (s for s in steps if s.name == f"export_test_{name}")
        args = parsed(step)
        wanted = {"height": SIZE[0], "width": SIZE[1], **options}
        assert graph_options(args, size=args.size) == wanted
        assert args.output.name == f"test_{name}.onnx"


class Machine:
    """Runs nothing: makes the files of a step, unless it shall fail."""

    def __init__(self, gpu_check, failing=()):
        self.outcome, self.failing, self.ran = gpu_check.Outcome, failing, []

    def __call__(self, step):
        self.ran.append(step.name)
        if step.name in self.failing:
            return self.outcome(1, 0.5, "some output\nerror: it broke")
        if step.makes is not None:
            step.makes.write_text("made")
        if step.is_build:
            step.result.with_suffix("").write_text("engine")
            psnr = None if "fp32" in step.name else 61.5
            step.result.write_text(json.dumps({"gate": {"psnr_db": psnr}}))
        elif step.result is not None and step.result.suffix == ".json":
            step.result.write_text(json.dumps(self.found(step)))
        elif step.result is not None:
            step.result.write_text(
                '<testsuites><testsuite><testcase name="a" time="1.5"><properties>'
                '<property name="psnr_db" value="70"/></properties></testcase>'
                '<testcase name="b"><skipped message="no torch"/></testcase>'
                "</testsuite></testsuites>"
            )
        return self.outcome(0, 0.5, "fine")

    @staticmethod
    def found(step):
        if step.name == "torch_matmul_peak":
            return {"tflops": {"p50": 600.0}}
        if step.part == "torch":
            # What is fastest of all gives no numbers.
            ms = 4.0 if "compiled" in step.name else 2.0 if "half" in step.name else 9.0
            return {"milliseconds": {"p50": ms}, "finite": ms != 2.0}
        if step.name.startswith("plain"):
            return {"plain_over_ours": {"plain": {"p50": 1.5}, "plain with graph": {"p50": 1.1}}}
        names = [Path(a).name for a in step.arguments if a.endswith(".engine")]
        ms = {name: 0.8 if "side" in name else 0.3 if "256" in name else 1.0 for name in names}
        runs = {f"{n} on tensorrt 8.6.0 cuda:0, 1 stream, {g}": (v, g) for n, v in ms.items()
                for g in ("CUDA graph", "no CUDA graph")}  # fmt: skip
        slow = {"CUDA graph": 1, "no CUDA graph": 2}
        figures = {
            name: {
                "milliseconds": {"p50": 3 * ms},
                "parts_of_a_call_milliseconds": {"compute": {"p50": ms * slow[graph]}},
            }
            for name, (ms, graph) in runs.items()
        }
        return {"cases": [{"runs": figures}]}


@pytest.fixture
def check(gpu_check, steps):
    """Runs all steps on a machine; the record, whether it passed, and what was written."""

    def run(machine, chosen=None, **options):
        record, written = {"steps": {}}, []
        passed = gpu_check.run_steps(
            steps if chosen is None else chosen, machine, record,
            lambda now: written.append(json.dumps(now)), **options,
        )  # fmt: skip
        return record, passed, written

    return run


def test_the_summary_holds_the_goals_against_what_was_found(gpu_check, check, steps):
    machine = Machine(gpu_check)
    record, passed, written = check(machine)
    assert passed
    assert len(written) == len(steps)
    assert {entry["status"] for entry in record["steps"].values()} == {"ok"}
    summary = record["summary"]
    found = {name.split(":")[-1].strip(): goal for name, goal in summary.items()}
    torch = found["compute 1.5 times as fast as the best PyTorch"]
    assert (torch["status"], torch["found"]) == ("met", 4.0)
    assert torch["best_pytorch"][0].endswith("compiled")
    plain = found["compute 1.2 times as fast as the plain export"]
    assert (plain["status"], plain["found"]) == ("not met", 1.1)
    assert found["half of the measured matmul peak"]["found"] == pytest.approx(0.594)
    small = found["compute under 0.5 ms with a CUDA graph"]
    assert (small["found"], small["end_to_end_ms"]) == (0.3, pytest.approx(0.9))
    parity = found["50 dB or more"]
    assert (parity["status"], parity["found"], len(parity["psnr_db"])) == ("met", 61.5, 12)
    assert found["all passed"]["skipped"] == ["b"]
    (side,) = (row for row in summary["rewrites"] if row["change"] == "side")
    assert (side["plain_ms"], side["changed_ms"], side["times_as_fast"]) == (1.0, 0.8, 1.25)


def test_what_fails_is_recorded_and_the_rest_goes_on(gpu_check, check, steps):
    failing = ("build_base_720x1280_fp16", "tests", "torch_authors_half_base_720x1280")
    machine = Machine(gpu_check, failing)
    record, passed, written = check(machine)
    assert not passed
    assert len(written) == len(steps)
    entries = record["steps"]
    assert all(entries[name]["status"] == "failed" for name in failing)
    assert entries["tests"]["tail"].endswith("it broke")
    assert "latency_base_720x1280_fp16" not in machine.ran  # There is nothing to measure.
    assert "base_720x1280_fp16.engine is missing" in entries["latency_base_720x1280_fp16"]["tail"]
    assert entries["build_large_2160x3840_fp32"]["status"] == "ok"
    goal = record["summary"]["base fp16 at 720x1280: half of the measured matmul peak"]
    assert goal["status"] == "not measured"


def test_what_is_there_is_kept_and_nothing_new_starts_late(gpu_check, check, steps, plan):
    (plan.models / "base.pth").write_text("made")
    now = iter(range(0, 10**6, 60))
    record, passed, _ = check(Machine(gpu_check), minutes=5, clock=lambda: next(now))
    statuses = [entry["status"] for entry in record["steps"].values()]
    assert record["steps"]["weights_base"]["status"] == "kept"
    assert statuses.count("ok") == 5
    assert statuses[-1] == "out of time"
    assert passed  # Nothing failed.


def test_parts_are_those_asked_for(plan, plan_module):
    assert {s.part for s in plan_module.planned(plan, ["torch", "tests"])} == {"torch", "tests"}


def test_a_process_runs_in_the_checkout_and_is_ended_with_its_time(
    gpu_check, plan_module, tmp_path
):
    run = gpu_check.process_runner(sys.executable, "", tmp_path)
    code = "import os, runtime; print(os.environ['NAME'])"
    done = run(plan_module.Step("a", "tests", ("-c", code), environment={"NAME": "value"}))
    assert (done.code, done.tail) == (0, "value")
    slow = plan_module.Step("b", "tests", ("-c", "import time; time.sleep(60)"), timeout_s=0.5)
    assert run(slow).code == 124


def test_another_python_does_not_see_the_packages_of_this_one(gpu_check, monkeypatch, tmp_path):
    site, system = tmp_path / "site", tmp_path / "system"
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{site / 'tensorrt'}:{system}")
    environment = gpu_check._environment("extra")
    assert environment["PYTHONPATH"] == "extra"
    assert environment["LD_LIBRARY_PATH"] == str(system)


def test_the_command_needs_a_file_for_what_it_finds():
    done = subprocess.run(
        [sys.executable, str(TOOLS / "gpu_check.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--json is needed" in done.stderr
