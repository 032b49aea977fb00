"""Imports of packages that send telemetry by default, with their telemetry off.

ONNX Runtime 1.32 writes an identifier of the machine below ~/.cache/Microsoft as soon as it is
imported and uploads events to Microsoft, unless ORT_DISABLE_TELEMETRY is 1 at that time. OpenVINO
sends an event to Google Analytics as soon as it is imported and writes its identifier below
~/intel, both through the package openvino_telemetry; without that package it uses a stub and sends
nothing. Ray sends a report every hour from each cluster that was started while
RAY_USAGE_STATS_ENABLED was not 0.

Nothing is changed for a user who has set one of these variables, or who has imported OpenVINO or
openvino_telemetry before.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TURNED_OFF = {
    "onnxruntime": ("ORT_DISABLE_TELEMETRY", "1"),
    "ray": ("RAY_USAGE_STATS_ENABLED", "0"),
}
"""Package -> environment variable and value that turn its telemetry off."""

_OPENVINO_TELEMETRY = "openvino_telemetry"


def import_quietly(name: str) -> Any:
    """Imports a module as `importlib.import_module` does, with its telemetry off.

    A module without telemetry is imported unchanged.

    Args:
        name: Name of the module, for example "onnxruntime", "openvino" or "ray".

    Raises:
        ImportError: If the module is not installed or does not load.
    """
    if name in _TURNED_OFF:
        os.environ.setdefault(*_TURNED_OFF[name])
    if name != "openvino":
        return importlib.import_module(name)
    with _without_openvino_telemetry():
        return importlib.import_module(name)


@contextmanager
def _without_openvino_telemetry() -> Iterator[None]:
    """Makes imports of openvino_telemetry fail, unless it has been imported before."""
    if _OPENVINO_TELEMETRY in sys.modules:
        yield
        return
    sys.modules[_OPENVINO_TELEMETRY] = None  # type: ignore[assignment]  # Blocks the import.
    try:
        yield
    finally:
        sys.modules.pop(_OPENVINO_TELEMETRY, None)
