"""The wheel has every module of the packages and the files that they read."""

import email
import re
import zipfile

import pytest

import runtime
from commands import run_module
from distributions import NOT_IN_WHEEL, PACKAGES, build_wheel, check_with_twine, copy_packages
from paths import ROOT


@pytest.fixture(scope="module")
def wheel_path(tmp_path_factory):
    """A wheel, built from a copy so that the checkout keeps no build/."""
    return build_wheel(copy_packages(tmp_path_factory.mktemp("copy")))


@pytest.fixture(scope="module")
def wheel(wheel_path):
    with zipfile.ZipFile(wheel_path) as file:
        yield file


@pytest.fixture(scope="module")
def metadata(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


@pytest.fixture(scope="module")
def contents(wheel):
    """Names of the files of the packages."""
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def test_every_file_of_the_packages_is_in_the_wheel(contents):
    expected = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and not set(path.parts) & set(NOT_IN_WHEEL)
    }
    assert {"runtime/__init__.py", "runtime/py.typed"} <= expected
    assert contents == expected


def test_files_that_the_model_card_shows_or_links_are_in_the_wheel(wheel, contents):
    card = "ifrnet_model/weights/MODEL_CARD.md"
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", wheel.read(card).decode())
    assert "fast_motion.jpg" in targets
    assert {f"ifrnet_model/weights/{target}" for target in targets} <= contents


def test_a_package_index_accepts_the_wheel(wheel_path):
    check_with_twine(wheel_path)


def test_the_metadata_names_the_paper_and_the_original_implementation(metadata):
    assert metadata["Version"] == runtime.__version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("Project-URL") == [
        "Paper, https://arxiv.org/abs/2205.14620",
        "Original implementation, https://github.com/ltkong218/IFRNet",
    ]


def test_links_of_the_description_are_absolute(metadata):
    """A package index shows the description without the files of the repository."""
    assert metadata["Description-Content-Type"] == "text/markdown"
    links = re.findall(r"\]\(([^)]+)\)", metadata.get_payload())
    assert links
    assert [link for link in links if not link.startswith("https://")] == []


def test_the_wheel_installs_the_console_command(wheel):
    (entries,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    assert wheel.read(entries).decode().split("\n")[:2] == [
        "[console_scripts]", "ifrnet = runtime.cli.ifrnet:main"
    ]  # fmt: skip


def test_commands_of_the_description_exist():
    text = (ROOT / "docs" / "package.md").read_text()
    commands = re.findall(r"python -m ([\w.]+)([^`\n]*)", text)
    assert len(commands) == 4
    for module, arguments in commands:
        words = [word for word in arguments.split() if re.fullmatch("[a-z]+", word)][:1]
        used = run_module(module, *(words if module == "ifrnet_model.weights" else []), "--help")
        assert used.returncode == 0, used.stderr
        assert set(re.findall(r"--[\w-]+", arguments)) <= set(re.findall(r"--[\w-]+", used.stdout))
