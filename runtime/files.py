"""Outputs are written beside their final place and renamed: whole, or not there at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Gives a new file in the folder of `path`, with its suffix; renames it to `path` on success.

    Its name is random: writers of one `path`, in one process or in several, on one machine or on
    several, never share a file, and the last one to finish stays. After an error nothing is left,
    and a file that stood at `path` stands there still.

    Raises:
        OSError: If the folder is missing or cannot be written to.
    """
    beside = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.partial{path.suffix}")
    beside.touch(exist_ok=False)
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def empty_folder(folder: Path, *, keep: str | None = None) -> None:
    """Removes everything in a folder but the folder itself and the entry named `keep`.

    Raises:
        OSError: If something cannot be removed.
    """
    for entry in folder.iterdir():
        if entry.name == keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
