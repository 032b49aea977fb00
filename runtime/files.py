"""Atomic writes, files with a checksum, caches, JSON, locks, and the order of file names.

The locks are those of flock(2): they exclude other processes and other threads of this process,
and the system releases them when the process ends, also when it is killed. Without flock (Windows)
a file or a folder counts as locked for as long as it exists.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
except ImportError:
    HAS_FLOCK = False
else:
    HAS_FLOCK = True

SHIPPED_MODELS = Path(__file__).resolve().parent / "models"
"""Folder of the models that are shipped with the package."""

_LOCK_ATTEMPTS = 100


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Creates an empty temporary file beside `path`, and renames it to `path` on success.

    The temporary file has the suffix of `path` and a random name, so that several writers of one
    `path`, even on several machines, never share it; the last one to finish wins. It is created
    exclusively: a file or a symbolic link of that name is an error. After an error it is removed,
    and the file at `path`, if any, is unchanged.

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


def path_problem(path: str | os.PathLike[str]) -> str | None:
    """Why no file can have this path, as the end of a sentence; None if one can."""
    try:
        os.lstat(path)
    except ValueError:  # A null character, or half of a surrogate pair.
        return "which has characters that no path can have"
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return "which is too long for a path"
    return None


def make_private_folder(folder: Path) -> None:
    """Creates a folder, and those above it that are missing, for this user alone.

    Raises:
        OSError: If it cannot be created.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def distrust(folder: Path) -> str | None:
    """Why a cache in this folder must not be used; None if only this user can write to it.

    A compiled model or an engine runs as code, and a checksum does not show who wrote it. Folders
    are not examined on Windows, nor where they do not exist yet.
    """
    try:
        status = folder.stat()
    except OSError:
        return None
    if not hasattr(os, "geteuid"):
        return None
    if status.st_uid != os.geteuid():
        return f"{folder} belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"other users can write to {folder}"
    return None


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        ValueError: If it is not JSON, or is nested too deeply.
        OSError: If it cannot be read.
    """
    return parse_json(path.read_bytes())


def parse_json(content: str | bytes) -> Any:
    """Parses JSON, in UTF-8, UTF-16 or UTF-32 if it is bytes.

    Raises:
        ValueError: If it is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key for file names that compares numbers by value: frame9 before frame10."""
    parts = re.split(r"(\d+)", path.name)
    # isdecimal accepts exactly what \d matches; isdigit would also accept superscripts.
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def empty_folder(folder: Path, *, keep: str | None = None) -> None:
    """Removes everything in a folder except the entry named `keep`.

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


def rename_over(folder: Path, target: Path) -> None:
    """Renames a folder to `target`, and removes the folder with its content that is there.

    If the rename fails, the folder at `target` is unchanged.

    Raises:
        OSError: If a folder cannot be renamed, or the old one not removed.
    """
    aside = target.with_name(f".{target.name}.{secrets.token_hex(8)}.old")
    target.rename(aside)
    try:
        folder.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside)


class Lock:
    """An exclusive lock on a file or a folder; held until `release`.

    Attributes:
        path: The locked file or folder.
        notes: Notes for the user: that the file system does not support locks.
    """

    def __init__(self, path: Path, descriptor: int | None, notes: list[str]) -> None:
        self.path = path
        self.notes = notes
        self._descriptor = descriptor

    def is_current(self) -> bool:
        """Whether `path` still is the file or folder that was locked, not removed or replaced."""
        if self._descriptor is None:
            return self.path.exists()
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.lstat())
        except OSError:
            return False

    def release(self) -> None:
        """Releases the lock without removing the file or folder; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def lock_file(path: Path) -> Lock | None:
    """Locks a file, which is created if it is missing; its content is not changed.

    Returns:
        The lock, or None if another process or thread holds it.

    Raises:
        OSError: If the file cannot be created or opened for writing, or is a symbolic link.
    """
    if not HAS_FLOCK:
        return _lock_by_creating(path, lambda: path.touch(exist_ok=False))
    flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW
    return _lock_by_flock(path, lambda: os.open(path, flags, 0o666))


def lock_folder(path: Path) -> Lock | None:
    """Locks a folder, which is created with its parents if it is missing.

    Returns:
        The lock, or None if another process or thread holds it.

    Raises:
        OSError: If the folder cannot be created or opened, or is a symbolic link.
    """
    if not HAS_FLOCK:
        return _lock_by_creating(path, lambda: path.mkdir(parents=True))

    def open_folder() -> int:
        path.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)

    return _lock_by_flock(path, open_folder)


def is_locked(path: Path) -> bool:
    """Whether any process has locked a file or a folder; False without flock. Creates nothing."""
    if not HAS_FLOCK:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        flock(descriptor, LOCK_SH | LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


@contextmanager
def exclusive_access(folder: Path) -> Iterator[None]:
    """Runs the block while no other thread or process is in such a block for the same folder.

    Waits for the others. Without flock, or on a file system that does not support it, the block
    runs at once.

    Raises:
        OSError: If the folder cannot be opened.
    """
    if not HAS_FLOCK:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            flock(descriptor, LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock_by_flock(path: Path, open_it: Callable[[], int]) -> Lock | None:
    for _ in range(_LOCK_ATTEMPTS):
        try:
            descriptor = open_it()
        except FileNotFoundError:
            if path.parent.is_dir():  # Another run has just renamed or removed it.
                continue
            raise
        notes = []
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            notes.append(
                f"{path} is not locked ({error.strerror}): do not write to it from two runs "
                "at the same time"
            )
        lock = Lock(path, descriptor, notes)
        # Another run may have renamed or removed the file between the two calls.
        if lock.is_current():
            return lock
        lock.release()
    raise OSError(errno.EBUSY, "another program keeps replacing it, stop that program", str(path))


def _lock_by_creating(path: Path, create: Callable[[], None]) -> Lock | None:
    try:
        create()
    except FileExistsError:
        return None
    return Lock(path, None, [])
