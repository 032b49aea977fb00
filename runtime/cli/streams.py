"""Repairs standard streams that are closed, missing or broken, so that commands run as usual."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, TextIO, cast


def repair_streams() -> None:
    """Makes sys.stdin, sys.stdout and sys.stderr usable for the rest of the process.

    A stream that is closed (`2>&-`) or missing (pythonw) becomes the null device. Text for a pipe
    whose reader has ended (`| head -1`) is dropped; writing binary data, as of a video on stdout,
    still raises BrokenPipeError.
    """
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
            setattr(sys, name, cast(TextIO, _BrokenPipeGuard(stream)))


class _BrokenPipeGuard:
    """A text stream that switches to the null device when its pipe is broken."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes text, or drops it; returns the number of characters."""
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
