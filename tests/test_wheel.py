"""The wheel holds every module of the packages, and the files that they read."""

import shutil
import subprocess
import sys
import zipfile

import pytest

from paths import ROOT

PACKAGES = ("ifrnet_model", "export", "runtime", "bench")
NO_PART = ("__pycache__", "results")
"""Folders inside the packages that a wheel leaves out: bench/results holds evidence."""

BUILD = "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that is built from a copy, so that no build/ is left here."""
    copy = tmp_path_factory.mktemp("copy")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns(*NO_PART))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(copy / "wheel")],
        cwd=copy, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (path,) = (copy / "wheel").glob("*.whl")
    with zipfile.ZipFile(path) as file:
        yield file


@pytest.fixture(scope="module")
def contents(wheel):
    """Names of the files of the packages."""
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def test_every_file_of_the_packages_is_in_the_wheel(contents):
    expected = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and not set(path.parts) & set(NO_PART)
    }
    assert {"runtime/__init__.py", "runtime/py.typed"} <= expected
    # The picture is for the model card, which the package's page shows.
    assert expected - contents == {"ifrnet_model/weights/fast_motion.jpg"}
    assert contents - expected == set()


def test_the_wheel_installs_the_console_command(wheel):
    (entries,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    assert wheel.read(entries).decode().split("\n")[:2] == [
        "[console_scripts]", "ifrnet = runtime.cli.ifrnet:main"
    ]  # fmt: skip
