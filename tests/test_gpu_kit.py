"""A GPU machine's bare Python 3.10 with its wheels, over the fakes: `make test-kit`."""

import json
import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

import gpu_check_steps
from export.store import write_onnx
from gpu_check_graphs import write_check_graphs
from gpu_graphs import GRAPHS, SIZE
from paths import ROOT

pytestmark = pytest.mark.kit

LEFT_OUT = {
    "av", "jinja2", "matplotlib", "msgspec", "torch", "triton_python_backend_utils", "vapoursynth",
}  # fmt: skip
"""Packages that the kit lacks: only modules that a GPU machine does not use need them."""

USED = {
    "runtime": """
        __main__ backend_trial backends.cuda.arrays backends.ort.backend
        backends.trt.backend backends.trt.profiling cli.arguments cli.command cli.interrupt
        cli.progress cli.streams doctor files frames interpolator live machine manifest model_info
        telemetry video.prefetch
    """,
    "export": """
        arguments build_engine candidate gate.cases gate.compare gate.diagnosis gate.gate
        gate.runners graph.channels graph.for_cpu graph.for_tensorrt
        graph.passes graph.view int8.quantise progress request source store to_onnx trt.build
        trt.cache trt.engine trt.strongly_typed trt.versions trt.weakly_typed
    """,
    "bench": """
        data.samples environment harness.cold_start harness.interleave harness.layers
        harness.measure harness.planning harness.request harness.text latency quality.metrics
        records runs.artefact runs.pytorch
    """,
}
"""Modules that must import, by package."""

COMMANDS = [
    *(["-m", name] for name in (
        "runtime", "runtime.doctor", "export.build_engine", "export.to_onnx", "bench.latency",
        "bench.report", "ifrnet_model.weights",
    )),
    *([f"tools/{name}.py"] for name in ("gpu_check", "device_arrays_check")),
]  # fmt: skip

IMPORTS = """
import importlib, json, pathlib, pkgutil, sys
import bench, export, runtime
sys.path.insert(0, "tools")
names = [path.stem for path in pathlib.Path("tools").glob("gpu_check*.py")]
for package in (bench, export, runtime):
    names.append(package.__name__)
    names += [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
found = {}
for name in names:
    try:
        importlib.import_module(name)
        found[name] = ""
    except ModuleNotFoundError as error:
        found[name] = error.name
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def kit():
    """Runs the kit's Python in the checkout."""
    folder = ROOT / ".kit310"
    if not (folder / "state").is_file():
        pytest.skip("there is no .kit310: make test-kit makes it")

    def run(*arguments, fakes=False, **environment):
        search = [*([ROOT / "tests/fake_machine"] if fakes else []), ROOT, folder / "site"]
        environment["PYTHONPATH"] = os.pathsep.join(map(str, search))
        return subprocess.run(
            [folder / "bin/python", *map(str, arguments)],
            env={**os.environ, "PYTHONNOUSERSITE": "1", **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def imported(kit):
    """Modules of the project -> the package that the module lacks, or ""."""
    done = kit("-c", IMPORTS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_module_that_a_gpu_machine_uses_imports(imported):
    used = [f"{package}.{name}" for package, names in USED.items() for name in names.split()]
    tools = [name for name in imported if name.startswith("gpu_check")]
    assert tools
    assert {name: imported[name] for name in used + tools} == dict.fromkeys(used + tools, "")


def test_other_modules_lack_only_packages_that_the_kit_leaves_out(imported):
    assert set(imported.values()) - {""} <= LEFT_OUT


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[-1])
def test_a_command_prints_its_help(kit, command):
    done = kit(*command, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")


def test_pytorch_is_missing_in_one_sentence(kit):
    done = kit("-m", "export.to_onnx", "--weights", "demo", "--output", "model.onnx")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "python -m export.to_onnx: error: the package torch is not installed: "
        "pip install 'ifrnet-deploy[export]'"
    ]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory, export):
    """The graphs of tests/test_gpu.py, exported by the Python that has PyTorch."""
    folder = tmp_path_factory.mktemp("graphs")
    for name, options in GRAPHS.items():
        made = export(**{"height": SIZE[0], "width": SIZE[1], **options})
        write_onnx(made.model, folder / f"test_{name}.onnx")
    return folder


def test_without_a_gpu_the_tests_of_the_gpu_collect_and_skip(kit):
    done = kit("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_gpu.py")
    assert done.returncode == 0, done.stdout
    assert re.match(r"\d+ skipped in ", done.stdout.splitlines()[-1])


def test_the_tests_of_the_gpu_pass_over_the_fakes(kit, graphs, tmp_path):
    """Runs all but the tests of Polygraphy's runtime, which needs the real libraries."""
    report = tmp_path / "report.xml"
    done = kit(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_gpu.py",
        "-k", "not polygraphys", "--junitxml", report, fakes=True,
        FAIL_WITHOUT_GPU="1", IFRNET_GPU_MODELS=str(graphs),
        IFRNET_GPU_OPENINGS="3", IFRNET_GPU_INFERENCES="20",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    cases = {case.get("name"): case for case in ElementTree.parse(report).iter("testcase")}
    assert len(cases) > 30
    skipped = [name for name, case in cases.items() if case.find("skipped") is not None]
    assert skipped == ["test_arrays_of_torch_go_in_and_come_out"]


def test_the_check_of_a_gpu_runs_over_the_fakes(kit, export, tmp_path):
    """Runs the smoke part and the main engines with tiny frames; the other Python has PyTorch."""
    models, path = tmp_path / "work" / "models", tmp_path / "record.json"
    write_check_graphs(export, models)
    (models / "test_tiny.onnx").unlink()  # The check exports this one itself.
    for name in gpu_check_steps.MATRIX:  # Read only if the tiny engine fails to build.
        (models / f"{name}.onnx").touch()
    done = kit(
        "tools/gpu_check.py", "--quick", "--part", "smoke", "A", "--minutes", "60",
        "--torch-python", sys.executable, "--work", models.parent, "--json", path, fakes=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    steps = json.loads(path.read_text())["steps"]
    assert {entry["status"] for entry in steps.values()} == {"done"}
    wanted = [
        step.name
        for step in gpu_check_steps.planned(gpu_check_steps.QUICK)
        if step.part in ("smoke", "A") and not step.name.startswith("matrix")
    ]
    assert len(wanted) > 8
    assert set(wanted) <= set(steps)
