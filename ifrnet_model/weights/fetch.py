"""Downloads a known checkpoint: resumed, checked, renamed when it is right. No PyTorch.

Proxies are those of the environment (http_proxy, https_proxy, no_proxy).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ifrnet_model.errors import CheckpointError
from ifrnet_model.weights.table import DEMO_WEIGHTS, KnownCheckpoint, checkpoint_named
from ifrnet_model.weights.transfer import Partial, Progress, TransferError, receive

MIRROR = "IFRNET_WEIGHTS_MIRROR"
"""Environment variable: a base URL that is put before the file's name, in place of our own."""

_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each further try."""

_SIZE_TOLERANCE = 0.05
"""The table's sizes are rounded, and pickles of one network differ by a few kB."""

_PYTORCH_BEGINNINGS = (b"PK\x03\x04", b"\x80\x02")
"""A PyTorch file is a zip archive, or a pickle where PyTorch was older than 1.6."""


class Download(NamedTuple):
    """A checkpoint that is there now.

    Attributes:
        path: The file.
        known: What the table says of it.
        sha256: Of the file.
        was_there: It was there and right, and nothing was loaded.
    """

    path: Path
    known: KnownCheckpoint
    sha256: str
    was_there: bool


def download_checkpoint(
    name: str,
    folder: str | Path = ".",
    *,
    mirror: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    note: Callable[[str], object] | None = None,
    pauses: Sequence[float] = _PAUSES,
) -> Download:
    """Brings a known checkpoint into a folder, or finds that it is there.

    What has come of it lies under `NAME.partial` until it is whole and right; a later call goes
    on from there if the server still has the same file.

    Args:
        name: See `checkpoint_named`.
        folder: Made if it is missing.
        mirror: Base URL; by default that of the environment, else the publisher's own place.
        force: Replaces a file that is there.
        progress: Called with the bytes so far and in all (None where the server does not say).
        note: Called with a sentence where a try is repeated.
        pauses: Seconds before each further try after a connection broke off.

    Raises:
        CheckpointError: If there is no such checkpoint, no place to load it from, the server
            does not give it, it is not right, another file has its name, or another download
            is writing it.
        OSError: If the file cannot be written.
    """
    known = checkpoint_named(name)
    target = Path(folder) / known.name
    if target.exists() and not force:
        sha256 = _file_sha256(target)
        if problem := _problem(known, target, sha256):
            raise CheckpointError(
                f"{target} is there and {problem}: move it away, or replace it with --force"
            )
        return Download(target, known, sha256, was_there=True)
    shipped = known.name == DEMO_WEIGHTS.name
    url = "" if shipped else _url(known, os.environ.get(MIRROR) if mirror is None else mirror)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Partial(target.with_name(f"{target.name}.partial"), url)
    with partial.held(note or _nothing):
        if shipped:
            shutil.copyfile(DEMO_WEIGHTS, partial.path)
        else:
            _receive_patiently(partial, progress or _nothing, note or _nothing, pauses)
        sha256 = _file_sha256(partial.path)
        if problem := _problem(known, partial.path, sha256):
            partial.drop()
            raise CheckpointError(
                f"what {url or DEMO_WEIGHTS} gave for {known.name} {problem}; it was not kept: "
                f"try again, or name another server in {MIRROR}"
            )
        partial.path.replace(target)
        partial.drop()
    return Download(target, known, sha256, was_there=False)


def _url(known: KnownCheckpoint, mirror: str | None) -> str:
    if mirror:
        parts = urlsplit(mirror)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise CheckpointError(f"{MIRROR} is {mirror}: give a base URL, as https://host/folder/")
        return f"{mirror.rstrip('/')}/{known.name}"
    if known.url is None:
        raise CheckpointError(
            f"{known.name} cannot be fetched by a command, its publisher gives it by a share page: "
            f"{known.place}; save it, then give the file to --weights of python -m "
            f"export.build_engine, or name a server that has it in {MIRROR}"
        )
    return known.url


def _receive_patiently(
    partial: Partial,
    progress: Progress,
    note: Callable[[str], object],
    pauses: Sequence[float],
) -> None:
    """Tries until it is whole, at most once more than there are pauses."""
    for pause in (*pauses, None):
        try:
            receive(partial, progress)
            return
        except TransferError as error:
            if pause is None:
                kept = partial.size if partial.validator else 0
                rest = f"; the first {kept} bytes are kept in {partial.path}" if kept else ""
                raise CheckpointError(
                    f"{partial.url}: {error}, {len(pauses) + 1} times{rest}: look at the network "
                    "and run the command again"
                ) from error
            note(f"{error}; trying again in {pause:g} s")
            time.sleep(pause)


def _problem(known: KnownCheckpoint, path: Path, sha256: str) -> str | None:
    """What is wrong with a file, after "it"; where the hash is unknown, size and kind must do."""
    if known.sha256 is not None:
        if sha256.startswith(known.sha256):
            return None
        return f"has sha256 {sha256[:12]}..., the published file {known.sha256[:12]}..."
    size = path.stat().st_size
    if known.megabytes and abs(size / 1e6 / known.megabytes - 1) > _SIZE_TOLERANCE:
        return f"is of {size / 1e6:.1f} MB, the published file of {known.megabytes} MB"
    with path.open("rb") as file:
        beginning = file.read(16)
    if not beginning.startswith(_PYTORCH_BEGINNINGS):
        return f"is no PyTorch file: it begins with {beginning!r}"
    return None


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _nothing(*_: object) -> None:
    """For those who do not want to be told."""
