"""Repairs standard streams that are closed, missing or broken, so that commands run as usual.

Text from files and servers, as a tag of a video, may contain control characters that move the
cursor or change settings of the terminal. They are printed as escapes.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from typing import Any, TextIO, cast

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, other ends of lines, changes of direction, and what has no encoding."""

_CURSOR = re.compile(r"(\n|\r|\x1b\[A)*")
"""Text by which tqdm moves the cursor between its bars."""


def printable(text: str) -> str:
    """The text with control characters, which a terminal would act on, as escapes.

    Tabs and ends of lines stay.
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def repair_streams() -> None:
    """Makes sys.stdin, sys.stdout and sys.stderr usable for the rest of the process.

    A stream that is closed (`2>&-`) or missing (pythonw) becomes the null device. Text for a pipe
    whose reader has ended (`| head -1`) is dropped; writing binary data, as of a video on stdout,
    still raises BrokenPipeError. Control characters in text are printed as escapes.
    """
    os.environ.setdefault("PYTHON_COLORS", "0")  # Python 3.13 colours tracebacks with escapes.
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # `open` returns the lowest free descriptor, which is that of the stream. Otherwise an
            # output file would get it, and native libraries would print into that file.
            null = open(os.devnull, "r" if name == "stdin" else "w")  # noqa: PTH123, SIM115
            os.set_inheritable(null.fileno(), True)
            setattr(sys, name, null)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # Not one that a test or a program has set.
            setattr(sys, name, cast(TextIO, _GuardedStream(stream)))


class _GuardedStream:
    """A text stream without control characters, which becomes null when its pipe is broken."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes text, or drops it; returns the number of characters."""
        if not _CURSOR.fullmatch(text):
            start = "\r" if text.startswith("\r") else ""  # A bar begins its line again.
            text = start + printable(text[len(start) :])
        try:
            return self._stream.write(text)
        except OSError as error:
            self._discard(error)
            return len(text)

    def flush(self) -> None:
        """Flushes the stream, or drops its buffered text."""
        try:
            self._stream.flush()
        except OSError as error:
            self._discard(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _discard(self, error: OSError) -> None:
        # EINVAL: a broken pipe of Windows. Messages on stderr never end a command.
        if error.errno not in (errno.EPIPE, errno.EINVAL) and self._stream is sys.__stdout__:
            raise error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
