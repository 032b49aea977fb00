"""Models that are prepared for each size: which are kept, and use by several threads."""

import threading
import weakref

import pytest

from runtime import BackendError
from runtime.backends.sizes import PreparedSizes


class Made:
    """Counts prepared models."""

    def __init__(self):
        self.sizes = []

    def __call__(self, size):
        self.sizes.append(size)
        return [size]


def test_the_most_recent_sizes_are_kept():
    made = Made()
    prepared = PreparedSizes(made, limit=2)
    for side in (1, 2, 1, 3, 1, 2):
        assert prepared.at((side, side)) == [(side, side)]
    assert made.sizes == [(1, 1), (2, 2), (3, 3), (2, 2)]


def test_the_oldest_is_dropped_before_another_is_prepared():
    alive = weakref.WeakSet()
    most = []

    class Model:
        pass

    def prepare(size):
        most.append(len(alive))
        model = Model()
        alive.add(model)
        return model

    prepared = PreparedSizes(prepare, limit=2)
    for side in range(5):
        prepared.at((side, side))
    assert most == [0, 1, 1, 1, 1]


def test_a_failed_preparation_is_tried_again():
    answers = iter([RuntimeError("no memory"), "model"])

    def prepare(size):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    prepared = PreparedSizes(prepare)
    with pytest.raises(RuntimeError, match="no memory"):
        prepared.at((1, 1))
    assert prepared.at((1, 1)) == "model"


def test_threads_prepare_a_size_once():
    made = Made()
    prepared = PreparedSizes(made)
    start = threading.Barrier(4)

    def use():
        start.wait(10)
        prepared.at((5, 5))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert made.sizes == [(5, 5)]


def test_closing_returns_the_kept_models_and_refuses_new_ones():
    prepared = PreparedSizes(Made(), limit=2)
    for side in (1, 2, 3):
        prepared.at((side, side))
    assert prepared.close() == [[(2, 2)], [(3, 3)]]
    assert prepared.close() == []
    with pytest.raises(BackendError, match="the model is closed: open it again"):
        prepared.at((3, 3))
