"""What may happen to an input, and how an exception is judged."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

from ifrnet_model.errors import CheckpointError
from runtime.errors import InterpolationError

Outcome = Literal["accepted", "refused", "traceback", "wrong", "memory", "hang", "crash"]

OUTCOMES: dict[Outcome, str] = {
    "accepted": "it was read or computed without an error",
    "refused": "one sentence said what was wrong",
    "traceback": "another exception was raised, or the message was not one short line",
    "wrong": "it was accepted with a result that differs from the right one",
    "memory": "it took more than 1.5 GiB of memory",
    "hang": "it did not end within 30 seconds",
    "crash": "the process ended",
}
"""Outcome -> its meaning. Only the first two are good."""

GOOD: tuple[Outcome, ...] = ("accepted", "refused")

_EXPECTED = (InterpolationError, CheckpointError)
_LONGEST_MESSAGE = 1_000_000
_ROOT = Path(__file__).resolve().parents[2]


class WrongResultError(Exception):
    """An input was accepted, and its result is not the right one."""


@dataclass(frozen=True)
class Target:
    """A part of the package, with inputs for it.

    Attributes:
        name: Its name in the report.
        prepare: Makes what all inputs need, in an empty folder; called once in each process.
        run: Makes one input from random numbers and feeds it. An exception is judged by `judged`.
        weight: Number of its inputs relative to the other targets.
        errors: Expected exceptions besides those of the package.
    """

    name: str
    prepare: Callable[[Path], Any]
    run: Callable[[Any, Random], None]
    weight: float = 1.0
    errors: tuple[type[Exception], ...] = ()


def judged(target: Target, run: Callable[[], None]) -> tuple[Outcome, str]:
    """Runs one input; returns its outcome, and what is to be reported about it."""
    try:
        run()
    except WrongResultError as error:
        return "wrong", str(error)
    except (*_EXPECTED, *target.errors) as error:
        message = str(error)
        if "\n" in message or not message or len(message) > _LONGEST_MESSAGE:
            return "traceback", f"a message of {len(message)} characters: {message[:200]!r}"
        return "refused", message
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {str(error)[:200]!r} at {_place(error)}"
    return "accepted", ""


def _place(error: BaseException) -> str:
    """The deepest line of this project in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        f for f in frames if Path(f.filename).is_relative_to(_ROOT) and "/.venv" not in f.filename
    ]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
