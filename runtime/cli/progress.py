"""Progress of long jobs on stderr: a bar on a terminal, elsewhere a line every ten seconds.

The bar is tqdm's, where tqdm is installed. Jobs that end within ten seconds print no line.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from runtime.cli.interrupt import raise_if_interrupted

if TYPE_CHECKING:
    from tqdm import tqdm
    from typing_extensions import Self

LINE_INTERVAL_S = 10.0
"""Seconds between two lines."""

_REFRESH_INTERVAL_S = 1.0
"""Seconds after which a bar shows a new elapsed time, also while its job reports nothing."""

_ACTIVITY_FORMAT = "{desc} {elapsed}"


def bar_on_terminal(**options: Any) -> tqdm[None] | None:
    """Opens a bar of tqdm, which disappears when it is closed.

    Args:
        options: Arguments of `tqdm.tqdm`.

    Returns:
        The bar; None where stderr is not a terminal or tqdm is not installed.
    """
    stderr: TextIO | None = sys.stderr  # None in a program without a console.
    if stderr is None or not stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return None
    return tqdm(leave=False, **options)


class ProgressDisplay:
    """Refreshes the bar of a job in a thread or, without a bar, prints its line, until `close`.

    Args:
        bar: From `bar_on_terminal`; `close` closes it.
        line: Returns the line; called in another thread.
    """

    def __init__(self, bar: tqdm[None] | None, line: Callable[[], str]) -> None:
        self._bar = bar
        self._line = line
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops the thread and removes the bar."""
        self._closed.set()
        self._thread.join()
        if self._bar is not None:
            self._bar.close()

    def _run(self) -> None:
        interval = LINE_INTERVAL_S if self._bar is None else _REFRESH_INTERVAL_S
        while not self._closed.wait(interval):
            # A closed terminal or pipe must not end the job.
            with contextlib.suppress(OSError, ValueError):
                if self._bar is not None:
                    self._bar.refresh()
                else:
                    print(self._line(), file=sys.stderr, flush=True)


class Progress:
    """Progress of a job in units that are counted; a context manager.

    Args:
        unit: Name of the units, in the plural: "frames".
        label: Name of the job, for example of a file.
        total: Number of units; None if it is not known.
        done: Number of units that an earlier run has done.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        unit: str,
        *,
        label: str = "",
        total: int | None = None,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._unit = unit
        self._label = label
        self._total = total
        self._done = done
        self._clock = clock
        self._started = clock()
        # The rate counts from the first report: before it, models are loaded.
        self._first: tuple[float, int] | None = None
        self._bar: tqdm[None] | None = None
        self._display: ProgressDisplay | None = None

    def __enter__(self) -> Self:
        self._bar = bar_on_terminal(
            total=self._total, initial=self._done, unit=f" {self._unit}", desc=self._label or None
        )
        self._display = ProgressDisplay(self._bar, self.line)
        return self

    def __exit__(self, *_: object) -> None:
        if self._display is not None:
            self._display.close()

    def update(self, done: int, total: int | None) -> None:
        """Sets the number of units done so far and the total, None if it is not known.

        Raises:
            KeyboardInterrupt: After Ctrl-C or SIGTERM, if a library caught the exception.
        """
        raise_if_interrupted()
        self._done = done
        self._total = None if total is None else max(done, total)
        if self._first is None:
            self._first = (self._clock(), done)
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.update(done - self._bar.n)

    def advance(self) -> None:
        """Counts one more unit as done."""
        self.update(self._done + 1, self._total)

    def note(self, text: str, file: TextIO | None = None) -> None:
        """Prints a line on `file`, by default stdout, at once; above a bar on the same terminal."""
        print_above(self._bar, text, file)

    def line(self) -> str:
        """Progress as text: "in.mp4: 45 %, 123 of 273 frames, 10.3 frames/s, 15 s left"."""
        done, total, now = self._done, self._total, self._clock()
        counted = f"{done}" if total is None else f"{done} of {total}"
        parts = [] if not total else [f"{done / total:.0%}".replace("%", " %")]
        parts.append(f"{counted} {self._unit}")
        first_time, first_done = self._first or (now, done)
        if done > first_done and now > first_time:
            rate = (done - first_done) / (now - first_time)
            parts.append(f"{rate:.1f} {self._unit}/s" if rate >= 1 else f"{1 / rate:.1f} s each")
            if total is not None:
                parts.append(f"{duration((total - done) / rate)} left")
        else:
            parts.append(f"{duration(now - self._started)} elapsed")
        return ", ".join(parts) if not self._label else f"{self._label}: {', '.join(parts)}"


class Activity:
    """Shows a job that has no units to count, with its elapsed time; a context manager.

    Args:
        text: Description of the job: "opening 3 runs".
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def __enter__(self) -> None:
        self._started = time.monotonic()
        bar = bar_on_terminal(desc=self._text, bar_format=_ACTIVITY_FORMAT)
        self._display = ProgressDisplay(bar, self._line)

    def __exit__(self, *_: object) -> None:
        self._display.close()

    def _line(self) -> str:
        return f"{self._text}: {duration(time.monotonic() - self._started)} elapsed"


def print_above(bar: tqdm[None] | None, text: str, file: TextIO | None = None) -> None:
    """Prints a line at once, above the bar if there is one on the same terminal.

    Args:
        bar: From `bar_on_terminal`.
        text: The line.
        file: The stream to print to; None for stdout.
    """
    if bar is None:
        print(text, file=file, flush=True)
    else:
        bar.write(text, file=file)
        (file or sys.stdout).flush()


def duration(seconds: float) -> str:
    """Seconds as text with one unit: 15 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
