"""Progress of a download on stderr: a bar of tqdm on a terminal, else a line every ten seconds."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from ifrnet_model.errors import printable

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_INTERVAL_S = 10.0
"""Seconds between two lines."""


class ByteProgress:
    """Shows the bytes of a download that were received; a context manager.

    Args:
        name: Name of the download.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._last_line = time.monotonic()
        self._first: tuple[float, int] | None = None

    def __enter__(self) -> ByteProgress:
        self._bar = _bar_on_terminal(self._name)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, done: int, total: int | None) -> None:
        """Sets the bytes received so far and the total, None if it is not known."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)
        elif self._first is None:
            self._first = now, done
        elif now - self._last_line >= LINE_INTERVAL_S:
            self._last_line = now
            first_time, first_done = self._first
            rate = (done - first_done) / (now - first_time)
            print(f"{self._name}: {_text(done, total, rate)}", file=sys.stderr, flush=True)

    def note(self, line: str) -> None:
        """Prints a line on stderr, above the bar; control characters are printed as escapes."""
        line = printable(line)
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)


def _text(done: int, total: int | None, rate: float) -> str:
    """Progress as text: "45 %, 12.3 of 27.1 MB, 1.3 MB/s, 11 s left"."""
    speed = f"{rate / 1e6:.1f} MB/s"
    if not total:
        return f"{done / 1e6:.1f} MB, {speed}"
    left = f", {(total - done) / rate:.0f} s left" if rate > 0 else ""
    return f"{100 * done / total:.0f} %, {done / 1e6:.1f} of {total / 1e6:.1f} MB, {speed}{left}"


def _bar_on_terminal(name: str) -> tqdm[None] | None:
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return None
    return tqdm(unit="B", unit_scale=True, desc=name, leave=False)
