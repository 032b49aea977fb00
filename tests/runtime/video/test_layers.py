"""New frames with alpha: their alpha, their colour, and what the model gets."""

import numpy as np
import pytest

from alpha_clips import alpha_of, frames_of, layered, write, write_noise
from blend import Blend
from runtime import Interpolator, interpolate_video
from runtime.batching import PairRequest
from runtime.video.colour import ColourConverter
from runtime.video.layers import LayerConverter, NewLayers, with_alpha
from runtime.video.options import VideoOptions

SIZE = 32, 48
LOSSLESS = {"codec": "ffv1", "lossless": True, "cuts": None}


def converter(mode="interpolate", depth=8, fmt="rgba"):
    return LayerConverter(ColourConverter(), depth, fmt, mode)


def flat(colour, alpha):
    """A frame of one colour and one alpha."""
    return layered(np.full((*SIZE, 3), colour), np.full(SIZE, alpha))


def split(frame):
    """R, G, B and alpha of an rgba frame, as integers."""
    pixels = frame.to_ndarray().astype(int)
    return pixels[..., :3], pixels[..., 3]


def test_the_model_gets_colour_multiplied_by_alpha():
    layers = converter().taken_apart(flat(200, 51))
    assert (layers.image == 40).all()
    assert (layers.colour == 200).all()
    assert (layers.alpha == 51).all()
    opaque = converter().taken_apart(flat(200, 255))
    assert opaque.image is opaque.colour


@pytest.mark.parametrize("hidden", [0, 255, "noise"])
def test_hidden_colours_do_not_reach_the_model(hidden):
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3))
    if hidden != "noise":
        picture[:, 24:] = hidden
    mask = np.full(SIZE, 255)
    mask[:, 24:] = 0
    layers = converter().taken_apart(layered(picture, mask))
    assert (layers.image[:, 24:] == 0).all()
    assert np.array_equal(layers.image[:, :24], picture[:, :24])


def test_new_colour_is_divided_by_the_new_alpha():
    layers = converter()
    real = layers.taken_apart(flat(10, 100)), layers.taken_apart(flat(20, 200))
    image = np.full((*SIZE, 3), 60, np.uint8)
    alpha = np.full((*SIZE, 3), 120, np.uint8)
    colour, made = split(layers.put_together(NewLayers(image, alpha, real, 0.5)))
    assert (made == 120).all()
    assert (colour == round(60 * 255 / 120)).all()
    clipped, _ = split(layers.put_together(NewLayers(image, alpha // 12, real, 0.5)))
    assert (clipped == 255).all()


@pytest.mark.parametrize(("t", "nearest"), [(0.25, 10), (0.5, 10), (0.75, 20)])
def test_transparent_pixels_get_the_colour_of_the_nearest_frame(t, nearest):
    layers = converter()
    real = layers.taken_apart(flat(10, 100)), layers.taken_apart(flat(20, 200))
    nothing = np.zeros((*SIZE, 3), np.uint8)
    colour, alpha = split(layers.put_together(NewLayers(nothing, nothing, real, t)))
    assert (alpha == 0).all()
    assert (colour == nearest).all()


def test_the_channels_of_the_model_are_averaged_and_rounded():
    layers = converter()
    real = layers.taken_apart(flat(10, 50)), layers.taken_apart(flat(10, 200))
    alpha = np.broadcast_to(np.array([100, 101, 103], np.uint8), (*SIZE, 3))
    image = np.zeros((*SIZE, 3), np.uint8)
    assert (split(layers.put_together(NewLayers(image, alpha, real, 0.5)))[1] == 101).all()


@pytest.mark.parametrize(("level", "depth"), [(2, 8), (500, 16)])
@pytest.mark.parametrize("full", [True, False])
def test_noise_of_the_model_does_not_change_alpha_that_stays(level, depth, full):
    layers = converter(depth=depth, fmt="rgba" if depth == 8 else "rgba64le")
    frame = flat(100, 255 if full else 0)
    real = layers.taken_apart(frame), layers.taken_apart(frame)
    dtype, top = (np.uint8, 255) if depth == 8 else (np.uint16, 65535)
    image = np.full((*SIZE, 3), 100 * top // 255 if full else 0, dtype)
    noisy = np.full((*SIZE, 3), top - level if full else level, dtype)
    made = layers.put_together(NewLayers(image, noisy, real, 0.5))
    assert (alpha_of(made) == (255 if full else 0)).all()
    moved = np.full((*SIZE, 3), top // 2, dtype)
    made = layers.put_together(NewLayers(image, moved, real, 0.5))
    assert np.abs(alpha_of(made).astype(int) - 127).max() <= 1


@pytest.mark.parametrize(("fmt", "io"), [("yuva444p", "frames"), ("yuva444p16le", "float")])
@pytest.mark.parametrize("mode", ["interpolate", "blend"])
def test_alpha_is_mixed_at_the_time_of_the_frame(tmp_path, fmt, io, mode):
    source, out = write_noise(tmp_path / "in.mkv", fmt, count=3), tmp_path / "out.mkv"
    vfi = Interpolator(Blend(io=io))
    options = VideoOptions(**LOSSLESS, alpha=mode)
    interpolate_video(source, out, model=vfi, factor=4, options=options)
    real, made = frames_of(source), frames_of(out)
    for number, frame in enumerate(made[:8]):
        one, two = (alpha_of(f).astype(float) for f in real[number // 4 : number // 4 + 2])
        t = number % 4 / 4
        expected = one * (1 - t) + two * t
        assert np.abs(alpha_of(frame) - expected).max() <= (1 if io == "frames" else 1.5)
    if io == "float":
        assert len(np.unique(alpha_of(made[1]))) > 1000  # Not the 256 values of 8 bits.


@pytest.mark.parametrize(
    ("mode", "moves", "passes"),
    [("interpolate", True, 2), ("interpolate", False, 1), ("blend", True, 1)],
)
def test_the_model_runs_for_alpha_that_changes(tmp_path, mode, moves, passes):
    masks = [np.full(SIZE, 100 + 20 * number * moves) for number in range(3)]
    shades = [np.full((*SIZE, 3), 50 * number) for number in range(3)]
    frames = [layered(*pair) for pair in zip(shades, masks, strict=True)]
    source, out, backend = tmp_path / "in.mov", tmp_path / "out.mkv", Blend()
    write(source, frames, "png")
    options = VideoOptions(**LOSSLESS, alpha=mode)
    report = interpolate_video(source, out, model=Interpolator(backend), options=options)
    assert report.frames_new == 2
    assert len(backend.calls) == 2 * passes
    made = [int(alpha_of(frame)[0, 0]) for frame in frames_of(tmp_path / "out.mkv")]
    assert made[:5] == ([100, 110, 120, 130, 140] if moves else [100] * 5)


def test_the_edge_of_an_object_has_no_black_in_its_chroma(tmp_path):
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    masks = [np.where(np.hypot(y - 15, x - 15 - 4 * n) < 11, 255, 0) for n in range(3)]
    orange = np.broadcast_to([240, 120, 20], (*SIZE, 3))
    frames = [layered(orange, mask, "yuva420p") for mask in masks]
    source, out = write(tmp_path / "in.mkv", frames), tmp_path / "out.mkv"
    options = VideoOptions(**LOSSLESS)
    interpolate_video(source, out, model=Interpolator(Blend()), options=options)
    made = frames_of(out)
    assert len(made) == 6
    for frame in made:
        colour = frame.reformat(format="rgb24").to_ndarray().astype(int)
        visible = alpha_of(frame) > 0
        assert visible.any()
        assert np.abs(colour - orange)[visible].max() <= 4


@pytest.mark.parametrize("fmt", ["yuva444p", "gbrap"])
def test_hidden_colours_do_not_change_new_frames(tmp_path, fmt):
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    made = []
    for hidden in (0, 255):
        frames = []
        for n in range(3):
            mask = np.where(np.hypot(y - 15, x - 15 - 4 * n) < 11, 255, 0)
            shade = np.where(mask[..., None] > 0, [240, 120, 20], hidden)
            frames.append(layered(shade, mask, "rgba" if fmt == "gbrap" else fmt))
        codec = {"gbrap": "png", "yuva444p": "ffv1"}[fmt]
        source = write(tmp_path / f"{hidden}.{'mov' if fmt == 'gbrap' else 'mkv'}", frames, codec)
        out = tmp_path / f"{hidden}.out.mkv"
        options = VideoOptions(**LOSSLESS)
        interpolate_video(source, out, model=Interpolator(Blend()), options=options)
        made.append(frames_of(out))
    assert [len(frames) for frames in made] == [6, 6]
    for one, two in zip(*made, strict=True):
        assert np.array_equal(alpha_of(one), alpha_of(two))
        visible = alpha_of(one) > 0
        first, second = (f.reformat(format="rgb24").to_ndarray().astype(int) for f in (one, two))
        assert np.abs(first - second)[visible].max() <= 2


def test_colour_and_alpha_come_back_in_order():
    vfi = Interpolator(Blend(pairs_per_call=3))
    images = [np.full((*SIZE, 3), 10 * n, np.uint8) for n in range(8)]

    def pair(n, *steps):
        return PairRequest(images[n], images[n + 1], steps)

    requests = [
        ("one", pair(0, 0.5), None),
        ("two", None, None),
        ("three", pair(1, 0.5), pair(5, 0.5)),
        ("four", pair(2, 0.25, 0.75), pair(6, 0.25, 0.75)),
        ("five", None, None),
        ("six", pair(3, 0.5), None),
    ]
    found = [
        (tag, [int(i[0, 0, 0]) for i in colour], [int(i[0, 0, 0]) for i in alpha])
        for tag, colour, alpha in with_alpha(vfi, requests)
    ]
    assert found == [
        ("one", [5], []),
        ("two", [], []),
        ("three", [15], [55]),
        ("four", [22, 28], [62, 68]),
        ("five", [], []),
        ("six", [35], []),
    ]
