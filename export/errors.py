"""The errors of this package: one sentence each, with the remedy."""

from __future__ import annotations


class ExportError(Exception):
    """An artefact cannot be made as asked."""


class BuildError(ExportError):
    """TensorRT parsed the graph and could not build an engine; another build may succeed."""


class GateError(ExportError):
    """An artefact was made, differs from its reference, and was not kept."""
