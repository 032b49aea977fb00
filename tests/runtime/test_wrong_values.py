"""Arguments of wrong types and ranges: the error is one sentence that names the value."""

import re
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from blend import Blend
from commands import need_torch
from moving_clips import write_clip
from runtime import (
    FrameError,
    InterpolationError,
    Interpolator,
    ModelError,
    PairRequest,
    VideoError,
    VideoOptions,
    interpolate_video,
    plan_video,
)

FRAME = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)


@pytest.fixture(params=["frames", "float"])
def vfi(request):
    return Interpolator(Blend(io=request.param))


def pair(steps):
    return PairRequest(FRAME, FRAME, steps)


@pytest.mark.parametrize(
    ("timesteps", "message"),
    [
        (0.3, "timesteps is 0.3, one number: write timesteps=(0.3,)"),
        (np.float32(0.5), "timesteps is 0.5, one number: write timesteps=(0.5,)"),
        ("0.5", "timesteps is a str: give a sequence of numbers"),
        (b"a", "timesteps is a bytes: give a sequence of numbers"),
        ({0.25, 0.5}, "timesteps is a set: give a sequence of numbers"),
        (object(), "timesteps is an object: give a sequence of numbers"),
        (("a",), "timesteps is ('a',), not only numbers"),
        ((0.5, None), "timesteps is (0.5, None), not only numbers"),
        ((0.5, 1j), "not only numbers"),
        (np.array(0.5), "timesteps is array(0.5), not only numbers"),
        ((0.5, 1), "time step 1.0 is not inside (0, 1)"),
    ],
)
def test_invalid_time_steps_are_refused(vfi, timesteps, message):
    with pytest.raises(FrameError, match=re.escape(message)):
        vfi.interpolate(FRAME, FRAME, timesteps=timesteps)
    with pytest.raises(FrameError, match=re.escape(message)):
        list(vfi.interpolate_each([pair(timesteps)]))


@pytest.mark.parametrize(
    "timesteps",
    [[0.25, 0.5], np.array([0.25, 0.5]), (Fraction(1, 4), 0.5), range(0), ()],
)
def test_any_sequence_of_time_steps_is_accepted(vfi, timesteps):
    given = list(timesteps)
    made = vfi.interpolate(FRAME, FRAME, timesteps=iter(given))
    (each,) = vfi.interpolate_each([pair(iter(given))])
    assert len(made) == len(each) == len(given)


def frames_of_other_types():
    gray, rgba = FRAME[..., 0], np.dstack([FRAME, FRAME[..., :1]])
    return [
        (FRAME.tolist(), "is a list: give a NumPy array of shape (H, W, 3)"),
        (Image.fromarray(FRAME), "is a PIL.Image: give a NumPy array of shape (H, W, 3), as numpy"),
        (None, "is None: give a NumPy array"),
        ("a.png", "is a str: give a NumPy array"),
        (memoryview(FRAME), "is a memoryview: give a NumPy array"),
        (gray, "has shape (20, 24), frames are RGB (H, W, 3): convert it to three channels"),
        (rgba, "leave the alpha channel out, frame[..., :3]"),
        (FRAME.transpose(2, 0, 1), "move the channels to the end, frame.transpose(1, 2, 0)"),
        (FRAME[None], "give one frame at a time"),
        (FRAME.astype(np.int64), "is int64: frames are uint8, uint16, float32 in [0, 1], convert"),
        (FRAME / 255, "is float64: frames are"),
        (FRAME > 3, "is bool: frames are"),
        (FRAME.astype(object), "is object: frames are"),
        (np.empty((0, 0, 3), np.uint8), "is 0x0: frames are at least 16x16"),
        (np.full((20, 24, 3), np.nan, np.float32), "outside [0, 1], or NaN"),
    ]


@pytest.mark.parametrize(("frame", "message"), frames_of_other_types())
def test_invalid_frames_are_refused(vfi, frame, message):
    for call in (
        lambda: vfi.interpolate(frame, FRAME),
        lambda: vfi.interpolate(FRAME, frame),
        lambda: list(vfi.stream([frame, frame])),
        lambda: list(vfi.stream([FRAME, frame])),
        lambda: list(vfi.interpolate_each([PairRequest(FRAME, frame, ())])),
        lambda: vfi.live().push(0, frame),
    ):
        with pytest.raises(FrameError, match=re.escape(message)):
            call()


def test_the_error_for_a_pytorch_tensor_names_its_method():
    need_torch()
    import torch

    with pytest.raises(FrameError, match=r"is a torch.Tensor: .* as frame\.cpu\(\)\.numpy\(\)"):
        Interpolator(Blend()).interpolate(torch.from_numpy(FRAME), torch.from_numpy(FRAME))


@pytest.mark.parametrize("frames", [None, 5])
def test_invalid_streams_are_refused(vfi, frames):
    for call in (vfi.stream, vfi.interpolate_each, vfi.interpolate_tagged):
        with pytest.raises(FrameError, match="give an iterable of"):
            list(call(frames))


@pytest.mark.parametrize("wrong", [FRAME, (FRAME, FRAME), "x", [FRAME, FRAME, (0.5,)]])
def test_invalid_pairs_are_refused(vfi, wrong):
    with pytest.raises(FrameError, match="give PairRequest"):
        list(vfi.interpolate_each([wrong]))
    with pytest.raises(FrameError, match="give PairRequest"):
        list(vfi.interpolate_tagged([("tag", wrong)]))
    for entry in (wrong if len(wrong) != 2 else "x", pair(()), None, ("tag",)):
        with pytest.raises(FrameError, match="give a tuple of a tag, and a PairRequest or None"):
            list(vfi.interpolate_tagged([entry]))


def test_a_plain_tuple_is_accepted_as_a_pair(vfi):
    (made,), (expected,) = (
        next(vfi.interpolate_each([one])) for one in ((FRAME, FRAME, (0.5,)), pair((0.5,)))
    )
    np.testing.assert_array_equal(made, expected)


def test_integers_of_numpy_are_accepted_as_factors(vfi):
    assert len(list(vfi.stream([FRAME, FRAME], factor=np.int64(3)))) == 4
    live = vfi.live(factor=np.int64(3))
    live.push(0, FRAME)
    assert [shown.time for shown in live.push(1, FRAME)] == [0, Fraction(1, 3), Fraction(2, 3)]


@pytest.mark.parametrize("max_gap", [True, False, "1", 1j])
def test_invalid_gaps_are_refused(vfi, max_gap):
    with pytest.raises(FrameError, match=f"max_gap is {max_gap!r}: give a time above 0"):
        vfi.live(max_gap=max_gap)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "the model is None: give the path"),
        (5, "the model is an int: give the path"),
        (b"m.onnx", "the model is a bytes: give the path"),
        ("", "the model is '': give the path"),
        (Interpolator, "the model is a type: give the path"),
        ("FOLDER", "is a folder: give the model file in it"),
        ("missing.onnx", "missing.onnx does not exist"),
    ],
)
def test_invalid_models_are_refused(tmp_path, model, message):
    source = write_clip(tmp_path / "in.mp4", 2)
    model = tmp_path if model == "FOLDER" else model
    for call in (
        lambda: Interpolator.open(model),
        lambda: interpolate_video(source, tmp_path / "out.mp4", model=model),
    ):
        with pytest.raises(ModelError, match=message):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("backend", [None, "model.onnx", b""])
def test_objects_that_are_not_backends_are_refused(backend):
    with pytest.raises(
        InterpolationError, match=r"takes an opened backend: use Interpolator\.open"
    ):
        Interpolator(backend)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": 0}, "device 0 is unknown: use cpu"),
        ({"threads": "2"}, "threads is '2', a str: give a whole number"),
        ({"threads": 2.0}, "threads is 2.0, a float: give a whole number"),
        ({"threads": True}, "threads is True, a bool: give a whole number"),
        (
            {"threads": 1000},
            r"threads is 1000, this machine has \d+ CPUs?: use \d+ at most, or None",
        ),
        ({"threads": 10**30}, r"threads is 10+, this machine has \d+ CPUs?: use \d+ at most"),
        ({"streams": 1000}, r"streams is 1000, this machine has \d+ CPUs?: use \d+ at most, or"),
        ({"streams": 1.5, "backend": "openvino"}, "streams is 1.5, a float"),
        ({"io_binding": "no"}, "io_binding is 'no': use True, False"),
        ({"cuda_graph": 1}, "cuda_graph is 1: use True, False"),
        ({"cache": 5}, "cache is an int: give a folder"),
        ({"cache": ""}, "cache is '': give a folder"),
        ({"cache": "a\0"}, "cache is 'a.x00', which has characters that no path can have: give"),
        ({"cache": "a" * 300}, "cache is 'a+[.]{3}a+', which is too long for a path: give another"),
        ({"backend": ["onnxruntime"]}, "is unknown: use one of"),
    ],
)
def test_options_of_wrong_types_are_refused(models, options, message):
    with pytest.raises(InterpolationError, match=message):
        Interpolator.open(models / "frames.onnx", **options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"options": {}}, "options is a dict: give VideoOptions"),
        ({"options": {"cuts": None}}, "options is a dict: give VideoOptions"),
        ({"options": VideoOptions}, "options is a type: give VideoOptions"),
        ({"source": None}, "source is None: give a path"),
        ({"source": b"in.mp4"}, "source is a bytes: give a path"),
        ({"source": ""}, "source is '': give a path"),
        ({"source": "missing.mp4"}, "missing.mp4 does not exist"),
        ({"destination": None}, "destination is None: give a path"),
        ({"destination": 5}, "destination is an int: give a path"),
        ({"destination": "no/out.mp4"}, "no is not a folder: create it first"),
        ({"source": "\ud800.mp4"}, "source is '.ud800.mp4', which has characters that no path"),
        ({"source": "a" * 300}, "source is 'a+[.]{3}a+', which is too long for a path: give"),
        ({"destination": "\0.mp4"}, "destination is '.x00.mp4', which has characters that no path"),
        ({"destination": "a" * 300}, "destination is 'a+[.]{3}a+', which is too long for a path"),
        ({"factor": 10**400}, "give a lower factor"),
    ],
)
def test_wrong_arguments_of_a_video_are_refused(tmp_path, given, message):
    source = write_clip(tmp_path / "in.mp4", 2)
    arguments = {"source": source, "destination": tmp_path / "out.mp4", **given}
    with pytest.raises(VideoError, match=message):
        plan_video(**arguments)
    with pytest.raises(VideoError, match=message):
        interpolate_video(**arguments, model=Interpolator(Blend()))
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"progress": 5}, "progress is an int: give a function"),
        ({"on_note": "x"}, "on_note is a str: give a function"),
        ({"threads": 2, "device": "cpu"}, "device, threads was given with an open Interpolator"),
    ],
)
def test_other_wrong_arguments_of_a_video_are_refused(tmp_path, given, message):
    source = write_clip(tmp_path / "in.mp4", 2)
    with pytest.raises(VideoError, match=message):
        interpolate_video(source, tmp_path / "out.mp4", model=Interpolator(Blend()), **given)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("cuts", [10**400, -(10**400), float("nan"), float("inf")])
def test_a_threshold_of_any_size_is_refused(cuts):
    with pytest.raises(VideoError, match=r"the cut threshold is (-?inf|nan): give one above 0"):
        VideoOptions(cuts=cuts)


@pytest.mark.parametrize("time", [10**400, float("inf"), float("nan")])
def test_times_that_no_float_holds_are_refused(vfi, time):
    with pytest.raises(FrameError, match=r"time is .{1,60}: give a finite int, float or Fraction"):
        vfi.live().push(time, FRAME)


@pytest.mark.parametrize("mask", ["a\0.png", "\ud800.png", "a" * 300 + ".png"])
def test_a_mask_with_an_impossible_path_is_refused(mask):
    with pytest.raises(VideoError, match="cannot be read as a mask"):
        VideoOptions(mask=mask)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("video_stream", ["0", 0.0, True]),
        ("strict", ["no", 0, None]),
        ("dedupe", [3]),
        ("keep_vfr", [None]),
        ("deinterlace", ["yes", True]),
        ("cut_policy", ["drop", None]),
        ("lossless", ["no"]),
        ("overwrite", ["yes", 1, None]),
        ("cuts", ["5", True]),
        ("quality", ["20", True, float("nan"), float("inf"), 10**400]),
        ("codec", [5, "", "\ud800", "a\0", "\u00b2", "\x1b[31m"]),
        ("preset", [5, "", "\ud800", "a\0"]),
        ("audio", ["mp3", None, True]),
    ],
)
def test_wrong_options_of_a_video_are_refused(name, values):
    for value in values:
        with pytest.raises(VideoError, match=f"^{name} is {re.escape(repr(value))}: "):
            VideoOptions(**{name: value})


@pytest.mark.parametrize("cuts", [0, -1, 101, float("nan")])
def test_a_threshold_out_of_range_is_refused_before_a_video_is_read(cuts):
    with pytest.raises(VideoError, match="the cut threshold is"):
        VideoOptions(cuts=cuts)
