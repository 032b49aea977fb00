"""How many steps a training takes: a number, or what fits into a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

WARM_UP_STEPS = 10
"""Steps that are not measured: kernels are chosen and memory is allocated in them."""

MEASURED_STEPS = 10
"""Steps that are measured, each with a synchronisation, before the first plan."""

RATE_WARM_UP = 100
"""Steps over which the learning rate grows, or a tenth of all steps if that is less."""

SPARE_SECONDS = 5.0
"""Left unplanned for what is not measured: the JSON file, the end of the process."""


class Budget:
    """Plans the number of steps.

    With `steps` it is fixed. With `minutes` it follows from the time that is left and the measured
    time of a step; it is planned again as the training goes on, so that a machine that becomes
    slower or faster is taken into account.

    Attributes:
        total: Steps of the whole training by the present plan; None before the first plan.
        reserve: Seconds for what follows the last step: validation and saving.
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
        """Exactly one of `steps` and `minutes` is given.

        Args:
            steps: Of the whole training.
            minutes: Of the whole training, with reading the clips and the validations.
            spent: Seconds spent by interrupted runs of this training.
            planned: Total that an interrupted run had planned; used with `minutes` until there
                is a new plan.
            clock: Seconds.
            begun: What the clock was when the process began; None: now.
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
        """Seconds for further steps; negative if the time is used up."""
        return self._limit - self.elapsed() - self.reserve - SPARE_SECONDS

    def plan(self, done: int, seconds_per_step: float) -> None:
        """Plans the total from the steps done and the time of a step."""
        if self._fixed is None:
            self.total = done + max(0, int(self.left() / seconds_per_step))

    def finished(self, done: int) -> bool:
        """Whether no further step is to be made."""
        if self.total is not None and done >= self.total:
            return True
        return self.left() <= 0

    def progress(self, done: int) -> float:
        """Share of the steps that are done, 0 before the first plan."""
        return done / self.total if self.total else 0.0


def rate_at(done: int, total: int | None, peak: float) -> float:
    """The learning rate after `done` steps: warm-up, plateau, a cosine over the last half.

    Args:
        done: Steps done.
        total: Of the training; None: not planned yet.
        peak: The rate of the plateau.
    """
    warm_up = RATE_WARM_UP if total is None else max(1, min(RATE_WARM_UP, total // 10))
    if done < warm_up:
        return peak * (done + 1) / warm_up
    down = 0.0 if total is None else max(0.0, (done / total - 0.5) / 0.5)
    return peak * (0.5 + 0.5 * math.cos(math.pi * min(1.0, down))) + 1e-6
