"""I/O binding of ONNX Runtime, on the CPU, compared with the backend without it."""

import itertools
import threading
from pathlib import Path

import numpy as np
import pytest

from export.gate.cases import moving_frames
from export.store import write_onnx
from runtime import BackendError, Interpolator
from runtime.backends.base import OpenOptions
from runtime.backends.cuda.arrays import DeviceView
from runtime.backends.ort.backend import OnnxRuntimeBackend
from runtime.backends.ort.binding import BoundBackend
from runtime.backends.registry import open_backend
from runtime.batching import PairRequest
from runtime.telemetry import import_quietly

QUARTERS = (0.25, 0.5, 0.75)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory, export, models, midpoint_model):
    """Files: those of `models`, "midpoint", "batch" (2 pairs) and "free pairs" (up to 3)."""
    folder = tmp_path_factory.mktemp("graphs")
    found = {path.stem: path for path in models.glob("*.onnx")} | {"midpoint": midpoint_model}
    for name, options in {"batch": {"batch": 2}, "free pairs": {"max_batch": 3}}.items():
        found[name] = folder / f"{name}.onnx"
        write_onnx(export(height=50, width=70, **options).model, found[name])
    return found


def opened(path: Path, *, io_binding: bool) -> Interpolator:
    return Interpolator.open(path, backend="onnxruntime", io_binding=io_binding)


def clip(count, height=50, width=70):
    return [frame for seed in range(count) for frame in moving_frames(height, width, 3, seed=seed)]


@pytest.fixture
def uploads(monkeypatch):
    """The shapes of all uploaded arrays."""
    value = import_quietly("onnxruntime").OrtValue
    seen = []
    real = value.ortvalue_from_numpy

    def counted(array, *device):
        seen.append(array.shape)
        return real(array, *device)

    monkeypatch.setattr(value, "ortvalue_from_numpy", counted)
    return seen


def test_the_option_switches_io_binding_on_and_off(models):
    path = models / "frames.onnx"
    for asked, kind in ((None, OnnxRuntimeBackend), (False, OnnxRuntimeBackend)):
        backend = open_backend(path, OpenOptions(io_binding=asked), backend="onnxruntime")
        assert isinstance(backend, kind)
    backend = open_backend(path, OpenOptions(io_binding=True), backend="onnxruntime")
    assert isinstance(backend, BoundBackend)
    assert backend.name == "onnxruntime cpu"


@pytest.mark.parametrize("name", ["frames", "float", "three", "batch", "free pairs", "midpoint"])
def test_pairs_equal_those_of_the_plain_backend_bit_for_bit(graphs, name):
    height, width = (64, 80) if name == "float" else (50, 70)
    frames = moving_frames(height, width, 4.0)
    with opened(graphs[name], io_binding=False) as plain:
        expected = plain.interpolate(*frames, timesteps=QUARTERS)
    with opened(graphs[name], io_binding=True) as bound:
        made = bound.interpolate(*frames, timesteps=QUARTERS)
    np.testing.assert_array_equal(np.stack(made), np.stack(expected))
    assert not np.array_equal(made[0], made[1])


@pytest.mark.parametrize("name", ["frames", "batch", "midpoint"])
@pytest.mark.parametrize("factor", [2, 4])
def test_streams_equal_those_of_the_plain_backend_bit_for_bit(graphs, name, factor):
    frames = clip(2)[:3]
    with opened(graphs[name], io_binding=False) as plain:
        expected = list(plain.stream(iter(frames), factor=factor))
    with opened(graphs[name], io_binding=True) as bound:
        made = list(bound.stream(iter(frames), factor=factor))
    np.testing.assert_array_equal(np.stack(made), np.stack(expected))


def test_a_free_size_can_change_between_calls(graphs):
    with (
        opened(graphs["dynamic"], io_binding=False) as plain,
        opened(graphs["dynamic"], io_binding=True) as bound,
    ):
        for size in ((50, 70), (64, 80), (50, 70)):
            frames = moving_frames(*size, 4.0)
            np.testing.assert_array_equal(
                bound.interpolate(*frames), plain.interpolate(*frames), err_msg=str(size)
            )


def test_a_free_number_of_pairs_can_change_between_calls(graphs):
    images = [frame[None] for frame in clip(2)]
    timestep = np.array([0.25, 0.5, 0.75], np.float32).reshape(-1, 1, 1, 1)
    made = []
    for io_binding in (False, True):
        options = OpenOptions(io_binding=io_binding)
        backend = open_backend(graphs["free pairs"], options, backend="onnxruntime")
        up = [backend.put(image) for image in images]
        pairs = list(itertools.pairwise(up))
        made.append([backend.download(one)() for one in backend.submit(pairs, timestep)])
    assert [image.shape for image in made[1]] == [(1, 50, 70, 3)] * 3
    np.testing.assert_array_equal(made[1], made[0])


def test_a_frame_of_two_pairs_is_uploaded_once(graphs, uploads):
    frames = clip(2)
    with opened(graphs["frames"], io_binding=True) as vfi:
        assert len(list(vfi.stream(iter(frames), factor=4))) == 13
    assert uploads == [(1, 50, 70, 3)] * len(frames)


def test_a_batch_is_uploaded_in_one_copy(graphs, uploads):
    with opened(graphs["batch"], io_binding=True) as vfi:
        assert len(list(vfi.stream(iter(clip(3)[:5])))) == 9
    assert uploads == [(2, 50, 70, 3)] * 4  # Two calls, both sides of each.


def test_results_of_recursion_are_not_uploaded_again(graphs, uploads):
    frames = clip(2)
    with opened(graphs["midpoint"], io_binding=True) as vfi:
        assert len(list(vfi.stream(iter(frames), factor=8))) == 25
    assert uploads == [(1, 50, 70, 3)] * len(frames)


def test_only_requested_results_of_recursion_are_downloaded(graphs, monkeypatch):
    value = import_quietly("onnxruntime").OrtValue
    downloads = []
    real = value.numpy
    monkeypatch.setattr(value, "numpy", lambda self: downloads.append(self) or real(self))
    first, second = moving_frames(50, 70, 4.0)
    with opened(graphs["midpoint"], io_binding=True) as vfi:
        vfi.interpolate(first, second, timesteps=[0.125])  # Through 0.5 and 0.25.
    assert len(downloads) == 1


def test_time_steps_of_one_call_are_downloaded_together(graphs, monkeypatch):
    value = import_quietly("onnxruntime").OrtValue
    downloads = []
    real = value.numpy
    monkeypatch.setattr(value, "numpy", lambda self: downloads.append(self) or real(self))
    with opened(graphs["three"], io_binding=True) as vfi:
        vfi.interpolate(*moving_frames(50, 70, 4.0), timesteps=QUARTERS)
    assert len(downloads) == 1


def test_one_row_of_a_result_can_be_the_input_of_the_next_call(graphs):
    images = [frame[None] for frame in moving_frames(50, 70, 4.0)]
    timestep = np.array(QUARTERS, np.float32).reshape(-1, 1, 1, 1)
    made = []
    for io_binding in (False, True):
        options = OpenOptions(io_binding=io_binding)
        backend = open_backend(graphs["three"], options, backend="onnxruntime")
        first, second = (backend.put(image) for image in images)
        middle = backend.submit([(first, second)], timestep)[1]
        again = backend.submit([(first, middle)], timestep)
        made.append([backend.download(one)() for one in again])
    np.testing.assert_array_equal(made[1], made[0])


def test_frames_outlive_the_model(graphs):
    frames = moving_frames(50, 70, 4.0)
    with opened(graphs["frames"], io_binding=True) as vfi:
        made = vfi.interpolate(*frames)
        kept = made.copy()
    del vfi
    with opened(graphs["frames"], io_binding=True) as vfi:
        vfi.interpolate(*frames[::-1])
    np.testing.assert_array_equal(made, kept)
    made += 1  # The caller owns them.


def test_several_threads_can_call_one_model(graphs):
    pairs = [moving_frames(50, 70, 4.0, seed=seed) for seed in range(4)]
    with opened(graphs["frames"], io_binding=True) as vfi:
        expected = [vfi.interpolate(*pair) for pair in pairs]
        made = {}

        def work(number):
            made[number] = [vfi.interpolate(*pairs[number]) for _ in range(3)]

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number, frame in enumerate(expected):
        np.testing.assert_array_equal(np.stack(made[number]), np.stack([frame] * 3))


def test_a_closed_model_raises_an_error(graphs):
    backend = open_backend(graphs["frames"], OpenOptions(io_binding=True), backend="onnxruntime")
    timestep = np.full((1, 1, 1, 1), 0.5, np.float32)
    image = backend.put(np.zeros((1, 50, 70, 3), np.uint8))
    (made,) = backend.submit([(image, image)], timestep)
    down = backend.download(made)
    backend.close()
    backend.close()
    assert down().shape == (1, 50, 70, 3)
    for call in (
        lambda: backend.put(np.zeros((1, 50, 70, 3), np.uint8)),
        lambda: backend.submit([(image, image)], timestep),
        lambda: backend.download(made),
    ):
        with pytest.raises(BackendError, match="the model is closed: open it again"):
            call()


def test_a_stream_can_be_left_early_and_closed(graphs):
    vfi = opened(graphs["midpoint"], io_binding=True)
    made = vfi.stream(iter(clip(2)), factor=4)
    next(made)
    next(made)
    vfi.close()
    with pytest.raises(BackendError, match="the model is closed"):
        list(made)


def test_the_error_of_a_failed_inference_is_one_line(graphs):
    backend = open_backend(graphs["frames"], OpenOptions(io_binding=True), backend="onnxruntime")
    image = backend.put(np.zeros((1, 64, 70, 3), np.uint8))
    with pytest.raises(BackendError) as caught:
        backend.submit([(image, image)], np.full((1, 1, 1, 1), 0.5, np.float32))
    assert str(caught.value).startswith("onnxruntime cpu failed: Error in execution: Got invalid")
    assert "\n" not in str(caught.value)


def test_frames_on_a_gpu_are_refused(graphs):
    backend = open_backend(graphs["frames"], OpenOptions(io_binding=True), backend="onnxruntime")
    view = DeviceView(1, (50, 70, 3), np.dtype(np.uint8), 0, None, None)
    with pytest.raises(BackendError, match="build a TensorRT engine"):
        backend.put_device(view, 0)
    image = backend.put(np.zeros((1, 50, 70, 3), np.uint8))
    with pytest.raises(BackendError, match="returns frames in host memory"):
        backend.export_to_stream(image, 0)


def test_pairs_can_have_different_time_steps(graphs):
    frames = clip(2)
    pairs = [
        PairRequest(frames[0], frames[1], (0.5,)),
        None,
        PairRequest(frames[1], frames[2], (0.25, 0.75)),
        PairRequest(frames[2], frames[3], ()),
    ]
    with opened(graphs["batch"], io_binding=False) as plain:
        expected = list(plain.interpolate_each(iter(pairs)))
    with opened(graphs["batch"], io_binding=True) as bound:
        made = list(bound.interpolate_each(iter(pairs)))
    assert [len(one) for one in made] == [1, 0, 2, 0]
    for one, other in zip(made, expected, strict=True):
        for frame, like in zip(one, other, strict=True):
            np.testing.assert_array_equal(frame, like)
