"""Compiled models on disk, by which OpenVINO opens a model sooner the next time.

A blob is the processor's own copy of a model. OpenVINO checks its version and the instruction set
when it loads one, and nothing of its content; so each lies behind a checksum, is written by
rename, and whatever is wrong with one means that the model is compiled again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.files import read_with_digest, write_with_digest

_MAGIC = b"ifrnet-openvino-2\n"
"""Its number rises where blobs of an earlier version may not be used: those of 1 may hold bfloat16
coordinates."""

_LARGEST = 2 << 30
"""Bytes that the folder holds; the blobs that were not used for the longest go first."""


class ModelCache:
    """The place of one model, compiled in one way.

    Args:
        folder: Where it lies; made when something is written.
        openvino: The module.
        core: An openvino.Core.
        content: The ONNX file.
        settings: What it is compiled with.
    """

    def __init__(
        self,
        folder: Path,
        openvino: Any,
        core: Any,
        content: bytes,
        settings: Mapping[str, str],
    ) -> None:
        depends_on = {
            "onnx": hashlib.sha256(content).hexdigest(),
            "openvino": openvino.get_version(),
            "processor": core.get_property("CPU", "FULL_DEVICE_NAME"),
            "capabilities": sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
            "settings": dict(settings),
        }
        key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()
        self.path = folder / f"{key}.blob"
        self._core = core
        self._settings = dict(settings)

    def read(self) -> Any | None:
        """The compiled model; None where there is none that is whole and fits."""
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
        """Keeps a compiled model. Where that cannot be written, the next start is a slow one."""
        blob = compiled.export_model()
        content = blob if isinstance(blob, bytes) else blob.getvalue()
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_with_digest(self.path, _MAGIC, content)
            self._make_room()

    def _make_room(self) -> None:
        """Removes what was not used for the longest; never what was written now."""
        found = []
        for path in self.path.parent.glob("*.blob"):
            with contextlib.suppress(OSError):  # Another process may have removed it.
                found.append((path.stat().st_mtime, path.stat().st_size, path))
        total = 0
        for _, size, path in sorted(found, reverse=True):
            total += size
            if total > _LARGEST and path != self.path:
                path.unlink(missing_ok=True)
