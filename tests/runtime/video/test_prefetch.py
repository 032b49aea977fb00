import collections
import faulthandler
import gc
import random
import signal
import threading
import time
import traceback
import weakref
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.video.prefetch import prefetch


@pytest.fixture(autouse=True)
def no_deadlock_and_no_thread_left():
    """Ends the run with all stacks after 30 s; a thread that still runs afterwards is an error."""
    before = set(threading.enumerate())
    faulthandler.dump_traceback_later(30, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    assert set(threading.enumerate()) <= before


class BrokenError(Exception):
    pass


def eventually(condition):
    """Returns when a condition holds; the fixture ends a test in which it never does."""
    while not condition():
        time.sleep(0.001)


class Waits:
    """A clock that each thread reads when it begins to wait and when it goes on, 1 s later."""

    def __init__(self):
        self.readings = collections.Counter()

    def perf_counter(self):
        name = threading.current_thread().name
        self.readings[name] += 1
        return float(self.readings[name])

    def begun(self, name="t"):
        """Number of times that a thread has begun to wait."""
        return (self.readings[name] + 1) // 2


@pytest.fixture
def waits(monkeypatch):
    clock = Waits()
    monkeypatch.setattr("runtime.video.prefetch.time", clock)
    return clock


def counted(made, limit=10**9):
    for k in range(limit):
        made.append(k)
        yield k


@pytest.mark.parametrize("items", [[], range(50), iter(range(50)), (k for k in range(50))])
def test_all_items_are_returned_in_order(items):
    expected = list(range(50)) if items != [] else []
    with prefetch(items, ahead=3, name="t") as taken:
        assert list(taken) == expected
        assert next(taken, "end") == "end"


def test_the_generator_runs_in_a_thread_of_the_given_name():
    def items():
        yield threading.current_thread().name

    with prefetch(items(), ahead=1, name="decode") as taken:
        assert list(taken) == ["decode"]


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_at_most_ahead_items_wait_while_one_is_produced(ahead, waits):
    made = []
    with prefetch(counted(made), ahead=ahead, name="t") as items:
        for taken in range(4):
            eventually(lambda taken=taken: waits.begun() == taken + 1)
            assert len(made) == taken + ahead + 1
            assert next(items) == taken


@pytest.mark.parametrize("ahead", [0, -1])
def test_ahead_is_at_least_one(ahead):
    with pytest.raises(ValueError, match=f"ahead is {ahead}: it is 1 or more"):
        prefetch([], ahead=ahead, name="t")


def test_items_that_were_taken_are_released():
    class Item:
        pass

    def items():
        for _ in range(3):
            yield Item()
            event.wait(5)

    event = threading.Event()
    with prefetch(items(), ahead=2, name="t") as taken:
        kept = weakref.ref(next(taken))
        eventually(lambda: kept() is None)
        event.set()


def test_items_take_space_by_their_weight(waits):
    made = []

    def items():
        for weight in [1, 0, 0, 0, 1, 0, 2, 9, 0]:
            made.append(weight)
            yield weight

    with prefetch(items(), ahead=2, name="t", weight=lambda item: item) as taken:
        eventually(lambda: waits.begun() == 1)  # item 2 is ready and waits
        assert len(made) == 7
        assert next(taken) == 1  # space for one item, not for two
        eventually(lambda: waits.begun() == 2)
        assert len(made) == 7
        assert [next(taken) for _ in range(4)] == [0, 0, 0, 1]
        eventually(lambda: len(made) == 8)
        assert list(taken) == [0, 2, 9, 0]  # the item of weight 9 fits alone


def test_an_error_comes_after_the_items_before_it_with_its_traceback():
    def items():
        yield 1
        yield 2
        raise BrokenError("inside")

    with prefetch(items(), ahead=4, name="t") as taken:
        eventually(lambda: taken._ready.qsize() == 3)  # the error is before the first item is taken
        assert next(taken) == 1
        assert next(taken) == 2
        with pytest.raises(BrokenError, match="inside") as caught:
            next(taken)
        assert "items" in [entry.name for entry in traceback.extract_tb(caught.tb)]
        assert list(taken) == []


def test_an_error_does_not_keep_its_items_alive():
    class Item:
        pass

    def items():
        item = Item()
        kept.append(weakref.ref(item))
        yield 1
        raise BrokenError

    kept = []
    gc.disable()
    try:
        with prefetch(items(), ahead=1, name="t") as taken:
            assert next(taken) == 1
            with suppress(BrokenError):
                next(taken)
        del taken
        assert kept[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("leave", ["break", "error", "nothing taken"])
@pytest.mark.parametrize("busy", [True, False])
def test_leaving_early_closes_the_generator_in_its_thread(leave, busy):
    closed = []

    def items():
        try:
            while True:
                time.sleep(0.001 if busy else 0)
                yield 0
        finally:
            closed.append(threading.current_thread().name)

    with ExitStack() as stack:
        if leave == "error":
            stack.enter_context(pytest.raises(BrokenError))
        taken = stack.enter_context(prefetch(items(), ahead=2, name="mine"))
        if leave != "nothing taken":
            next(taken)
        else:
            eventually(lambda: not taken._permits.qsize())
        if leave == "error":
            raise BrokenError
    assert closed == ["mine"]


def test_leaving_ends_the_wait_for_space_for_a_heavy_item():
    with prefetch([1, 5, 5], ahead=5, name="t", weight=lambda item: item) as taken:
        eventually(lambda: not taken._permits.qsize())


def test_an_error_in_closing_is_raised_but_hides_no_other():
    def items():
        try:
            while True:
                yield 0
        finally:
            raise BrokenError("in closing")

    with (
        pytest.raises(BrokenError, match="in closing"),
        prefetch(items(), ahead=1, name="t") as taken,
    ):
        next(taken)
    with pytest.raises(KeyError), prefetch(items(), ahead=1, name="t"):
        raise KeyError


def test_an_error_after_the_last_taken_item_is_ignored():
    def items():
        yield 1
        raise BrokenError

    with prefetch(items(), ahead=4, name="t") as taken:
        assert next(taken) == 1
        eventually(lambda: taken._ready.qsize() == 1)


def test_use_after_the_with_block_raises_an_error():
    with prefetch([1, 2], ahead=4, name="decode") as taken:
        pass
    with pytest.raises(ValueError, match="decode is closed"):
        next(taken)


def test_the_consumer_counts_how_long_it_waits_for_items(waits):
    consumer = threading.current_thread().name

    def slow():
        for k in range(5):
            eventually(lambda k=k: waits.begun(consumer) == k + 1)
            yield k

    with prefetch(slow(), ahead=2, name="t") as taken:
        assert [next(taken) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert (taken.waited, taken.blocked) == (5, 0)


def test_the_thread_counts_how_long_it_waits_for_space(waits):
    with prefetch(range(4), ahead=1, name="t") as taken:
        for k in range(3):
            eventually(lambda k=k: waits.begun() == k + 1)
            assert next(taken) == k
        eventually(lambda: taken._ready.qsize() == 2)
    assert (taken.waited, taken.blocked) == (0, 3)


def interpolated(frames, *, fail_at=None, closed=None):
    try:
        for k in frames:
            if k == fail_at:
                raise BrokenError("inference")
            yield k
            yield k + 0.5
    finally:
        if closed is not None:
            closed.append(threading.current_thread().name)


def decoded(count, *, fail_at=None, closed=None):
    try:
        for k in range(count):
            if k == fail_at:
                raise BrokenError("decode")
            yield k
    finally:
        if closed is not None:
            closed.append(threading.current_thread().name)


def encoded(shown, written, *, fail_at=None):
    for item in shown:
        if item == fail_at:
            raise BrokenError("encode")
        written.append(item)


@pytest.mark.parametrize("where", ["decode", "inference", "encode"])
def test_an_error_in_any_stage_ends_all_and_reaches_the_caller(where):
    at = dict.fromkeys(["decode", "inference", "encode"]) | {where: 20}
    closed = []
    written = []
    frames = decoded(10**9, fail_at=at["decode"], closed=closed)
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(BrokenError, match=where))
        frames = stack.enter_context(prefetch(frames, ahead=4, name="D"))
        shown = interpolated(frames, fail_at=at["inference"], closed=closed)
        shown = stack.enter_context(prefetch(shown, ahead=4, name="I"))
        encoded(shown, written, fail_at=at["encode"])
    assert written == [k / 2 for k in range(40)]
    assert sorted(closed) == ["D", "I"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
@pytest.mark.parametrize("seed", range(10))
def test_ctrl_c_ends_all_stages_at_any_time(seed):
    """In half of the runs the signal comes while the caller waits, in half while all stages run."""
    rng = random.Random(seed)
    slow = seed % 2 == 0

    def items():
        while True:
            time.sleep(0.05 if slow else 0)
            yield 0

    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with ExitStack() as stack:
            stack.enter_context(pytest.raises(KeyboardInterrupt))
            frames = stack.enter_context(prefetch(items(), ahead=2, name="D"))
            shown = stack.enter_context(prefetch(interpolated(frames), ahead=2, name="I"))
            signal.setitimer(signal.ITIMER_REAL, 0.01 + 0.02 * rng.random())
            for _ in shown:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, former)


def jittered(items, rng, fail_at):
    for k, item in enumerate(items):
        if k == fail_at:
            raise BrokenError
        if rng.random() < 0.3:
            time.sleep(rng.random() * 5e-4)
        yield item


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 60),
    aheads=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    weights=st.booleans(),
    failing=st.one_of(st.none(), st.tuples(st.integers(0, 4), st.integers(0, 60))),
)
def test_no_item_is_lost_or_out_of_order(seed, count, aheads, weights, failing):
    """A chain of stages with random delays; one of them, or the caller, may fail anywhere."""
    rng = random.Random(seed)
    stage, at = failing if failing is not None else (None, None)
    weight = (lambda item: item % 3) if weights else None
    got = []
    failed = False
    try:
        with ExitStack() as stack:
            items = range(count)
            for k, ahead in enumerate(aheads):
                source = jittered(items, random.Random(rng.random()), at if stage == k else None)
                items = stack.enter_context(
                    prefetch(source, ahead=ahead, name=f"s{k}", weight=weight)
                )
            got.extend(jittered(items, rng, at if stage == len(aheads) else None))
    except BrokenError:
        failed = True
    expected_failure = stage is not None and stage <= len(aheads) and at < count
    assert failed == expected_failure
    assert got == list(range(at if expected_failure else count))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("s")]
