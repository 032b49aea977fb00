"""Atomic writes, files with a checksum, and the order of file names."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Creates an empty temporary file beside `path`, and renames it to `path` on success.

    It has the suffix of `path` and a random name, so that several writers of one `path`, even on
    several machines, never share a temporary file; the last one to finish wins. After an error the
    temporary file is removed and the file at `path`, if any, is unchanged.

    Yields:
        The path of the temporary file.

    Raises:
        OSError: If the folder is missing or cannot be written to.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.partial{path.suffix}")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_with_digest(path: Path, magic: bytes, content: bytes) -> None:
    """Writes `magic`, the SHA-256 of `content` and `content` to a file, atomically.

    Raises:
        OSError: If the folder is missing or cannot be written to.
    """
    with written_beside(path) as temporary, temporary.open("wb") as file:
        file.write(magic + hashlib.sha256(content).digest())
        file.write(content)


def read_with_digest(path: Path, magic: bytes) -> bytes | None:
    """Reads a file that `write_with_digest` wrote.

    Returns:
        The content; None if the file does not begin with `magic`, or the hash does not match.

    Raises:
        OSError: If the file cannot be read.
    """
    stored = memoryview(path.read_bytes())
    start = len(magic) + hashlib.sha256().digest_size
    content = stored[start:]
    digest = hashlib.sha256(content).digest()
    if stored[: len(magic)] != magic or stored[len(magic) : start] != digest:
        return None
    return bytes(content)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key for file names that compares numbers by value: frame9 before frame10."""
    parts = re.split(r"(\d+)", path.name)
    # isdecimal accepts exactly what \d matches; isdigit would also accept superscripts.
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


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
