"""Shows the progress of a build: the current stage and the time that it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from tqdm import tqdm

_FORMAT = "{desc:32.32} |{bar:24}| {n_fmt}/{total_fmt} {elapsed}"


class Stages:
    """A progress bar with one step per stage, shown only on a terminal.

    Args:
        total: Number of stages.
        disable: True: never shown, and notes are dropped. None: shown on a terminal.
    """

    def __init__(self, total: int, *, disable: bool | None = None) -> None:
        self._bar: tqdm[None] = tqdm(total=total, disable=disable, leave=False, bar_format=_FORMAT)
        self._running = False
        self._silent = disable is True

    @classmethod
    def silent(cls) -> Stages:
        """A progress bar that shows nothing and drops notes."""
        return cls(0, disable=True)

    def start(self, name: str) -> None:
        """Ends the current stage and starts the stage `name`."""
        self.finish()
        self._bar.set_description_str(name)
        self._running = True

    def finish(self) -> None:
        """Ends the current stage, if there is one."""
        if self._running:
            self._bar.update()
        self._running = False

    def refresh(self) -> None:
        """Updates the elapsed time."""
        self._bar.refresh()

    @contextmanager
    def phases(self) -> Iterator[Phases]:
        """A second line that shows the phases of a TensorRT build."""
        with tqdm(disable=self._bar.disable, leave=False, bar_format=_FORMAT, position=1) as bar:
            yield Phases(bar)

    def note(self, line: str) -> None:
        """Prints a line for the user above the bar."""
        if not self._silent:
            self._bar.write(line)

    def __enter__(self) -> Stages:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()


class Phases:
    """Shows the innermost phase of a TensorRT build; a `export.trt.versions.BuildMonitor`.

    Attributes:
        cancelled: Whether the build shall stop; set by the caller.
        seen: Names of all phases so far.
    """

    def __init__(self, bar: tqdm[None]) -> None:
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

    def _show(self) -> None:
        # TensorRT calls this: a closed terminal must not end the build.
        with contextlib.suppress(OSError, ValueError):
            self._show_innermost()

    def _show_innermost(self) -> None:
        if self._open:
            name, (done, steps) = list(self._open.items())[-1]
            self._bar.total = steps
            self._bar.n = done
            self._bar.set_description_str(name)
