"""README is short, links have targets, and files that pages name exist."""

import re
import subprocess

import pytest

from doc_pages import DOCS, anchors, pages
from paths import ROOT

README = ROOT / "README.md"
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")


def markdown_files():
    """Every Markdown file of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    names = [name for name in listed if name] or [p.relative_to(ROOT) for p in ROOT.glob("*.md")]
    return [ROOT / name for name in names if (ROOT / name).exists()]


def test_readme_is_short():
    text = README.read_text()
    assert len(text.splitlines()) <= 190
    assert len(text.split()) <= 1800


def test_readme_has_two_short_generated_tables():
    tables = re.findall(r"<!-- report:[\w-]+ -->(.*?)<!-- /report -->", README.read_text(), re.S)
    assert len(tables) == 2
    for table in tables:
        lines = table.strip().splitlines()
        assert all(line.startswith("|") for line in lines)  # No footnotes below the table.
        assert len(lines) <= 2 + 8


@pytest.mark.parametrize(
    "page", markdown_files(), ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_link_targets_exist(page):
    for link in LINK.findall(page.read_text()):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor and target.suffix == ".md" and target.name != "api.md":
            assert anchor in anchors(target), link


def test_every_page_is_in_the_navigation():
    assert {page for page in pages() if page.parent != ROOT} == set(DOCS.rglob("*.md"))


def test_files_named_in_architecture_exist():
    text = (DOCS / "architecture.md").read_text()
    files = {
        path.relative_to(ROOT).as_posix()
        for folder in ("ifrnet_model", "export", "runtime", "bench", "tools", "tests")
        for path in (ROOT / folder).rglob("*.*")
    }
    named = re.findall(r"`([\w/]+\.py)`", text)
    assert len(named) > 50
    for name in named:
        assert any(file == name or file.endswith(f"/{name}") for file in files), name
    for folder in re.findall(r"`([\w/]+)/`", text):
        assert any(f"{folder}/" in file for file in files), folder
