"""Frames in the order BGR: results equal those of RGB frames with swapped channels."""

import itertools

import numpy as np
import pytest

from artefacts import assert_same
from blend import Blend
from export.gate.cases import moving_frames
from moving_clips import write_clip
from runtime import FrameError, Interpolator, PairRequest, VideoOptions, interpolate_video
from runtime.frames import swapped_channels
from video_parts import times_and_hashes

STEPS = (0.25, 0.5, 0.5)


def swapped(frames):
    return [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]


@pytest.fixture(
    scope="module",
    params=[
        ("frames", np.uint8), ("float", np.uint8), ("float", np.uint16), ("float", np.float32),
        ("midpoint", np.uint8),
    ],
    ids=lambda param: f"{param[0]}-{param[1].__name__}",
)  # fmt: skip
def case(request, models, midpoint_model):
    """A model for RGB and for BGR frames, three RGB frames, and the same in BGR."""
    name, dtype = request.param
    path = midpoint_model if name == "midpoint" else models / f"{name}.onnx"
    scale = 257 if dtype == np.uint16 else 1
    frames = [
        (frame.astype(np.float32) / np.float32(255)) if dtype == np.float32
        else frame.astype(dtype) * dtype(scale)
        for frame in (*moving_frames(50, 70, 4.0), moving_frames(50, 70, 4.0, seed=3)[0])
    ]  # fmt: skip
    with (
        Interpolator.open(path, backend="onnxruntime") as rgb,
        Interpolator.open(path, backend="onnxruntime", channels="bgr") as bgr,
    ):
        yield rgb, bgr, frames, swapped(frames)


def test_the_order_of_channels_changes_the_result(case):
    rgb, _, frames, other = case
    assert not np.array_equal(
        rgb.interpolate(*frames[:2]), swapped([rgb.interpolate(*other[:2])])[0]
    )


def test_pairs_in_bgr_equal_those_in_rgb_bit_for_bit(case):
    rgb, bgr, frames, other = case
    kept = [frame.copy() for frame in other]
    expected = swapped(rgb.interpolate(*frames[:2], timesteps=STEPS))
    made = bgr.interpolate(*other[:2], timesteps=STEPS)
    assert_same(made, expected)
    assert all(frame.flags.c_contiguous and frame.flags.writeable for frame in made)
    np.testing.assert_array_equal(bgr.interpolate(*other[:2]), expected[1])
    views = [frame[..., ::-1] for frame in frames]  # BGR, not contiguous.
    for frame in (*views, *other):
        frame.flags.writeable = False
    assert_same(bgr.interpolate(*views[:2], timesteps=STEPS), expected)
    assert_same(other, kept)


def test_streams_in_bgr_equal_those_in_rgb_and_keep_real_frames(case):
    rgb, bgr, frames, other = case
    made = list(bgr.stream(other))
    assert_same(made, swapped(rgb.stream(frames)))
    assert all(made[2 * k] is frame for k, frame in enumerate(other))
    live = bgr.live()
    shown = [frame for k, frame in enumerate(other) for _, frame in live.push(k, frame)]
    shown += [frame for _, frame in live.reset()]
    assert_same(shown, made)
    assert all(shown[2 * k] is frame for k, frame in enumerate(other))


def test_requests_in_bgr_equal_those_in_rgb(case):
    rgb, bgr, frames, other = case
    ways = ((rgb, frames), (bgr, other))
    asked = [[PairRequest(*p, STEPS) for p in itertools.pairwise(given)] for _, given in ways]
    expected, made = (
        list(vfi.interpolate_each(a)) for (vfi, _), a in zip(ways, asked, strict=True)
    )
    for one, wanted in zip(made, expected, strict=True):
        assert_same(one, swapped(wanted))
    ((tag, tagged),) = bgr.interpolate_tagged([("a", asked[1][0])])
    assert tag == "a"
    assert_same(tagged, made[0])


@pytest.mark.parametrize("io", ["frames", "float"])
def test_a_frame_of_two_pairs_is_sent_once(io):
    vfi = Interpolator(Blend(keep=True, io=io), channels="bgr")
    frames = [np.full((16, 16, 3), (3 * k, 0, 100 + k), np.uint8) for k in range(4)]
    for one in vfi.interpolate_each(PairRequest(*p, (0.5,)) for p in itertools.pairwise(frames)):
        assert one[0][0, 0, 2] >= 100
    sent = vfi._backend.given
    assert len(sent) == 4
    red = [image[0, 0, 0, 0] if io == "frames" else image[0, 0, 0, 0] * 255 for image in sent]
    assert [round(float(value)) for value in red] == [100, 101, 102, 103]


def test_the_order_of_an_open_model_can_be_changed(case):
    rgb, bgr, frames, other = case
    assert (rgb.channels, bgr.channels) == ("rgb", "bgr")
    made = rgb.with_channels("bgr")
    np.testing.assert_array_equal(made.interpolate(*other[:2]), bgr.interpolate(*other[:2]))
    assert rgb.channels == "rgb"
    np.testing.assert_array_equal(
        bgr.with_channels("rgb").interpolate(*frames[:2]), rgb.interpolate(*frames[:2])
    )


def test_videos_do_not_depend_on_the_order(models, tmp_path):
    source = write_clip(tmp_path / "in.mp4", 3, size=(50, 70))
    for channels in ("rgb", "bgr"):
        with Interpolator.open(models / "frames.onnx", channels=channels) as vfi:
            out = tmp_path / f"{channels}.mkv"
            interpolate_video(source, out, model=vfi, options=VideoOptions(codec="ffv1"))
    rgb, bgr = (times_and_hashes(tmp_path / f"{channels}.mkv") for channels in ("rgb", "bgr"))
    assert len(rgb) == 6
    assert rgb == bgr


def test_bgr_is_refused_for_frames_on_a_gpu():
    vfi = Interpolator(Blend(), channels="bgr")
    with pytest.raises(FrameError, match=r"frames on a GPU are RGB: .* use with_channels\('rgb'\)"):
        vfi.interpolate_on_device(object(), object())


@pytest.mark.parametrize("channels", ["BGR", "rgba", None, 3])
def test_other_orders_are_refused(models, channels):
    for call in (
        lambda: Interpolator.open(models / "frames.onnx", channels=channels),
        lambda: Interpolator(Blend(), channels=channels),
        lambda: Interpolator(Blend()).with_channels(channels),
    ):
        with pytest.raises(FrameError, match="use 'rgb', or 'bgr' for frames of OpenCV"):
            call()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_swapped_channels_are_a_contiguous_copy(dtype):
    frame = np.arange(4 * 5 * 3, dtype=dtype).reshape(4, 5, 3)
    for given in (frame, frame[::-1], frame[..., ::-1], np.asfortranarray(frame)):
        made = swapped_channels(given)
        np.testing.assert_array_equal(made, given[..., ::-1])
        assert made.flags.c_contiguous
        assert not np.shares_memory(made, frame)
