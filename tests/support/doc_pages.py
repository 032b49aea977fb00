"""Code blocks, commands and headings of README and of the pages of the documentation."""

from __future__ import annotations

import functools
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

from paths import ROOT
from runtime.cli.ifrnet import COMMANDS

DOCS = ROOT / "docs"
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>[^>]+) -->\n\Z")
LANGUAGES = {"sh", "python", "py", "text", "json", "xml", "ini", "cpp"}
"""Languages that a code block may have. `py` marks a fragment, which is parsed but not run."""

_BLOCK = re.compile(r"^ *```(?P<language>\w*)\n(?P<body>.*?)^ *```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block of a page; `not_run` is the reason why its commands are not run."""

    page: Path
    language: str
    body: str
    not_run: str | None

    @property
    def commands(self) -> list[str]:
        """The commands of a block of language `sh`, one for each line, without comments."""
        if self.language != "sh":
            return []
        lines = self.body.replace("\\\n", " ").splitlines()
        found = (" ".join(line.partition(" #")[0].split()) for line in lines)
        return [command for command in found if command and not command.startswith("#")]


@functools.cache
def pages() -> tuple[Path, ...]:
    """README, the pages in the order of the site, and package.md, which PyPI shows."""

    def files(entry):
        if isinstance(entry, str):
            return [entry]
        if isinstance(entry, dict):
            (entry,) = entry.values()
            return files(entry)
        return [name for part in entry for name in files(part)]

    nav = yaml.load((ROOT / "mkdocs.yml").read_text(), yaml.BaseLoader)["nav"]
    return (ROOT / "README.md", *(DOCS / name for name in files(nav)), DOCS / "package.md")


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        marker = NOT_RUN.search(text, 0, match.start())
        reason = marker["reason"] if marker else None
        found.append(Block(page, match["language"], match["body"], reason))
    return found


@functools.cache
def blocks() -> tuple[Block, ...]:
    return tuple(block for page in pages() for block in blocks_of(page))


def module_of(command: str) -> tuple[str, list[str]] | None:
    """The module or file of this project that a command runs, and its arguments.

    None if the command runs neither `python` nor a subcommand of `ifrnet`.
    """
    first, *rest = shlex.split(command)
    if first == "ifrnet" and rest and rest[0] in COMMANDS:
        return COMMANDS[rest[0]].module, rest[1:]
    if first != "python" or not rest:
        return None
    return (rest[1], rest[2:]) if rest[0] == "-m" else (rest[0], rest[1:])


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and MkDocs give to the headings of a page."""
    text = _BLOCK.sub("", page.read_text())
    found = set()
    for heading in re.findall(r"^#+ +(.+)$", text, re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        found.add(words.replace(" ", "-"))
    return found
