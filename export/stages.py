"""Progress of a build: which stage is under way, and for how long."""

from __future__ import annotations

from types import TracebackType

from tqdm import tqdm


class Stages:
    """A progress bar with a step for each stage; shown only on a terminal."""

    def __init__(self, total: int, *, disable: bool | None = None) -> None:
        self._bar: tqdm[None] = tqdm(
            total=total,
            disable=disable,
            leave=False,
            bar_format="{desc:24} |{bar:24}| {n_fmt}/{total_fmt} {elapsed}",
        )
        self._running = False

    @classmethod
    def silent(cls) -> Stages:
        """One that shows nothing."""
        return cls(0, disable=True)

    def start(self, name: str) -> None:
        """Ends the stage before and starts `name`."""
        self.finish()
        self._bar.set_description_str(name)
        self._running = True

    def finish(self) -> None:
        """Ends the stage under way, if there is one."""
        if self._running:
            self._bar.update()
        self._running = False

    def __enter__(self) -> Stages:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
