"""Shortens later builds: the timing cache, and the check whether an engine is up to date."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.errors import ModelError
from runtime.files import distrust, make_private_folder, read_with_digest, write_with_digest
from runtime.machine import cache_folder
from runtime.manifest import EngineManifest

_MAGIC = b"ifrnet-timing-1\n"


def default_timing_cache(version: str, gpu: str) -> Path:
    """The default path of the timing cache of a version of TensorRT and a GPU model."""
    name = "".join(c if c.isalnum() or c in ".-" else "-" for c in f"{version}-{gpu}")
    return cache_folder() / f"timing-{name}.cache"


def read_timing_cache(path: Path) -> tuple[bytes, str | None]:
    """Reads a timing cache and checks its checksum: TensorRT aborts the process over a damaged one.

    Returns:
        The content, empty if the file is missing or unusable, and a note for the user if it is
        unusable, also because other users can write to its folder.
    """
    if why := distrust(path.parent):
        return b"", f"the timing cache {path} is not used, {why}: make it yours alone (chmod 700)"
    try:
        payload = read_with_digest(path, _MAGIC)
    except FileNotFoundError:
        return b"", None
    except OSError as error:
        return b"", f"the timing cache {path} cannot be read ({error}): building without it"
    if payload is None:
        return b"", f"the timing cache {path} is damaged: starting a new one"
    return payload, None


def write_timing_cache(path: Path, payload: bytes) -> None:
    """Writes the cache with its checksum atomically, unless other users can write there."""
    make_private_folder(path.parent)
    if distrust(path.parent) is None:
        write_with_digest(path, _MAGIC, payload)


def dependency_hash(depends_on: Mapping[str, Any]) -> str:
    """The SHA-256 of everything that an engine depends on."""
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


def stale_reason(
    path: Path, depends_on: Mapping[str, Any], *, fallback_allowed: bool
) -> str | None:
    """Why the engine at `path` must be built again; None if it is up to date.

    Args:
        path: An existing engine.
        depends_on: Everything that an engine built now would depend on.
        fallback_allowed: Whether a fallback is accepted.
    """
    try:
        manifest = EngineManifest.read(path)
    except ModelError as error:
        return str(error)
    if manifest.engine is None:
        return f"it is an artefact for {manifest.backend}"
    recorded = manifest.engine.depends_on
    for name, value in depends_on.items():
        if recorded.get(name) != value:
            return f"{name} was {_short(recorded.get(name))} and is {_short(value)}"
    if manifest.engine.fallback is not None and not fallback_allowed:
        return "it is a fallback, and --allow-fallback was not given"
    return None


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) < 64 else text[:12]
