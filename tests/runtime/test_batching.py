"""Requests with tags, and their distribution to calls of the model."""

import itertools

import numpy as np
import pytest

from blend import Blend
from runtime import Interpolator
from runtime.batching import PairRequest

FLAT = [np.full((16, 16, 3), value, np.uint8) for value in (0, 40, 80, 120, 160)]


def values(frames):
    return [int(frame[0, 0, 0]) for frame in frames]


@pytest.mark.parametrize("per_call", [1, 2])
def test_a_tag_is_returned_with_the_frames_of_its_request(per_call):
    vfi = Interpolator(Blend(pairs_per_call=per_call))
    first, second, third, _ = (
        PairRequest(*pair, steps)
        for pair, steps in zip(
            itertools.pairwise(FLAT), ((0.5,), (0.25, 0.75), (), (0.5,)), strict=True
        )
    )
    asked = [("a", first), ("b", None), ("c", second), ("d", third), ("e", first)]
    made = [(tag, values(frames)) for tag, frames in vfi.interpolate_tagged(iter(asked))]
    assert made == [("a", [20]), ("b", []), ("c", [50, 70]), ("d", []), ("e", [20])]


@pytest.mark.parametrize(("per_call", "calls"), [(1, [1, 1, 1, 1]), (2, [2, 2])])
def test_calls_have_as_many_pairs_as_the_model_accepts(per_call, calls):
    backend = Blend(pairs_per_call=per_call)
    vfi = Interpolator(backend)
    made = list(vfi.interpolate_each(PairRequest(*p, (0.5,)) for p in itertools.pairwise(FLAT)))
    assert [values(frames) for frames in made] == [[20], [60], [100], [140]]
    assert backend.calls == calls


def test_with_midpoint_weights_calls_combine_one_level_of_several_pairs():
    backend = Blend(pairs_per_call=2, time_steps="midpoint")
    vfi = Interpolator(backend)
    pairs = [PairRequest(*pair, (0.25, 0.5)) for pair in itertools.pairwise(FLAT[:3])]
    assert [values(frames) for frames in vfi.interpolate_each(pairs)] == [[10, 20], [50, 60]]
    assert backend.calls == [2, 2]
