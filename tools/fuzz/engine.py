"""Runs inputs in worker processes, and kills a worker that hangs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random
from typing import Any

from fuzz.outcomes import Outcome, Target, judged
from runtime.errors import InterpolationError

HANG_S = 30.0
"""Seconds after which an input hangs."""

_START_S = 240.0
"""Seconds for the preparation of a target, which exports or opens models."""

_MEMORY_KIB = 1536 << 10
"""Growth of the peak memory of a process that one input may cause."""

Case = tuple[str, int]
"""Name of the target, and number of its input."""


class PreparationError(InterpolationError):
    """A target cannot be prepared, so that it has no inputs."""


@dataclass(frozen=True)
class Result:
    """The outcome of one input.

    Attributes:
        case: The target and the number.
        outcome: What happened.
        detail: The message or the exception; empty for an accepted input.
        seconds: Time that it took.
    """

    case: Case
    outcome: Outcome
    detail: str
    seconds: float


def run_cases(
    cases: Iterator[Case],
    seed: int,
    *,
    workers: int,
    find: Callable[[], Sequence[Target]],
    hang_s: float = HANG_S,
) -> Iterator[Result]:
    """Runs the inputs; yields each result when it is known.

    Args:
        cases: The inputs, in the order in which they start.
        seed: Seed of their random numbers.
        workers: Number of processes.
        find: Importable function that returns the targets, for the workers.
        hang_s: Seconds after which an input hangs.

    Raises:
        PreparationError: If a target cannot be prepared.
    """
    with contextlib.ExitStack() as stack:
        started = [_Worker(seed, find, hang_s) for _ in range(workers)]
        for worker in started:
            stack.callback(worker.stop)
        left = True
        while left or any(worker.case for worker in started):
            for worker in started:
                if worker.case is None and left:
                    case = next(cases, None)
                    left = case is not None
                    if case is not None:
                        worker.give(case)
            busy = [worker for worker in started if worker.case]
            wait([worker.connection for worker in busy], timeout=0.5)
            for worker in busy:
                result = worker.result()
                if result is not None:
                    yield result


class _Worker:
    """A process that runs one input after the other, and is replaced if it ends or hangs."""

    def __init__(self, seed: int, find: Callable[[], Sequence[Target]], hang_s: float) -> None:
        self.case: Case | None = None
        self._hang_s = hang_s
        self._arguments = seed, find
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, *self._arguments), daemon=True)
        self._process.start()
        other.close()

    def give(self, case: Case) -> None:
        """Starts an input."""
        self.case, self._began, self._is_prepared = case, time.monotonic(), False
        with contextlib.suppress(OSError):  # A process that has ended is noticed by `result`.
            self.connection.send(case)

    def result(self) -> Result | None:
        """The result of the input; None if it is still running."""
        assert self.case is not None
        seconds = time.monotonic() - self._began
        limit = self._hang_s if self._is_prepared else _START_S
        try:
            if self.connection.poll():
                received = self.connection.recv()
                if isinstance(received, PreparationError):
                    raise received
                if received is None:
                    self._is_prepared, self._began = True, time.monotonic()
                    return None
                outcome, detail, seconds = received
            elif seconds < limit:
                return None
            else:
                outcome, detail = "hang", f"no result after {seconds:.0f} s"
                self._replace()
        except (EOFError, OSError):
            self._process.join(10)
            outcome, detail = "crash", f"exit code {self._process.exitcode}"
            self._replace()
        finished = Result(self.case, outcome, detail, seconds)
        self.case = None
        return finished

    def _replace(self) -> None:
        self.stop()
        self._start()

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(connection: Connection, seed: int, find: Callable[[], Sequence[Target]]) -> None:
    """Runs inputs until the connection ends; what they print is dropped."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    targets = {target.name: target for target in find()}
    prepared: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder, contextlib.suppress(EOFError):
        while True:
            name, number = connection.recv()
            if name not in prepared:
                own = Path(folder) / name.replace(" ", "_")
                own.mkdir()
                try:
                    prepared[name] = targets[name].prepare(own)
                except Exception as error:
                    connection.send(PreparationError(f"{name} cannot be prepared: {error!r}"))
                    raise
            connection.send(None)  # The target is prepared.
            connection.send(run_one(targets[name], prepared[name], number, seed))


def run_one(target: Target, prepared: Any, number: int, seed: int) -> tuple[Outcome, str, float]:
    """Runs one input in this process; returns its outcome, the detail and its seconds."""
    rng = Random(f"{seed} {target.name} {number}")
    before, began = _peak_kib(again=True), time.monotonic()
    outcome, detail = judged(target, lambda: target.run(prepared, rng))
    grown = _peak_kib() - before
    if grown > _MEMORY_KIB:
        outcome, detail = "memory", f"the peak of memory grew by {grown >> 10} MiB; {detail}"
    return outcome, detail, time.monotonic() - began


def _peak_kib(*, again: bool = False) -> int:
    """The peak of the resident memory; with `again` it is counted anew, which needs Linux."""
    try:
        if again:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(status.partition("VmHWM:")[2].split()[0])
