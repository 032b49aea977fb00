"""The errors that this package raises on purpose: one sentence each, with the remedy.

`first_line` is for those that other libraries raise.
"""

from __future__ import annotations


class InterpolationError(Exception):
    """Base of all errors below; catch this one to catch them all."""


class ModelError(InterpolationError):
    """The model file is missing, damaged, not one of ours, or does not fit its manifest."""


class BackendError(InterpolationError):
    """The inference backend is not installed, not available on this machine, or failed."""


class FrameError(InterpolationError, ValueError):
    """Frames or time steps do not fit each other or the model."""


class VideoError(InterpolationError):
    """A video could not be read or written."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says; the name of its class where it says nothing.

    For errors of other libraries, which may go on for a page.
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
