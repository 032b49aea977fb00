"""Outputs are written beside their final place and renamed: whole, or not there at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Gives a path in the folder of `path`, with its suffix; renames it to `path` on success.

    After an error nothing is left, and a file that stood at `path` stands there still.

    Raises:
        OSError: If the folder is missing or cannot be written to.
    """
    beside = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
