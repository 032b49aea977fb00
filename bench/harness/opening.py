"""Opens the runs of a case as far as their first pair, and notes which baselines failed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bench.environment import MeasurementError
from bench.harness.cold_start import cold_start
from bench.runs.artefact import Case, Clip, Run
from bench.runs.pytorch import PyTorchRun, stop_compilers
from runtime import Interpolator
from runtime.backends.base import Backend
from runtime.errors import first_line

_FIRST_CALLS = 3
"""On a GPU: CUDA graphs are recorded at the second call, and launched at the third."""

_AGAIN_S = 5.0
"""Between alarms, should code that is interrupted go on all the same."""


class Opened(NamedTuple):
    """A run that has made its first pair."""

    run: Run
    backend: Backend
    vfi: Interpolator


class OpenedRuns(NamedTuple):
    """The runs of a case.

    Attributes:
        runs: By name, in the order in which they were given.
        cold: Figures of the processes that were started for a first pair; see `cold_start`.
        failed: The evidence's "failed": of each run that is missing its kind and the reason.
    """

    runs: dict[str, Opened]
    cold: dict[str, dict[str, float | int | None]]
    failed: dict[str, dict[str, Any]]


class _TooLate(BaseException):
    """The time of a run is over. No Exception: compilers catch those, and try something else."""


def open_runs(
    runs: Sequence[Run],
    case: Case,
    clip: Clip,
    owner: contextlib.ExitStack,
    *,
    cold: bool,
    limit_s: float | None,
) -> OpenedRuns:
    """Opens every run and makes its first pair.

    A baseline that fails is noted, and the others are measured without it.

    Args:
        runs: Each with a name of its own.
        case: Size and factor.
        clip: The pair.
        owner: Closes what was opened.
        cold: Start a process for the first pair of each run that can have one.
        limit_s: Seconds that PyTorch has for its first pair, its compiler included; None: any.

    Raises:
        InterpolationError: If an artefact fails.
    """
    if any(isinstance(run, PyTorchRun) and run.form.compiled for run in runs):
        from bench.runs.torch_backend import forget_compiled

        forget_compiled()  # Of other sizes.
    found = OpenedRuns({}, {}, {})
    for run in runs:
        try:
            request = run.request(case) if cold else None
            if request is not None:
                found.cold[run.name] = cold_start(run.name, request)
            with _limited(limit_s if run.kind == "pytorch" else None):
                found.runs[run.name] = _opened(run, case, clip, owner)
        except _TooLate:
            stop_compilers()
            reason = f"it had made no pair after {limit_s:g} s: raise --compare-limit"
            _note(found, run, reason)
        except Exception as error:  # Of PyTorch, its compilers, CUDA: they share no other base.
            if run.kind == "artefact":
                raise
            _note(found, run, first_line(error))
    return found


def nothing_left(failed: Mapping[str, Mapping[str, Any]]) -> MeasurementError:
    """The error for where every run has failed."""
    reasons = [str(one["failed"]) for one in failed.values()]
    if len(reasons) == 1:
        return MeasurementError(reasons[0])
    named = "; ".join(f"{name}: {why}" for name, why in zip(failed, reasons, strict=True))
    return MeasurementError(f"every run has failed ({named}): mend one of them")


def _opened(run: Run, case: Case, clip: Clip, owner: contextlib.ExitStack) -> Opened:
    with contextlib.ExitStack() as stack:
        backend = run.open(case)
        vfi = stack.enter_context(Interpolator(backend))
        for _ in range(_FIRST_CALLS if run.on_gpu else 1):
            vfi.interpolate(*clip, timesteps=vfi.steps_for_factor(case.factor))
        owner.enter_context(stack.pop_all())
    return Opened(run, backend, vfi)


def _note(found: OpenedRuns, run: Run, reason: str) -> None:
    """Records that a run failed; its name of `--compare` beside, by which it was asked for."""
    found.cold.pop(run.name, None)
    name = run.formulation if isinstance(run, PyTorchRun) else None
    found.failed[run.name] = {
        "kind": run.kind,
        "compare": name,
        "failed": reason,
    }


@contextlib.contextmanager
def _limited(seconds: float | None) -> Iterator[None]:
    """Raises `_TooLate` inside after so many seconds, in the main thread of a POSIX system.

    Raises:
        MeasurementError: Where there is a limit and no way to hold it.
    """
    if seconds is None:
        yield
        return
    if not can_be_limited():
        raise MeasurementError("--compare-limit does not work on Windows: leave it out")

    def late(*_: object) -> None:
        raise _TooLate

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def can_be_limited() -> bool:
    """Whether a run can be given up from within."""
    main = threading.current_thread() is threading.main_thread()
    return hasattr(signal, "setitimer") and main
