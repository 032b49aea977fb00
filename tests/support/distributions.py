"""Wheels and sdists, built in copies so that the checkout keeps no build folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest depends on it before Python 3.11.

PACKAGES = ("ifrnet_model", "export", "runtime", "bench")
NOT_IN_WHEEL = ("__pycache__", "results")
"""Folders inside the packages that are not in a wheel: bench/results holds measurements."""

FOR_A_BUILD = ("pyproject.toml", "LICENSE", "docs/package.md")
"""What setuptools reads besides the packages."""


def copy_packages(target: Path) -> Path:
    """Copies the files that a wheel is built from into a folder; returns that folder."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns(*NOT_IN_WHEEL))
    for name in FOR_A_BUILD:
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, target / name)
    return target


def build_wheel(sources: Path) -> Path:
    """Builds a wheel and returns its path."""
    return _build("build_wheel", sources)


def build_sdist(sources: Path) -> Path:
    """Builds a source distribution and returns its path."""
    return _build("build_sdist", sources)


def _build(hook: str, sources: Path) -> Path:
    """Calls a hook of setuptools' build backend in a folder; returns the one file it makes."""
    program = f"import setuptools.build_meta as backend; backend.{hook}('dist')"
    built = subprocess.run(
        [sys.executable, "-c", program],
        cwd=sources, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (made,) = (sources / "dist").glob("*.whl" if hook == "build_wheel" else "*.tar.gz")
    return made


def check_with_twine(path: Path) -> None:
    """Fails if `twine check --strict` finds an error or a warning in a distribution."""
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", str(path)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "PASSED" in checked.stdout


def project() -> dict[str, Any]:
    """The table [project] of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
