"""A cache of compiled models on disk: opening one is faster than compiling.

A blob is a model that is compiled for a type of CPU. When OpenVINO loads a blob, it checks the
version and the instruction set but not the content. Therefore a blob is stored with a checksum and
written atomically, and a model whose blob is damaged or refused is compiled again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.backends.ov.precision import PREPARATION
from runtime.files import make_private_folder, read_with_digest, write_with_digest

_MAGIC = b"ifrnet-openvino-2\n"
"""First bytes of a file, with the version of its format."""

_MAX_BYTES = 2 << 30
"""Limit of the size of the folder in bytes; the least recently used blobs are removed."""


class CacheEntry:
    """The cached blob of one model, compiled with one OpenVINO, CPU and settings.

    Args:
        folder: Folder of the cache; created by the first `write`.
        openvino: The module.
        core: An openvino.Core.
        content: The ONNX file.
        settings: Properties for the compilation.
        shapes: Shapes to which inputs are fixed, by name; None: as in the file.

    Attributes:
        path: Path of the blob.
    """

    def __init__(
        self,
        folder: Path,
        openvino: Any,
        core: Any,
        content: bytes,
        settings: Mapping[str, str],
        shapes: Mapping[str, list[int]] | None = None,
    ) -> None:
        depends_on = {
            "onnx": hashlib.sha256(content).hexdigest(),
            "openvino": openvino.get_version(),
            "preparation": PREPARATION,
            "processor": core.get_property("CPU", "FULL_DEVICE_NAME"),
            "capabilities": sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
            "settings": dict(settings),
        }
        if shapes is not None:
            depends_on["shapes"] = dict(shapes)
        key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()
        self.path = folder / f"{key}.blob"
        self._core = core
        self._settings = dict(settings)

    def read(self) -> Any | None:
        """The compiled model; None if the blob is missing, damaged or refused by OpenVINO."""
        try:
            blob = read_with_digest(self.path, _MAGIC)
        except OSError:
            return None
        if blob is None:
            return None
        try:
            compiled = self._core.import_model(blob, "CPU", self._settings)
        except RuntimeError:
            return None
        with contextlib.suppress(OSError):
            self.path.touch()
        return compiled

    def write(self, compiled: Any) -> None:
        """Stores a compiled model; if the file cannot be written, nothing is stored."""
        blob = compiled.export_model()
        content = blob if isinstance(blob, bytes) else blob.getvalue()
        with contextlib.suppress(OSError):
            make_private_folder(self.path.parent)
            write_with_digest(self.path, _MAGIC, content)
            self._evict()

    def _evict(self) -> None:
        """Removes the least recently used blobs above the limit, but not this one."""
        blobs = []
        for path in self.path.parent.glob("*.blob"):
            with contextlib.suppress(OSError):  # Another process may have removed it.
                blobs.append((path.stat().st_mtime, path.stat().st_size, path))
        total = 0
        for _, size, path in sorted(blobs, reverse=True):
            total += size
            if total > _MAX_BYTES and path != self.path:
                path.unlink(missing_ok=True)
