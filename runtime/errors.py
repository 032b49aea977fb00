"""The exceptions that this package raises; each message is one sentence with the remedy."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path


class InterpolationError(Exception):
    """Base class of the exceptions of this package."""


class ModelError(InterpolationError):
    """The model file is missing, damaged, not from this package, or does not fit its manifest."""


class BackendError(InterpolationError):
    """The inference backend is not installed, not available on this machine, or failed."""


class FrameError(InterpolationError, ValueError):
    """Frames or time steps do not fit each other or the model."""


class VideoError(InterpolationError):
    """A video could not be read or written."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message; the name of its class if the message is empty.

    For exceptions of other libraries, whose messages may fill a page.
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 frame", "2 frames"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def rounded(value: float) -> str:
    """A number with three significant digits, or all digits of its integer part: 0.123, 1235."""
    exponent = int(f"{value:.2e}".partition("e")[2])
    return f"{value:.{max(0, 2 - exponent)}f}"


def kind_of(value: object) -> str:
    """The type of a value as messages name it: "a list", "an int", "a torch.Tensor", "None"."""
    if value is None:
        return "None"
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    name = kind.__name__ if package == "builtins" else f"{package}.{kind.__name__}"
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def install_command(extras: str) -> str:
    """The pip command that installs extras of ifrnet-deploy.

    Args:
        extras: One or several, for example "cpu,video".

    Returns:
        A command for the installed package ifrnet-deploy; if this copy is not installed, for its
        folder.
    """
    try:
        importlib.metadata.version("ifrnet-deploy")
    except importlib.metadata.PackageNotFoundError:
        return f"pip install '{Path(__file__).resolve().parent.parent}[{extras}]'"
    return f"pip install 'ifrnet-deploy[{extras}]'"
