"""The errors of this package: one sentence each, with the remedy."""

from __future__ import annotations


class ExportError(Exception):
    """An artefact cannot be made as asked."""


class GateError(ExportError):
    """An artefact was made, differs from its reference, and was not kept."""
