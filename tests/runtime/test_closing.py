"""Closing a model: twice, before it is used, and during a stream."""

import itertools

import numpy as np
import pytest

from export.gate.cases import moving_frames
from moving_clips import write_clip
from runtime import BackendError, Interpolator, PairRequest, interpolate_video

FRAMES = [moving_frames(50, 70, 3.0, seed=seed)[0] for seed in range(6)]


@pytest.fixture(params=["onnxruntime", "openvino", "openvino with streams"])
def opened(request, models):
    """Opens the model any number of times; the end of the test closes all."""
    backend, *more = request.param.split(" with ")
    options = {"streams": 2, "threads": 2} if more else {}
    made = []

    def open_model():
        made.append(Interpolator.open(models / "frames.onnx", backend=backend, **options))
        return made[-1]

    yield open_model
    for vfi in made:
        vfi.close()


def test_every_use_after_closing_is_one_sentence(opened, tmp_path):
    vfi = opened()
    live, stream, each = vfi.live(), vfi.stream(FRAMES), vfi.interpolate_each([None])
    other = vfi.with_channels("bgr")
    vfi.close()
    vfi.close()
    source = write_clip(tmp_path / "in.mp4", 3, size=(50, 70))
    pair = PairRequest(*FRAMES[:2], (0.5,))
    next(stream)  # The first frame needs no model.
    for use in (
        lambda: vfi.interpolate(*FRAMES[:2]),
        lambda: vfi.interpolate(*FRAMES[:2], timesteps=()),
        lambda: next(stream),
        lambda: next(each),
        lambda: list(vfi.stream(FRAMES)),
        lambda: list(vfi.interpolate_each([pair])),
        lambda: list(vfi.interpolate_tagged([("tag", pair)])),
        lambda: live.push(0, FRAMES[0]),
        lambda: vfi.live().push(0, FRAMES[0]),
        lambda: other.interpolate(*FRAMES[:2]),
        lambda: vfi.with_channels("rgb"),
        lambda: interpolate_video(source, tmp_path / "out.mp4", model=vfi),
    ):
        with pytest.raises(BackendError, match=r"^the model is closed: open it again$"):
            use()
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
    assert vfi.info.size == (50, 70)
    assert live.reset() == []


def test_with_statements_can_be_nested_and_the_first_exit_closes_the_model(opened):
    vfi = opened()
    with vfi:
        with vfi as same:
            assert same is vfi
            vfi.interpolate(*FRAMES[:2])
        with pytest.raises(BackendError, match="closed"):
            vfi.interpolate(*FRAMES[:2])
    with vfi, pytest.raises(BackendError, match="closed"):
        vfi.interpolate(*FRAMES[:2])


@pytest.mark.parametrize("taken", [0, 1, 2, 4])
def test_a_stream_can_be_left_early(opened, taken):
    vfi = opened()
    expected = vfi.interpolate(*FRAMES[:2])
    for stream in (
        vfi.stream(iter(FRAMES), factor=3),
        vfi.interpolate_each(PairRequest(*pair, (0.5,)) for pair in itertools.pairwise(FRAMES)),
    ):
        list(itertools.islice(stream, taken))
        stream.close()
        assert list(stream) == []
    np.testing.assert_array_equal(vfi.interpolate(*FRAMES[:2]), expected)
    vfi.close()


def test_a_stream_raises_an_error_after_the_model_is_closed(opened):
    vfi = opened()
    stream = vfi.stream(iter(FRAMES))
    list(itertools.islice(stream, 3))
    vfi.close()
    with pytest.raises(BackendError, match="closed: open it again"):
        list(stream)
    assert list(stream) == []


def test_an_error_of_the_source_ends_the_stream_but_not_the_model(opened):
    def source():
        yield from FRAMES[:3]
        raise OSError("the camera is gone")

    vfi = opened()
    with pytest.raises(OSError, match="the camera is gone"):
        list(vfi.stream(source()))
    assert vfi.interpolate(*FRAMES[:2]).shape == (50, 70, 3)
