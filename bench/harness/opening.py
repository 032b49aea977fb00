"""Opens the runs of a case, interpolates their first pair, and records which baselines failed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bench.environment import MeasurementError
from bench.harness.cold_start import measure_cold_start
from bench.records.latency import ColdStart, FailedRun
from bench.runs.artefact import Run
from bench.runs.case import Case
from bench.runs.frames import FramePair
from bench.runs.pytorch import PyTorchRun, stop_compilers
from runtime import Interpolator
from runtime.backends.base import Backend
from runtime.errors import first_line

_FIRST_CALLS = 3
"""Calls on a GPU before a run counts as opened: a CUDA graph is captured at the second call and
first launched at the third."""

_ALARM_INTERVAL_S = 5.0
"""Time between alarms after the first: the interrupted code may swallow the exception."""


class OpenedRun(NamedTuple):
    """A run that has interpolated its first pair."""

    run: Run
    backend: Backend
    vfi: Interpolator


class OpenedRuns(NamedTuple):
    """The runs of a case.

    Attributes:
        runs: The opened runs by name, in the order in which they were given.
        cold_starts: What `measure_cold_start` returned, by name of the run.
        failed: The evidence's "failed": kind and reason of each run that failed, by name.
    """

    runs: dict[str, OpenedRun]
    cold_starts: dict[str, ColdStart]
    failed: dict[str, FailedRun]


class _TimedOut(BaseException):
    """A run exceeded its time limit. Not an Exception: compilers catch those and try a fallback."""


def open_runs(
    runs: Sequence[Run],
    case: Case,
    pair: FramePair,
    owner: contextlib.ExitStack,
    *,
    cold_start: bool,
    limit_s: float | None,
) -> OpenedRuns:
    """Opens every run and interpolates its first pair.

    A baseline that fails is recorded in "failed" and left out of "runs".

    Args:
        runs: The runs; their names are unique.
        case: Size and factor.
        pair: The two frames, (H, W, 3) uint8 of the size of the case.
        owner: Closes the opened runs.
        cold_start: Whether the cold start of each run is measured, in a process of its own, where
            the run supports it.
        limit_s: Time limit in seconds of the first pair of a PyTorch run, compilation included;
            None for no limit.

    Raises:
        InterpolationError: If an artefact fails.
    """
    if any(isinstance(run, PyTorchRun) and run.form.compiled for run in runs):
        from bench.runs.torch_backend import reset_compiled

        reset_compiled()  # Code compiled for other sizes.
    opened = OpenedRuns({}, {}, {})
    for run in runs:
        try:
            request = run.request(case) if cold_start else None
            if request is not None:
                opened.cold_starts[run.name] = measure_cold_start(run.name, request)
            with _time_limit(limit_s if run.kind == "pytorch" else None):
                opened.runs[run.name] = _opened(run, case, pair, owner)
        except _TimedOut:
            stop_compilers()
            reason = f"no pair was interpolated within {limit_s:g} s: raise --compare-limit"
            _record_failure(opened, run, reason)
        except Exception as error:  # PyTorch, its compilers and CUDA share no other base class.
            if run.kind == "artefact":
                raise
            _record_failure(opened, run, first_line(error))
    return opened


def all_failed(failed: Mapping[str, FailedRun]) -> MeasurementError:
    """The error of a case in which every run failed, from the evidence's "failed"."""
    reasons = [one["failed"] for one in failed.values()]
    if len(reasons) == 1:
        return MeasurementError(reasons[0])
    named = "; ".join(f"{name}: {why}" for name, why in zip(failed, reasons, strict=True))
    return MeasurementError(f"every run failed ({named}): correct the cause of one of them")


def _opened(run: Run, case: Case, pair: FramePair, owner: contextlib.ExitStack) -> OpenedRun:
    with contextlib.ExitStack() as stack:
        backend = run.open(case)
        vfi = stack.enter_context(Interpolator(backend))
        for _ in range(_FIRST_CALLS if run.on_gpu else 1):
            vfi.interpolate(*pair, timesteps=vfi.steps_for_factor(case.factor))
        owner.enter_context(stack.pop_all())
    return OpenedRun(run, backend, vfi)


def _record_failure(opened: OpenedRuns, run: Run, reason: str) -> None:
    """Records a failed run in "failed", a PyTorch run with its name of `--compare`."""
    opened.cold_starts.pop(run.name, None)
    name = run.formulation if isinstance(run, PyTorchRun) else None
    opened.failed[run.name] = {
        "kind": run.kind,
        "compare": name,
        "failed": reason,
    }


@contextlib.contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Raises `_TimedOut` in the body of the `with` statement after some seconds; None: never.

    Raises:
        MeasurementError: If there is a limit and `can_limit_time` is false.
    """
    if seconds is None:
        yield
        return
    if not can_limit_time():
        raise MeasurementError("--compare-limit does not work on Windows: leave it out")

    def late(*_: object) -> None:
        raise _TimedOut

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds, _ALARM_INTERVAL_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def can_limit_time() -> bool:
    """Whether a timer can interrupt a run: only in the main thread of a POSIX system."""
    main = threading.current_thread() is threading.main_thread()
    return hasattr(signal, "setitimer") and main
