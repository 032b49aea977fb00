"""Plans the number of training steps: a given number, or as many as fit into a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

WARM_UP_STEPS = 10
"""Number of first steps that are not measured, as they choose kernels and allocate memory."""

MEASURED_STEPS = 10
"""Number of steps that are measured, each with a synchronisation, before the first plan."""

RATE_WARM_UP = 100
"""Number of steps in which the learning rate rises; a tenth of all steps if that is less."""

SPARE_SECONDS = 5.0
"""Time that is not planned, for work that is not measured: the JSON file, the process's end."""


class Budget:
    """Plans the number of steps.

    With `steps` it is fixed. With `minutes` it follows from the time that is left and the measured
    time of a step; it is planned again as the training goes on, so that a machine that becomes
    slower or faster is taken into account.

    Attributes:
        total: Planned number of steps of the whole training; None before the first plan.
        reserve: Seconds for validation and saving after the last step.
    """

    def __init__(
        self,
        *,
        steps: int | None = None,
        minutes: float | None = None,
        spent: float = 0.0,
        planned: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        begun: float | None = None,
    ) -> None:
        """Starts the time; give either `steps` or `minutes`.

        Args:
            steps: Number of steps of the whole training.
            minutes: Time of the whole training, with reading the clips and the validations.
            spent: Seconds that interrupted runs of this training took.
            planned: Total that an interrupted run had planned, which is used with `minutes` until
                the first plan.
            clock: Returns the time in seconds.
            begun: Time of the clock at the start of the process; None: now.

        Raises:
            ValueError: If both or none are given.
        """
        if (steps is None) == (minutes is None):
            raise ValueError("give either steps or minutes")
        self._clock = clock
        self._begun = (clock() if begun is None else begun) - spent
        self._limit = math.inf if minutes is None else 60 * minutes
        self._fixed = steps
        self.total = planned if steps is None else steps
        self.reserve = 0.0

    def elapsed(self) -> float:
        """Seconds since the training began, interrupted runs included."""
        return self._clock() - self._begun

    def left(self) -> float:
        """Seconds that are left for steps; negative if the time is used up."""
        return self._limit - self.elapsed() - self.reserve - SPARE_SECONDS

    def plan(self, done: int, seconds_per_step: float) -> None:
        """Plans the total number of steps from the steps done and the seconds of a step."""
        if self._fixed is None:
            self.total = done + max(0, int(self.left() / seconds_per_step))

    def finished(self, done: int) -> bool:
        """Whether the training ends after `done` steps."""
        if self.total is not None and done >= self.total:
            return True
        return self.left() <= 0

    def progress(self, done: int) -> float:
        """Share of the steps that are done; 0 before the first plan."""
        return done / self.total if self.total else 0.0


def rate_at(done: int, total: int | None, peak: float) -> float:
    """The learning rate after `done` steps: warm-up, plateau, a cosine over the last half.

    Args:
        done: Number of steps done.
        total: Number of steps of the training; None if it is not planned yet.
        peak: The rate of the plateau.
    """
    warm_up = RATE_WARM_UP if total is None else max(1, min(RATE_WARM_UP, total // 10))
    if done < warm_up:
        return peak * (done + 1) / warm_up
    down = 0.0 if total is None else max(0.0, (done / total - 0.5) / 0.5)
    return peak * (0.5 + 0.5 * math.cos(math.pi * min(1.0, down))) + 1e-6
