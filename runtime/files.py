"""Files that are whole or not there at all, files with a checksum, and the order of file names."""

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


def write_with_digest(path: Path, magic: bytes, content: bytes) -> None:
    """Writes a mark, the SHA-256 of the content, and the content; see `read_with_digest`.

    Raises:
        OSError: If the folder is missing or cannot be written to.
    """
    with written_beside(path) as beside, beside.open("wb") as file:
        file.write(magic + hashlib.sha256(content).digest())
        file.write(content)


def read_with_digest(path: Path, magic: bytes) -> bytes | None:
    """The content that `write_with_digest` wrote; None where the mark or the hash is another.

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
    """Sorts files by name as people do: frame9 before frame10."""
    parts = re.split(r"(\d+)", path.name)
    # isdecimal is what the pattern splits at; isdigit would take a superscript for a number.
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
