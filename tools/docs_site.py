"""Links of the documentation site to files of the repository that are not pages.

Pages link to such files by relative paths, which work in a checkout and on a forge. The site does
not hold these files: a link leads to the repository, if mkdocs.yml names it as `repo_url`, else the
path is shown in its place.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

_ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>\.\./[^)#\s]+)(?P<anchor>#[^)\s]+)?\)")

# A child of MkDocs' logger: `mkdocs build --strict` fails where one of them warns.
_LOG = logging.getLogger(f"mkdocs.{__name__}")


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Replaces the links of a page that lead out of docs/; MkDocs calls it for each page."""
    folder = Path(page.file.abs_src_path or "").parent

    def replaced(link: re.Match[str]) -> str:
        target = (folder / link["target"]).resolve()
        if target.is_relative_to(config.docs_dir):
            return link[0]
        if not target.exists():
            _LOG.warning("%s links to %s, which does not exist", page.file.src_uri, link["target"])
            return link[0]
        path = target.relative_to(_ROOT).as_posix()
        if config.repo_url:
            kind = "tree" if target.is_dir() else "blob"
            url = f"{config.repo_url.rstrip('/')}/{kind}/main/{path}{link['anchor'] or ''}"
            return f"[{link['text']}]({url})"
        text = link["text"].strip("`")
        return f"`{path}`" if path.endswith(text) else f"{link['text']} (`{path}`)"

    return _LINK.sub(replaced, markdown)
