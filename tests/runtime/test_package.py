"""Imports of the package `runtime`: what it loads, its public names, the import rules."""

import subprocess
import sys
from pathlib import Path

import pytest

import runtime
from commands import WITHOUT_NUMPY
from moving_clips import read_clip, write_clip
from paths import ROOT

HEAVY = (
    "torch",
    "tritonclient",
    "onnx",
    "onnxruntime",
    "tensorrt",
    "av",
    "tqdm",
    "openvino",
    "ifrnet_model",
    "export",
)


def python(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, **options
    )


def test_import_runtime_loads_nothing_heavy():
    code = (
        "import sys, runtime; runtime.Interpolator; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module", ["runtime", "runtime.doctor", "export.build_engine", "ifrnet_model.weights"]
)
def test_help_needs_neither_torch_nor_onnx(module):
    code = (
        "import sys; sys.modules.update(torch=None, onnx=None, onnxruntime=None, av=None); "
        f"import runpy; sys.argv = ['x', '--help']; "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=False)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "example" in done.stdout


def test_the_example_of_the_package_runs(tmp_path, models):
    lines = runtime.__doc__.splitlines()
    example = "\n".join(line.removeprefix("    ") for line in lines if line.startswith("    "))
    assert "    middle = vfi.interpolate(frame0, frame1)" in example.splitlines()
    (tmp_path / "model.onnx").write_bytes((models / "dynamic.onnx").read_bytes())
    write_clip(tmp_path / "in.mp4", 3)
    done = python(example, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(read_clip(tmp_path / "out.mp4")[0]) == 6


def test_public_names_exist_and_are_listed():
    for name in runtime.__all__:
        assert getattr(runtime, name).__doc__
        assert getattr(runtime, name).__module__.startswith("runtime.")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = runtime.nothing
    namespace = {}
    exec("from runtime import *", namespace)
    assert set(runtime.__all__) <= namespace.keys()


def test_public_names_are_listed_before_they_are_imported():
    done = python(
        "import sys, runtime; listed = dir(runtime);"
        "assert 'numpy' not in sys.modules, 'numpy';"
        "assert {*runtime.__all__, '__version__', '__doc__'} <= {*listed};"
        "assert not {'Any', 'importlib', 'find_spec', 'TYPE_CHECKING'} & {*listed};"
        "sys.modules['av'] = None;"
        "[getattr(runtime, name) for name in dir(runtime)];"
        "assert {'Interpolator', 'VideoError'} <= {*dir(runtime)}"
    )
    assert done.returncode == 0, done.stderr


def test_without_numpy_version_and_errors_can_be_imported():
    done = python(
        WITHOUT_NUMPY + "import runtime; print(runtime.__version__)\n"
        "from runtime import VideoError\n"
        "try: runtime.Interpolator\n"
        "except ModuleNotFoundError as error: print(error.name)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [runtime.__version__, "numpy"]


def test_the_import_rules_are_kept():
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [lint, "--no-cache"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
