"""The plan of the GPU check and the order of its steps; no step is started here."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
from itertools import chain
from pathlib import Path

import pytest

import export.build_engine
from bench import latency
from bench.environment import MeasurementError
from export import to_onnx
from export.arguments import graph_request
from export.graph.for_tensorrt import REWRITES
from export.request import DEFAULT_SIZE
from gpu_graphs import GRAPHS, SIZE
from paths import ROOT

plan = importlib.import_module("gpu_check_steps")
running = importlib.import_module("gpu_check_run")
gpu_check = importlib.import_module("gpu_check")

STEPS = plan.planned(plan.Scale())
MODELS = plan.models_steps(plan.Scale())


# The plan


def test_the_plan_imports_little_and_no_step_is_too_long():
    code = (
        "import runpy, sys; sys.argv = ['gpu_check.py', '--plan'];"
        "sys.path.insert(0, 'tools')\n"
        "try: runpy.run_path('tools/gpu_check.py', run_name='__main__')\n"
        "except SystemExit as left: assert left.code == 0\n"
        "assert not {'onnx', 'onnxruntime', 'torch', 'tensorrt', 'cuda'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for step in STEPS:
        assert step.name in done.stdout
        assert step.seconds < 540  # A run takes 9 minutes by default.
    for part in plan.PARTS:
        seconds = sum(s.seconds for s in STEPS if s.part == part and "matrix" not in s.name)
        assert f"{part} ({seconds:.0f} s): {plan.PARTS[part]}" in done.stdout


def test_steps_are_selected_by_name_in_the_order_of_the_patterns():
    chosen = gpu_check.matching(STEPS, ["latency_base_720x1280", "build_base_*", "*_720x1280"])
    names = [step.name for step in chosen]
    assert names[0] == "latency_base_720x1280"
    builds = [s.name for s in STEPS if s.name.startswith("build_base_")]
    assert names[1 : 1 + len(builds)] == builds
    assert len(set(names)) == len(names)
    assert {s.name for s in STEPS if s.name.endswith("_720x1280")} <= set(names)
    with pytest.raises(MeasurementError, match=r"^--step base matches no step: --plan shows"):
        gpu_check.matching(STEPS, ["build_*", "base"])


def test_steps_have_unique_names_and_descriptions():
    assert len({step.name for step in STEPS + MODELS}) == len(STEPS + MODELS)
    assert {step.name.partition("_")[0] for step in STEPS} == plan.PROVES.keys()


def test_everything_that_a_step_reads_is_created_before():
    made = set()
    for step in MODELS + STEPS:
        assert set(step.needs) <= made, step.name
        made |= {step.makes}


@pytest.fixture
def parsed(monkeypatch):
    """Parses the command of a step with the parser of its own program; None for pytest."""
    modules = {
        "export.to_onnx": to_onnx, "export.build_engine": export.build_engine,
        "bench.latency": latency,
        "tools/gpu_check_tool.py": importlib.import_module("gpu_check_tool"),
        "tools/export_plain.py": importlib.import_module("export_plain"),
        "tools/device_arrays_check.py": importlib.import_module("device_arrays_check"),
    }  # fmt: skip
    found = []
    for module in modules.values():
        monkeypatch.setattr(
            module, "run_command",
            lambda parser, *_, argv=None, **__: found.append(parser.parse_args(argv)),
        )  # fmt: skip

    def parse(step):
        program, *arguments = [w for w in plan.shlex.split(step.command) if w != "-m"]
        if program == "pytest":
            return None
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        modules[program].main()
        return found[-1]

    return parse


def test_the_command_of_every_step_can_be_parsed(parsed):
    for step in MODELS + STEPS:
        args = parsed(step)
        if step.command.startswith("-m bench.latency"):
            latency._request(args)


def test_names_in_the_plan_exist_in_the_project(parsed):
    from bench.runs.torch_forms import GPU_FORMS
    from export.request import Constraints

    for names in plan.REWRITES.values():
        assert set(names.split()) <= set(REWRITES)
    assert set(plan.CONSTRAINTS) == set(Constraints.__args__)
    compared = f"{plan.EAGER} {plan.COMPILED} {plan.COMPILED_MAX} {plan.SHORT}".split()
    assert set(compared) <= GPU_FORMS.keys()
    for name, options in GRAPHS.items():
        (step,) = (s for s in MODELS if s.name == f"make_test_{name}.onnx")
        args = parsed(step)
        wanted = {"height": SIZE[0], "width": SIZE[1], **options}
        assert graph_request(args).options(args.size) == wanted


def test_every_gpu_test_is_in_one_of_the_runs():
    def chosen(expression):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "tests/test_gpu.py", "--collect-only", "-q", "-k",
             expression],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [line for line in done.stdout.splitlines() if "::" in line]

    runs = [chosen(expression) for _, expression in plan.TEST_RUNS.values()]
    assert all(runs)
    assert sorted(chain(*runs)) == sorted(chosen("test"))


def test_the_engines_of_the_gpu_tests_are_built_as_the_tests_build_them(parsed):
    for name in [*GRAPHS, "fp16_portable"]:
        (step,) = (s for s in STEPS if s.makes == f"WORK/test_engines/{name}.engine")
        args = parsed(step)
        assert args.onnx == Path(f"MODELS/test_{name.removesuffix('_portable')}.onnx")
        assert bool(args.portable) == name.endswith("portable")
        sizes = ((64, 64), SIZE, DEFAULT_SIZE) if name == "dynamic" else (None, None, None)
        assert (args.min, args.opt, args.max) == sizes


def test_only_needed_models_are_exported():
    smoke = [step for step in STEPS if step.part == "C"]
    made = [s.makes for s in plan.with_models(smoke, MODELS) if s.part == "models"]
    assert made == ["MODELS/small.pth", *(f"MODELS/test_{name}.onnx" for name in GRAPHS)]


def test_the_graphs_of_the_matrix_are_exported_only_after_the_tiny_engine_failed(run_all):
    smoke = [step for step in STEPS if step.part == "smoke"]
    machine, *_ = run_all(plan.with_models(smoke, MODELS), models=(), failing=["build_smoke_tiny"])
    names = [*machine.ran]
    assert names.index("make_test_tiny.onnx") < names.index("build_smoke_tiny")
    assert names.index("build_smoke_tiny") < names.index("make_matrix_frames_gather_fp16.onnx")
    machine, *_ = run_all(plan.with_models(smoke, MODELS), models=())
    assert not any("matrix" in name for name in machine.ran)


def test_the_page_for_users_has_every_part_and_valid_commands():
    text = (ROOT / "docs" / "gpu.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == [*plan.PARTS]
    commands = re.findall(r"^python tools/gpu_check.py ([^#\n]+)", text, re.MULTILINE)
    assert len(commands) == 3
    for words in commands:
        parsed = gpu_check.arguments().parse_args(words.split())
        assert parsed.json or parsed.pack
    assert gpu_check.UNPACK in text


# Steps


class Machine:
    """A fake machine: creates the files of a step, unless the step should fail."""

    def __init__(self, folder, failing=(), have=()):
        self.models = self.folder = folder
        self.failing, self.ran = failing, {}
        for name in have:
            self.path(name).touch()

    def path(self, name):
        return self.folder / name.replace("/", "_")

    def run(self, step, limit):
        self.ran[step.name] = limit
        if step.name in self.failing:
            return 1, "some output\nerror: it broke"
        if step.makes:
            self.path(step.makes).touch()
        if step.result:
            self.path(step.result).write_text(json.dumps({"of": step.name}))
        return 0, "fine"


@pytest.fixture
def run_all(tmp_path):
    """Runs steps on a fake machine with all models; returns (machine, record, writes of it)."""

    def run(steps=STEPS, *, seconds=1e9, failing=(), models=MODELS):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        machine = Machine(folder, failing, [step.makes for step in models])
        record, written = {"steps": {}, "runs": [{}]}, []
        running.run_steps(
            steps, machine, record, lambda: written.append(json.dumps(record)), seconds=seconds
        )
        return machine, record["steps"], written

    return run


def test_every_step_runs_once_and_the_record_is_written_after_each(run_all):
    machine, entries, written = run_all()
    plain = [step.name for step in STEPS if not step.name.startswith("matrix")]
    assert [*machine.ran] == [*entries] == plain
    assert {entry["status"] for entry in entries.values()} == {"done"}
    assert entries["latency_base_720x1280"]["result"] == {"of": "latency_base_720x1280"}
    assert len(written) == len(plain)


def test_a_failed_step_is_recorded_and_the_others_run(run_all):
    machine, entries, _ = run_all(failing=("build_base_720x1280", "torch_max_base"))
    failed = entries["build_base_720x1280"]
    assert (failed["status"], failed["code"]) == ("failed", 1)
    assert failed["tail"].endswith("error: it broke")
    assert "result" not in failed
    assert "latency_base_720x1280" not in machine.ran
    unrun = entries["latency_base_720x1280"]
    assert (unrun["status"], unrun["tail"]) == (
        "not run", "error: there is no WORK/base_720x1280.engine",
    )  # fmt: skip
    assert entries["build_small_720x1280"]["status"] == "done"


def test_other_build_options_are_tried_if_the_tiny_engine_fails(run_all):
    smoke = [step for step in STEPS if step.part == "smoke"]
    machine, *_ = run_all(smoke, failing=("build_smoke_tiny",))
    tried = [name for name in machine.ran if name.startswith("matrix")]
    assert len(tried) == 2 * 2 * (4 + 1)  # float32 graphs have no constraints.


def test_precision_constraints_are_tried_only_with_a_tensorrt_that_has_them():
    assert plan.for_tensorrt(STEPS, "8.6.0") == STEPS
    found = [s for s in plan.for_tensorrt(STEPS, "10.3.0") if s.name.startswith("matrix")]
    assert len(found) == 2 * 2 * 2
    assert not any("constraints" in step.command for step in found)


def test_a_step_starts_only_if_it_can_end_and_its_limit_is_the_time_left(run_all):
    machine, entries, _ = run_all(seconds=100)
    assert entries["build_base_720x1280"]["status"] == "out of time"  # 170 s.
    assert entries["torch_eager_base"]["status"] == "done"  # 70 s.
    assert 0 < max(machine.ran.values()) <= 100
