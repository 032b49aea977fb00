"""The source distribution has every file of the repository and builds the same wheel."""

import hashlib
import shutil
import subprocess
import tarfile
import zipfile

import pytest

from distributions import build_sdist, build_wheel, check_with_twine
from paths import ROOT

ADDED = {"PKG-INFO", "setup.cfg"}
"""What setuptools writes into every sdist, besides the folder *.egg-info."""


@pytest.fixture(scope="module")
def tracked():
    """The files that git tracks, except those deleted in the working tree."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("the file list is compared with git's, and this is not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def copy(tmp_path_factory, tracked):
    folder = tmp_path_factory.mktemp("copy")
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def sdist(copy):
    return build_sdist(copy)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory, sdist):
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


def hashes(wheel):
    """SHA-256 of each file in a wheel. RECORD, which repeats them, is left out."""
    with zipfile.ZipFile(wheel) as file:
        return {
            name: hashlib.sha256(file.read(name)).hexdigest()
            for name in file.namelist()
            if not name.endswith("/RECORD")
        }


def test_a_package_index_accepts_the_sdist(sdist):
    check_with_twine(sdist)


def test_the_sdist_has_every_file_of_the_repository(unpacked, tracked):
    files = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file()}
    assert tracked - files == set()
    more = {name for name in files - tracked if not name.startswith("ifrnet_deploy.egg-info/")}
    assert more == ADDED


def test_scripts_in_the_sdist_are_executable(unpacked, tracked):
    scripts = {name for name in tracked if (ROOT / name).stat().st_mode & 0o100}
    assert "tools/installed/setup.sh" in scripts
    assert {name for name in scripts if not (unpacked / name).stat().st_mode & 0o100} == set()


def test_the_wheel_of_the_sdist_equals_that_of_the_checkout(unpacked, copy):
    files = hashes(build_wheel(unpacked))
    assert files == hashes(build_wheel(copy))
    assert {name for name in files if name.startswith("bench/results/")} == set()
