"""Shows the progress of a build: the current stage and the time that it takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from runtime.cli.interrupt import raise_if_interrupted
from runtime.cli.progress import ProgressDisplay, bar_on_terminal, duration, print_above

if TYPE_CHECKING:
    from tqdm import tqdm

_FORMAT = "{desc:32.32} |{bar:24}| {n_fmt}/{total_fmt} {elapsed}"


class Stages:
    """Progress with one step per stage: a bar on a terminal, else a line every ten seconds.

    Args:
        total: Number of stages.
        disable: Whether to show nothing and drop notes.
    """

    def __init__(self, total: int, *, disable: bool = False) -> None:
        self._total = total
        self._silent = disable
        self._name: str | None = None
        self._done = 0
        self._started = 0.0
        self._bar: tqdm[None] | None = None
        self._phases: Phases | None = None
        self._display: ProgressDisplay | None = None

    @classmethod
    def silent(cls) -> Stages:
        """Progress that shows nothing and drops notes."""
        return cls(0, disable=True)

    def start(self, name: str) -> None:
        """Ends the current stage and starts the stage `name`.

        Raises:
            KeyboardInterrupt: After Ctrl-C or SIGTERM, if a library caught the exception.
        """
        raise_if_interrupted()
        self.finish()
        self._name, self._started = name, time.monotonic()
        if self._bar is not None:
            self._bar.set_description_str(name)

    def finish(self) -> None:
        """Ends the current stage, if there is one."""
        if self._name is not None:
            self._done += 1
            if self._bar is not None:
                self._bar.update()
        self._name = None

    def refresh(self) -> None:
        """Updates the elapsed time on the bar."""
        if self._bar is not None:
            self._bar.refresh()

    @contextmanager
    def phases(self) -> Iterator[Phases]:
        """Shows the phases of a TensorRT build in a second line of the terminal."""
        bar = None
        if self._bar is not None:
            bar = bar_on_terminal(bar_format=_FORMAT, position=1)
        self._phases = Phases(bar)
        try:
            yield self._phases
        finally:
            self._phases = None
            if bar is not None:
                bar.close()

    def note(self, line: str) -> None:
        """Prints a line for the user, above the bar."""
        if not self._silent:
            print_above(self._bar, line)

    def __enter__(self) -> Stages:
        if not self._silent:
            self._bar = bar_on_terminal(total=self._total, bar_format=_FORMAT)
            self._display = ProgressDisplay(self._bar, self._line)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._display is not None:
            self._display.close()

    def _line(self) -> str:
        name, phases = self._name, self._phases
        if name is None:
            return f"{self._done} of {self._total} stages done"
        seconds = time.monotonic() - self._started
        number = min(self._done + 1, self._total)
        line = f"stage {number} of {self._total} ({name}): {duration(seconds)} elapsed"
        innermost = None if phases is None else phases.innermost()
        return line if innermost is None else f"{line}; TensorRT: {innermost}"


class Phases:
    """Shows the innermost phase of a TensorRT build; an `export.trt.versions.BuildMonitor`.

    Attributes:
        cancelled: Whether the build must stop; set by the caller.
        seen: Names of all phases so far.
    """

    def __init__(self, bar: tqdm[None] | None) -> None:
        self.cancelled = False
        self.seen: list[str] = []
        self._bar = bar
        self._open: dict[str, list[int]] = {}

    def phase(self, name: str, parent: str | None, steps: int) -> None:
        """Starts a phase of `steps` steps."""
        del parent  # Only the innermost phase is shown.
        self.seen.append(name)
        self._open[name] = [0, steps]
        self._show()

    def step(self, name: str, step: int) -> None:
        """Records that step number `step`, from 0, of a phase has ended."""
        if name in self._open:
            self._open[name][0] = step + 1
            self._show()

    def finished(self, name: str) -> None:
        """Ends a phase."""
        self._open.pop(name, None)
        self._show()

    def innermost(self) -> str | None:
        """The innermost phase as text: "Tactic Selection, 12 of 340"; None outside of phases."""
        # Phases begin and end in TensorRT's thread.
        phases = list(self._open.items())
        if not phases:
            return None
        name, (done, steps) = phases[-1]
        return f"{name}, {done} of {steps}"

    def _show(self) -> None:
        # TensorRT calls this: a closed terminal must not end the build.
        with contextlib.suppress(OSError, ValueError):
            self._show_innermost()

    def _show_innermost(self) -> None:
        if self._open and self._bar is not None:
            name, (done, steps) = list(self._open.items())[-1]
            self._bar.total = steps
            self._bar.n = done
            self._bar.set_description_str(name)
