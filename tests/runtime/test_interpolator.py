import threading

import numpy as np
import pytest
import torch

from commands import run_main
from export.gate.cases import moving_frames
from export.wrapper import ExportOptions, wrap
from runtime import BackendError, FrameError, InterpolationError, Interpolator, ModelError
from video_clips import write


@pytest.fixture(scope="module")
def vfi(models):
    with Interpolator.open(models / "frames.onnx") as opened:
        yield opened


@pytest.fixture(scope="module")
def float_vfi(models):
    with Interpolator.open(models / "float.onnx") as opened:
        yield opened


def reference(network, frame0, frame1, t):
    options = ExportOptions(*frame0.shape[:2])
    with torch.inference_mode():
        picture = wrap(network, options).unrounded(
            torch.from_numpy(frame0)[None],
            torch.from_numpy(frame1)[None],
            torch.full((1, 1, 1, 1), t),
        )
    return picture[0].permute(1, 2, 0).numpy() * 255


def test_the_middle_frame_equals_that_of_pytorch(vfi, frames, demo_network):
    middle = vfi.interpolate(*frames)
    assert middle.dtype == np.uint8
    assert middle.shape == frames[0].shape
    assert np.abs(middle - reference(demo_network, *frames, 0.5)).max() < 0.53


@pytest.mark.parametrize("model", ["frames.onnx", "three.onnx"])
def test_frames_are_returned_in_the_order_of_the_time_steps(models, frames, demo_network, model):
    steps = (0.75, 0.125, 0.5, 0.5)  # more than the three of a call, unsorted, one of them twice
    with Interpolator.open(models / model) as vfi:
        made = vfi.interpolate(*frames, timesteps=steps)
    assert len(made) == 4
    for frame, t in zip(made, steps, strict=True):
        assert np.abs(frame - reference(demo_network, *frames, t)).max() < 0.53


def test_without_time_steps_there_are_no_frames(vfi, frames):
    assert vfi.interpolate(*frames, timesteps=()) == []


@pytest.mark.parametrize("t", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_time_steps_outside_are_refused(vfi, frames, t):
    with pytest.raises(FrameError, match=r"not inside \(0, 1\)"):
        vfi.interpolate(*frames, timesteps=(0.5, t))


@pytest.mark.parametrize(
    "layout",
    [
        lambda f: np.asfortranarray(f),
        lambda f: np.repeat(f, 2, axis=1)[:, ::2],
        lambda f: f[::-1][::-1],
        lambda f: np.ascontiguousarray(f[..., ::-1])[..., ::-1],
    ],
)
def test_frames_can_have_any_memory_layout(vfi, frames, layout):
    expected = vfi.interpolate(*frames)
    np.testing.assert_array_equal(vfi.interpolate(*map(layout, frames)), expected)


def test_frames_are_not_written_to(vfi, float_vfi, frames):
    kept = [frame.copy() for frame in frames]
    for frame in frames:
        frame.flags.writeable = False
    vfi.interpolate(*frames)
    wide = [np.pad(f, ((7, 7), (5, 5), (0, 0))) for f in frames]
    for frame in wide:
        frame.flags.writeable = False
    float_vfi.interpolate(*wide)
    for frame, copy in zip(frames, kept, strict=True):
        np.testing.assert_array_equal(frame, copy)


def test_results_are_new_and_writeable(vfi, frames):
    first = vfi.interpolate(*frames)
    kept = first.copy()
    second = vfi.interpolate(frames[1], frames[0])
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)
    first[:] = 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_float_models_accept_every_depth(float_vfi, demo_network, dtype):
    frames = moving_frames(64, 80, 4.0)
    peak = 1.0 if dtype == np.float32 else float(np.iinfo(dtype).max)
    scaled = [(f / np.float32(255) * peak).astype(dtype) for f in frames]
    made = float_vfi.interpolate(*scaled)
    assert made.dtype == dtype
    expected = reference(demo_network, *frames, 0.5) / 255
    assert np.abs(made / peak - expected).max() < 0.5 / 255 + 1e-3


def test_float_models_pad_to_their_size(float_vfi, demo_network):
    frames = moving_frames(50, 70, 4.0)
    made = float_vfi.interpolate(*frames)
    assert made.shape == (50, 70, 3)
    assert np.abs(made - reference(demo_network, *frames, 0.5)).max() < 0.53


def test_uint16_frames_keep_more_than_eight_bits(float_vfi):
    frames = [f.astype(np.uint16) * 257 for f in moving_frames(64, 80, 4.0)]
    made = float_vfi.interpolate(*frames)
    assert len(np.unique(made)) > 1000


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_frame_models_refuse_other_depths_rather_than_lose_them(vfi, dtype):
    frame = np.zeros((50, 70, 3), dtype)
    with pytest.raises(FrameError, match=r"takes uint8: convert them, or keep .* --io float "):
        vfi.interpolate(frame, frame)


@pytest.mark.parametrize("model", ["frames.onnx", "float.onnx"])
def test_the_error_for_another_size_names_a_remedy(models, model):
    frame = np.zeros((96, 112, 3), np.uint8)
    with (
        Interpolator.open(models / model) as vfi,
        pytest.raises(FrameError, match="only: build a model for them with python -m export"),
    ):
        vfi.interpolate(frame, frame)


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (90, 61)])
def test_dynamic_models_accept_any_size(models, demo_network, size):
    frames = moving_frames(*size, 2.0)
    with Interpolator.open(models / "dynamic.onnx") as vfi:
        made = vfi.interpolate(*frames)
    assert np.abs(made - reference(demo_network, *frames, 0.5)).max() < 0.53


def test_midpoint_weights_reach_quarters_by_recursion(midpoint_model, frames):
    with Interpolator.open(midpoint_model) as vfi:
        assert vfi.info.time_steps == "midpoint"
        quarter, half, late = vfi.interpolate(*frames, timesteps=(0.25, 0.5, 0.75))
        middle = vfi.interpolate(*frames)
        np.testing.assert_array_equal(half, middle)
        np.testing.assert_array_equal(quarter, vfi.interpolate(frames[0], middle))
        np.testing.assert_array_equal(late, vfi.interpolate(middle, frames[1]))
        assert not np.array_equal(quarter, late)


@pytest.mark.parametrize("steps", [(1 / 3,), (0.1,), (0.5, 0.3)])
def test_midpoint_weights_refuse_other_time_steps(midpoint_model, frames, steps):
    with (
        Interpolator.open(midpoint_model) as vfi,
        pytest.raises(FrameError, match="know the midpoint only"),
    ):
        vfi.interpolate(*frames, timesteps=steps)


@pytest.mark.parametrize("factor", [3, 5, 6])
def test_midpoint_weights_refuse_other_factors_before_the_first_frame(midpoint_model, factor):
    with (
        Interpolator.open(midpoint_model) as vfi,
        pytest.raises(FrameError, match="powers of two"),
    ):
        vfi.stream(iter([]), factor=factor)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_stream_returns_real_frames_unchanged(vfi, factor):
    frames = [moving_frames(50, 70, 3.0, seed=seed)[0] for seed in range(3)]
    out = list(vfi.stream(iter(frames), factor=factor))
    assert len(out) == 2 * factor + 1
    for k, frame in enumerate(frames):
        assert out[k * factor] is frame
    if factor == 3:
        expected = vfi.interpolate(frames[0], frames[1], timesteps=(1 / 3, 2 / 3))
        np.testing.assert_array_equal(out[1], expected[0])
        np.testing.assert_array_equal(out[2], expected[1])


def test_stream_is_lazy_and_holds_two_frames(vfi):
    taken = []

    def source():
        for k in range(100):
            taken.append(k)
            yield np.full((50, 70, 3), k, np.uint8)

    stream = vfi.stream(source())
    for _ in range(5):
        next(stream)
    assert taken == [0, 1, 2]


@pytest.mark.parametrize("count", [0, 1])
def test_stream_of_no_frame_and_of_one_frame(vfi, count):
    frames = [np.zeros((50, 70, 3), np.uint8)] * count
    assert len(list(vfi.stream(frames, factor=4))) == count


@pytest.mark.parametrize("factor", [0, -1, 2.0, "2", True])
def test_stream_refuses_invalid_factors(vfi, factor):
    with pytest.raises(FrameError, match="whole number"):
        vfi.stream([], factor=factor)


def test_several_threads_can_use_one_instance(vfi):
    pairs = [moving_frames(50, 70, 3.0, seed=seed) for seed in range(8)]
    expected = [vfi.interpolate(*pair) for pair in pairs]
    wrong = []

    def work(k):
        for _ in range(5):
            if not np.array_equal(vfi.interpolate(*pairs[k]), expected[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_closed_interpolator_raises_an_error(models, frames):
    with Interpolator.open(models / "frames.onnx") as vfi:
        pass
    vfi.close()
    with pytest.raises(BackendError, match="closed: open it again"):
        vfi.interpolate(*frames)


def test_every_error_is_an_interpolation_error():
    for error in (BackendError, FrameError, ModelError):
        assert issubclass(error, InterpolationError)


def test_the_command_refuses_a_missing_model(tmp_path):
    write(tmp_path / "in.mp4", 3)
    done = run_main("runtime", "in.mp4", "out.mp4", "--model", "no.onnx", cwd=tmp_path)
    assert done.returncode == 1
    assert "no.onnx does not exist" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
