"""The trial of backends: its times and its order, with a clock of the test."""

from types import SimpleNamespace

import pytest

from runtime import backend_trial
from runtime.backend_trial import Trial


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(backend_trial.time, "perf_counter", lambda: now[0])
    return now


def opened(clock, seconds):
    """An interpolator whose pairs take these seconds in turn."""
    left = iter(seconds)
    layout = SimpleNamespace(dtype="uint8")
    info = SimpleNamespace(size=(32, 48), layout=layout)

    def interpolate(frame0, frame1):
        assert frame0.shape == frame1.shape == (32, 48, 3)
        clock[0] += next(left)

    return SimpleNamespace(info=info, interpolate=interpolate)


def test_the_shortest_time_of_each_backend_counts_and_rounds_fit_into_the_limit(clock):
    backends = {
        "slow": opened(clock, [2.0, 0.5, 1.0, 1.0]),
        "fast": opened(clock, [0.25, 0.5, 0.25, 0.25]),
    }
    # Rounds end after 2.25, 3.25 and 4.5 s; the longest, 2.25 s, would end too late once more.
    assert backend_trial._timed(backends, 6.0) == [
        Trial("fast", 250.0, 3, "32x48"), Trial("slow", 500.0, 3, "32x48")
    ]  # fmt: skip


def test_one_round_is_timed_in_any_case(clock):
    (found,) = backend_trial._timed({"only": opened(clock, [9.0])}, 1.0)
    assert (found.milliseconds, found.pairs) == (9000.0, 1)
