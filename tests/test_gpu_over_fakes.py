"""Behaviour of tests/test_gpu.py itself on a machine with a GPU, over the fakes."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import polygraphy.cuda.cuda
import pytest

from gpu_graphs import load_libcudart
from paths import ROOT

WITHOUT_LIBCUDART = """
import ctypes

class WithoutLibcudart(ctypes.CDLL):
    def __init__(self, name, *args, **kwargs):
        if "libcudart" in str(name):
            raise OSError(f"{name}: cannot open shared object file")
        super().__init__(name, *args, **kwargs)

ctypes.CDLL = WithoutLibcudart
"""


def test_a_missing_libcudart_skips_even_with_fail_without_gpu(tmp_path):
    (tmp_path / "without_libcudart.py").write_text(WITHOUT_LIBCUDART)
    search = os.pathsep.join(map(str, (ROOT / "tests/fake_machine", ROOT, tmp_path)))
    plugins = ("-p", "without_libcudart", "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "tests/test_gpu.py", "-k", "polygraphy"],
        env={**os.environ, "FAIL_WITHOUT_GPU": "1", "PYTHONPATH": search},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "7 skipped" in done.stdout.splitlines()[-1]
    assert "[7] tests/test_gpu.py" in done.stdout
    assert "Polygraphy finds no libcudart (" in done.stdout


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Simulates a machine on which only cuda.pathfinder finds libcudart, or raises `error`."""
    library = tmp_path / "libcudart.so.13"
    library.touch()

    def load(name, *_):
        if Path(name) != library:
            raise OSError(f"{name}: cannot open shared object file")
        return SimpleNamespace(path=Path(name))

    def with_pathfinder(error=None):
        def find(name):
            assert name == "cudart"
            if error:
                raise error
            return SimpleNamespace(abs_path=str(library))

        module, package = ModuleType("cuda.pathfinder"), ModuleType("cuda")
        module.load_nvidia_dynamic_lib = find
        package.__spec__ = ModuleSpec("cuda", None, is_package=True)
        monkeypatch.setitem(sys.modules, "cuda", package)
        monkeypatch.setitem(sys.modules, "cuda.pathfinder", module)
        monkeypatch.setattr(polygraphy.cuda.cuda, "G_CUDA", None)
        monkeypatch.setattr(ctypes, "CDLL", load)
        return library

    return with_pathfinder


def test_polygraphy_is_given_the_libcudart_that_cuda_bindings_finds(machine):
    library, before = machine(), os.environ.get("LD_LIBRARY_PATH")
    assert load_libcudart(polygraphy.cuda.wrapper).handle.path == library
    assert os.environ.get("LD_LIBRARY_PATH") == before


def test_without_any_libcudart_polygraphys_error_is_raised(machine):
    machine(RuntimeError("there is none"))
    with pytest.raises(OSError, match=r"libcudart\.so.*: cannot open shared object file"):
        load_libcudart(polygraphy.cuda.wrapper)
