"""What makes the next build shorter: a timing cache that is whole, and a key that tells when an
engine is up to date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.errors import ModelError
from runtime.files import read_with_digest, write_with_digest
from runtime.machine import cache_folder
from runtime.manifest import EngineManifest

_MAGIC = b"ifrnet-timing-1\n"


def default_timing_cache(version: str, gpu: str) -> Path:
    """Where the timing cache of one TensorRT and one kind of GPU lies."""
    name = "".join(c if c.isalnum() or c in ".-" else "-" for c in f"{version}-{gpu}")
    return cache_folder() / f"timing-{name}.cache"


def read_timing_cache(path: Path) -> tuple[bytes, str | None]:
    """The cache's content, empty where there is none, and what is wrong with it if anything is.

    TensorRT aborts the process over a corrupt one, hence the checksum.
    """
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
    """Writes the cache with its checksum, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_with_digest(path, _MAGIC, payload)


def dependency_hash(depends_on: Mapping[str, Any]) -> str:
    """One hash of everything that an engine depends on."""
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


def stale_reason(
    path: Path, depends_on: Mapping[str, Any], *, fallback_allowed: bool
) -> str | None:
    """Why the engine at `path` must be built again; None where it is up to date.

    Args:
        path: Of an engine that exists.
        depends_on: What an engine built now would depend on.
        fallback_allowed: Whether an engine will do that is not quite what was asked for.
    """
    try:
        manifest = EngineManifest.read(path)
    except ModelError as error:
        return str(error)
    if manifest.engine is None:
        return f"it is for {manifest.backend}"
    before = manifest.engine.depends_on
    for name, now in depends_on.items():
        if before.get(name) != now:
            return f"{name} was {_short(before.get(name))} and is {_short(now)}"
    if manifest.engine.fallback is not None and not fallback_allowed:
        return "it is a fallback, and --allow-fallback was not given"
    return None


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) < 64 else text[:12]
