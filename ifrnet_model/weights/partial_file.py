"""The file of a download until it is complete: its bytes, its lock, and what they belong to."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO

from ifrnet_model.errors import CheckpointError

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows: two downloads of one file at the same time are not detected.
    HAS_FLOCK = False
else:
    HAS_FLOCK = True


class PartialFile:
    """The bytes received so far, and the server's version of the file that they belong to.

    `NAME.partial.json` beside the file contains the URL and the validator (RFC 9110: a strong ETag,
    or else Last-Modified), without which resuming could mix two versions.

    Attributes:
        path: The file.
        url: Its URL.
        most: Limit of its size in bytes.
    """

    def __init__(self, path: Path, url: str, most: int) -> None:
        self.path = path
        self.url = url
        self.most = most
        self._record = path.with_name(f"{path.name}.json")

    @property
    def size(self) -> int:
        """Number of bytes; 0 without a file."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def validator(self) -> str | None:
        """The validator of the bytes; None if they cannot be resumed."""
        try:
            record = json.loads(self._record.read_bytes())
            return str(record["validator"]) if record["url"] == self.url else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def restart(self, validator: str | None) -> None:
        """Deletes the bytes and records the validator of those that follow."""
        self.clear()
        if validator is not None:
            with opened_to_append(self._record) as file:
                file.write(json.dumps({"url": self.url, "validator": validator}).encode())

    def clear(self) -> None:
        """Deletes the bytes; the locked, empty file stays until `locked` removes it at its end."""
        self._record.unlink(missing_ok=True)
        if self.path.exists():
            os.truncate(self.path, 0)

    @contextmanager
    def locked(self, note: Callable[[str], object]) -> Iterator[None]:
        """Locks the file against other downloads, and removes it at the end if it is empty.

        Raises:
            CheckpointError: If another download is writing the file.
            OSError: If the file cannot be created.
        """
        with self._lock(note) if HAS_FLOCK else nullcontext():
            try:
                yield
            finally:
                if self.size == 0:
                    self.path.unlink(missing_ok=True)

    def _lock(self, note: Callable[[str], object]) -> IO[bytes]:
        while True:
            file = opened_to_append(self.path)
            try:
                flock(file, LOCK_EX | LOCK_NB)
            except BlockingIOError as error:
                file.close()
                raise CheckpointError(
                    f"{self.path} is being written by another download: wait until it has ended"
                ) from error
            except OSError as error:
                note(f"{self.path} is not locked ({error}): do not download it twice at a time")
            # Another download may have renamed or removed the file between the two calls.
            if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                return file
            file.close()


def opened_to_append(path: Path) -> IO[bytes]:
    """Opens a file to append to it; creates it if it is missing.

    Raises:
        OSError: If that is not possible, or it is a symbolic link, which may lead anywhere.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    return open(path, "ab", opener=lambda name, _: os.open(name, flags, 0o666))
