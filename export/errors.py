"""The errors of this package. Each message is one sentence that says what to do."""

from __future__ import annotations


class ExportError(Exception):
    """An export or a build is impossible with the given input or options."""


class BuildError(ExportError):
    """TensorRT parsed the graph but could not build an engine; other options may succeed."""


class GateError(ExportError):
    """An artefact differs too much from its reference, and was not written."""
