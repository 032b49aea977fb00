import importlib.metadata
from pathlib import Path

import pytest

import runtime
from runtime.errors import first_line, install_command


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\none reason\nand a page of details\n"), "one reason"),
        (ValueError(), "ValueError"),
        (RuntimeError(" \n"), "RuntimeError"),
    ],
)
def test_the_first_line_of_an_error(error, line):
    assert first_line(error) == line


def test_the_install_command_names_the_package_or_the_checkout(monkeypatch):
    assert install_command("cpu,video") == "pip install 'ifrnet-deploy[cpu,video]'"

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    copy = Path(runtime.__file__).parents[1]
    assert install_command("cpu,video") == f"pip install '{copy}[cpu,video]'"
