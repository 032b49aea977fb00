"""Standard streams that are closed, missing or broken: they do not change what a command does."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, TextIO, cast


def repair_streams() -> None:
    """Makes sys.stdin, sys.stdout and sys.stderr usable for the rest of the process.

    A stream that is closed (`2>&-`) or missing (pythonw) becomes the null device. Text for a
    reader that has gone (`| head -1`) is dropped; writing binary data, as of a video on stdout,
    still raises BrokenPipeError.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # The lowest free descriptor is that of the stream. Otherwise an output file would take
            # it, and would receive what native libraries print.
            null = open(os.devnull, "r" if name == "stdin" else "w")  # noqa: PTH123, SIM115
            os.set_inheritable(null.fileno(), True)
            setattr(sys, name, null)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # Not one that a test or a program has set.
            setattr(sys, name, cast(TextIO, _DropsUnread(stream)))


class _DropsUnread:
    """A text stream that goes to the null device once its reader has gone."""

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
        """Flushes the stream, or drops what it holds."""
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
