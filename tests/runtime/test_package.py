"""What `import runtime` brings along, and who may import whom."""

import subprocess
import sys
from pathlib import Path

import pytest

import runtime
from paths import ROOT

HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "tensorrt",
    "av",
    "tqdm",
    "openvino",
    "ifrnet_model",
    "export",
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


def test_the_example_of_the_package_is_python():
    lines = runtime.__doc__.splitlines()
    example = "\n".join(line.removeprefix("    ") for line in lines if line.startswith("    "))
    assert "        middle = vfi.interpolate(frame0, frame1)" in lines
    compile(example, "example", "exec")


def test_public_names_exist_and_are_listed():
    for name in runtime.__all__:
        assert getattr(runtime, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = runtime.nothing


def test_import_rules():
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [lint, "--no-cache"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
