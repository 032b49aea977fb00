"""bench.cluster: the figures that follow from the times of its runs, with a clock of the test."""

import contextlib
from fractions import Fraction
from types import SimpleNamespace

import pytest

from bench import cluster
from bench.environment import MeasurementError

pytest.importorskip("ray")

SECONDS = {"one": 16.0, "two": 8.0, "killed": 11.0}
"""Time from the first step to the last in each kind of run."""


@pytest.fixture
def runs(monkeypatch):
    """Replaces the cluster. Has the result of each run, the numbers of workers, and when a worker
    was killed: (seconds after that moment, segments that were complete).
    """
    now, done = [0.0], [0]
    kinds = iter(("one", "two", "killed") * 2)
    result = SimpleNamespace(
        error=None, worker_seconds={"look": 1.0, "render": 16.0}, segments=8, frames_in=80,
        frames_out=160,
    )  # fmt: skip
    made = SimpleNamespace(result=result, workers=[], killed=[])

    class Timer:
        """In place of threading.Timer: records when it is started, and calls nothing."""

        def __init__(self, delay, _):
            self.delay = delay

        def start(self):
            made.killed.append((self.delay, done[0]))

        def join(self):
            pass

    def interpolate_many(pairs, choice, *, share, workers, segment_seconds, progress):
        assert (share.cpus, choice.threads, segment_seconds) == (3, 3, Fraction(2))
        made.workers.append(workers)
        kind = next(kinds)
        now[0] += 5.0  # Workers start.
        for done[0] in range(9):
            progress(done[0], 8)
            now[0] += SECONDS[kind] / 8
        return SimpleNamespace(videos=[result], retries=int(kind == "killed"))

    monkeypatch.setattr(cluster, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(cluster, "threading", SimpleNamespace(Timer=Timer))
    monkeypatch.setattr(cluster, "available_cpus", lambda: 6)
    monkeypatch.setattr(cluster, "_in_this_process", lambda *_: 10.0)
    monkeypatch.setattr(cluster, "_jobs_per_second", lambda _: 700.0)
    monkeypatch.setattr("runtime.cluster.videos.interpolate_many", interpolate_many)
    monkeypatch.setattr(
        "runtime.cluster.pool.connected", lambda address: contextlib.nullcontext(address)
    )
    return made


def measure(tmp_path, **options):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"a graph")
    options = {"segment_seconds": Fraction(2), "threads": 3, **options}
    return cluster.measure(tmp_path / "in.mkv", model, log=lambda _: None, **options)


def test_the_figures_follow_from_the_times(runs, tmp_path):
    figures = measure(tmp_path)
    assert figures == {
        "seconds": {"in this process": [10.0] * 2, **{k: [s] * 2 for k, s in SECONDS.items()}},
        "speed_up": 2.0,
        "overhead": pytest.approx(0.7),
        "steps": {"look": 1.0, "render": 16.0},
        "segments": 8,
        "frames_in": 80,
        "frames_out": 160,
        "segment_seconds_rendering": 2.0,
        "lost_seconds": 3.0,
        "retries": [1, 1],
        "jobs_per_second": 700.0,
    }
    assert runs.workers == [1, 2, 2] * 2


def test_a_worker_is_killed_in_the_middle_of_a_segment_after_a_third_of_them(runs, tmp_path):
    measure(tmp_path, rounds=1)
    assert runs.killed == [(1.0, 2)]  # A segment takes 2 s, and there are 8.


def test_a_machine_with_too_few_cpus_is_refused(runs, tmp_path):
    with pytest.raises(MeasurementError, match="has 6 CPUs and two workers need 8: use a larger"):
        measure(tmp_path, threads=4)
    assert runs.workers == []


def test_a_clip_with_too_few_segments_is_refused(runs, tmp_path):
    runs.result.segments = 3
    with pytest.raises(MeasurementError, match=r"in\.mkv has 3 segments instead of 4 or more"):
        measure(tmp_path)


def test_a_clip_that_the_cluster_cannot_render_is_an_error(runs, tmp_path):
    runs.result.error = "it has no frames"
    with pytest.raises(MeasurementError) as error:
        measure(tmp_path)
    assert str(error.value) == (
        f"the cluster could not render {tmp_path / 'in.mkv'} (it has no frames): correct the "
        "cause, or give another clip"
    )


def test_a_worker_is_found_by_its_command_line(monkeypatch, tmp_path):
    lines = {"1": b"/sbin/init\0", "17": b"ray::_Host\0", "20": b"ray::IDLE\0"}
    for name, line in lines.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "cmdline").write_bytes(line)
    (tmp_path / "2").mkdir()  # Has ended.
    (tmp_path / "meminfo").write_text("")
    monkeypatch.setattr(cluster, "Path", lambda _: tmp_path)
    assert cluster._one_worker() == 17
    (tmp_path / "17" / "cmdline").unlink()
    with pytest.raises(MeasurementError, match=r"^no process of a worker was found in /proc: run"):
        cluster._one_worker()
