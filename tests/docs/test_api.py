"""The API page lists every public name with the path from which it is imported."""

import importlib
import re

import pytest

import runtime
from doc_pages import DOCS

NAMES = re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(), re.MULTILINE)


def test_every_public_name_is_on_the_page():
    assert {f"runtime.{name}" for name in runtime.__all__} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_can_be_imported_from_its_path_on_the_page(name):
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)
