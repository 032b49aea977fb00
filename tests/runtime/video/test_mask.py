"""Static masks: files, samples of each pixel format, and whole videos."""

import pickle
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from alpha_clips import SIZE, alpha_of, colours, frames_of, noise, samples, write, write_pngs
from blend import Blend
from runtime import Interpolator, VideoError, interpolate_video
from runtime.__main__ import make_parser
from runtime.video.arguments import options_from
from runtime.video.interpolate import plan_video
from runtime.video.mask import Mask, MaskedFrames, check_mask
from runtime.video.options import VideoOptions

HEIGHT, WIDTH = SIZE
ROWS, COLUMNS = slice(8, 20), slice(24, 60)
FORMATS = {
    "yuv420p": [(1, 1), (2, 0.5), (2, 0.5)],
    "yuv422p10le": [(1, 2), (1, 1), (1, 1)],
    "yuv444p12be": [(1, 2), (1, 2), (1, 2)],
    "yuv411p": [(1, 1), (1, 0.25), (1, 0.25)],
    "yuv410p": [(1, 1), (4, 0.25), (4, 0.25)],
    "yuvj420p": [(1, 1), (2, 0.5), (2, 0.5)],
    "nv12": [(1, 1), (2, 1)],
    "p010le": [(1, 2), (2, 2)],
    "yuyv422": [(1, 2)],
    "uyvy422": [(1, 2)],
    "gray": [(1, 1)],
    "gray16be": [(1, 2)],
    "rgb24": [(1, 3)],
    "bgr0": [(1, 4)],
    "rgb48be": [(1, 6)],
    "gbrp10le": [(1, 2), (1, 2), (1, 2)],
    "ya8": [(1, 2)],
    "bgra": [(1, 4)],
    "argb": [(1, 4)],
    "rgba64be": [(1, 8)],
    "yuva420p": [(1, 1), (2, 0.5), (2, 0.5), (1, 1)],
    "yuva444p10le": [(1, 2), (1, 2), (1, 2), (1, 2)],
    "gbrap12le": [(1, 2), (1, 2), (1, 2), (1, 2)],
}
"""Pixel format -> for each plane the rows of the picture in one of it, and the bytes of a pixel."""


def rectangle(value=255):
    weights = np.zeros(SIZE, np.uint8)
    weights[ROWS, COLUMNS] = value
    return weights


def plane_rows(frame, number):
    plane = frame.planes[number]
    rows = np.frombuffer(memoryview(plane), np.uint8)
    return rows.reshape(-1, plane.line_size).astype(int)


def covered(weights, new, real, rotation=0):
    MaskedFrames(Mask(weights), rotation).cover(new, real)
    return new


def gray_frame(image, fmt="gray"):
    return VideoFrame.from_ndarray(image, format=fmt)


def write_png(folder, frame):
    return write_pngs(folder, [frame]) / "000.png"


@pytest.fixture
def vfi():
    with Interpolator(Blend()) as opened:
        yield opened


@pytest.mark.parametrize("name", FORMATS)
def test_under_white_all_samples_are_those_of_the_real_frame(name):
    new, kept, real = noise(name, 1), noise(name, 1), noise(name, 2)
    covered(rectangle(), new, real)
    for number, (rows, width) in enumerate(FORMATS[name]):
        wanted = plane_rows(kept, number)
        box = (
            slice(ROWS.start // rows, ROWS.stop // rows),
            slice(int(COLUMNS.start * width), int(COLUMNS.stop * width)),
        )
        wanted[box] = plane_rows(real, number)[box]
        used = int(WIDTH * width)
        assert np.array_equal(plane_rows(new, number)[:, :used], wanted[:, :used])


@pytest.mark.parametrize("size", [(48, 64), (33, 47)])
@pytest.mark.parametrize("fmt", ["yuv420p", "yuv420p10le"])
def test_gray_mixes_and_chroma_has_the_mean_of_its_block(fmt, size):
    weights = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    new, kept, real = (noise(fmt, seed, size) for seed in (1, 1, 2))
    covered(weights, new, real)
    height, width = size
    share = weights / 255
    padded = np.pad(share, ((0, height % 2), (0, width % 2)), "edge")
    block = padded.reshape((height + 1) // 2, 2, (width + 1) // 2, 2).mean((1, 3))
    for found, below, above, at in zip(
        colours(new), colours(kept), colours(real), (share, block, block), strict=True
    ):
        wanted = below * (1 - at) + above * at
        assert np.abs(found - wanted).max() <= 0.52
    assert not np.array_equal(colours(new)[1], colours(kept)[1])


def test_under_gray_colour_is_weighted_by_alpha():
    new, real = (VideoFrame(WIDTH, HEIGHT, "rgba") for _ in range(2))
    for frame, pixel in ((new, (200, 100, 50, 255)), (real, (0, 0, 0, 0))):
        frame.planes[0].update(np.tile(np.array(pixel, np.uint8), (HEIGHT, WIDTH, 1)).tobytes())
    covered(rectangle(51), new, real)
    # The colour of the real frame is not seen: only the alpha of the new one changes.
    assert samples(new)[0].reshape(HEIGHT, WIDTH, 4)[10, 30].tolist() == [200, 100, 50, 204]
    assert samples(new)[0].reshape(HEIGHT, WIDTH, 4)[0, 0].tolist() == [200, 100, 50, 255]


def test_a_real_frame_of_another_format_is_converted():
    grey, white = (
        np.full((HEIGHT, WIDTH, 3), 90, np.uint8),
        np.full((HEIGHT, WIDTH, 3), 255, np.uint8),
    )
    real = VideoFrame.from_ndarray(white, format="rgb24")
    new = VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="yuv444p")
    covered(rectangle(), new, real)
    assert colours(new)[0][10, 30] == 235
    transparent = noise("yuva420p", 0)
    covered(rectangle(), transparent, real)
    assert (alpha_of(transparent)[ROWS, COLUMNS] == 255).all()


@pytest.mark.parametrize("rotation", [0, 90, -90, 180, 270])
def test_a_mask_is_turned_to_the_frames_as_they_are_stored(rotation):
    new, kept, real = (noise("gray", seed) for seed in (1, 1, 2))
    shown = np.rot90(rectangle(), rotation // 90)
    covered(shown, new, real, rotation)
    wanted = colours(kept)[0].copy()
    wanted[ROWS, COLUMNS] = colours(real)[0][ROWS, COLUMNS]
    assert np.array_equal(colours(new)[0], wanted)


def test_files_and_arrays_of_the_same_weights_are_equal(tmp_path):
    weights = np.random.default_rng(1).integers(0, 256, SIZE, np.uint8)
    colour = np.repeat(weights[..., None], 3, 2)
    images = {
        "gray": gray_frame(weights),
        "deep": gray_frame(weights.astype(np.uint16) * 257, "gray16be"),
        "rgb": VideoFrame.from_ndarray(colour, format="rgb24"),
        "opaque": VideoFrame.from_ndarray(
            np.dstack([colour, np.full(SIZE, 255, np.uint8)]), format="rgba"
        ),
        "overlay": VideoFrame.from_ndarray(
            np.dstack([np.zeros_like(colour), weights]), format="rgba"
        ),
    }
    masks = [Mask(write_png(tmp_path / name, image)) for name, image in images.items()]
    masks += [Mask(weights), pickle.loads(pickle.dumps(Mask(weights)))]
    for mask in masks:
        assert np.array_equal(mask.weights, weights)
    assert len(set(masks)) == len({repr(mask) for mask in masks}) == 1
    other = weights.copy()
    other[0, 0] ^= 1
    assert Mask(other) != masks[0]
    assert repr(Mask(other)) != repr(masks[0])
    assert np.array_equal(Mask(rectangle() > 0).weights, rectangle())


def test_the_brightness_of_colours_and_of_jpeg(tmp_path):
    image = np.zeros((*SIZE, 3), np.uint8)
    image[..., 1] = 255
    assert (
        Mask(write_png(tmp_path / "a", VideoFrame.from_ndarray(image, format="rgb24"))).weights
        == 85
    ).all()
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuvj444p"
    context.time_base = Fraction(1, 25)
    white = VideoFrame.from_ndarray(np.full((*SIZE, 3), 255, np.uint8), format="rgb24")
    packets = [*context.encode(white.reformat(format="yuvj444p")), *context.encode(None)]
    (tmp_path / "m.jpg").write_bytes(b"".join(map(bytes, packets)))
    assert (Mask(tmp_path / "m.jpg").weights == 255).all()


def test_what_is_no_mask_is_refused(tmp_path):
    (tmp_path / "m.png").write_text("no image")
    for given, message in (
        (tmp_path / "m.png", r"m.png cannot be read as a mask \(.*\): give a PNG or JPEG image"),
        (tmp_path / "none.png", r"none.png cannot be read as a mask \(No such file.*\)"),
        (tmp_path, r"cannot be read as a mask \(Is a directory\)"),
        (write_png(tmp_path / "black", gray_frame(np.zeros(SIZE, np.uint8))),
         "000.png covers no pixel: paint white where real frames are to be shown"),
        (np.zeros(SIZE, bool), "mask covers no pixel"),
        (np.ones((*SIZE, 3), np.uint8), r"mask is an array \(48, 64, 3\) of uint8: give \(H, W\)"),
        (np.ones(SIZE, np.float32), r"mask is an array \(48, 64\) of float32: give \(H, W\)"),
        (5, r"mask is an int: give an image file, or an array \(H, W\)"),
    ):  # fmt: skip
        with pytest.raises(VideoError, match=message):
            VideoOptions(mask=given)


def lossless(**options):
    return VideoOptions(codec="ffv1", lossless=True, overwrite=True, **options)


@pytest.mark.parametrize("fmt", ["yuv420p", "yuva420p", "gbrp10le"])
def test_new_frames_show_the_nearest_real_frame_under_the_mask(tmp_path, vfi, fmt):
    source = write(tmp_path / "in.mkv", [noise(fmt, seed) for seed in range(3)])
    results = []
    for name, mask in (("plain.mkv", None), ("masked.mkv", rectangle())):
        options = lossless(mask=mask, cuts=None)
        interpolate_video(source, tmp_path / name, model=vfi, factor=4, options=options)
        results.append([samples(frame) for frame in frames_of(tmp_path / name)])
    real = [samples(frame) for frame in frames_of(source)]
    for number, (plain, masked) in enumerate(zip(*results, strict=True)):
        # Of three new frames, the one in the middle shows the frame before it.
        nearest = real[min((number + 1) // 4, 2)]
        for before, after, wanted in zip(plain, masked, nearest, strict=True):
            rows, width = HEIGHT // len(wanted), wanted.shape[1] / WIDTH
            box = (
                slice(ROWS.start // rows, ROWS.stop // rows),
                slice(int(COLUMNS.start * width), int(COLUMNS.stop * width)),
            )
            assert np.array_equal(after[box], wanted[box])
            outside = np.ones(wanted.shape, bool)
            outside[box] = False
            assert np.array_equal(after[outside], before[outside])
            if number % 4 and number < 8:
                assert not np.array_equal(before[box], wanted[box])


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_rotation"), reason="PyAV 18 only")
def test_the_mask_of_a_rotated_video_is_that_of_its_picture(tmp_path, vfi):
    source = write(
        tmp_path / "in.mp4", [noise("yuv420p", n) for n in range(2)], "libx264", rotation=90
    )
    options = lossless(mask=np.ascontiguousarray(np.rot90(rectangle())), cuts=None)
    interpolate_video(source, tmp_path / "out.mkv", model=vfi, options=options)
    made, real = frames_of(tmp_path / "out.mkv"), frames_of(source)
    assert np.array_equal(samples(made[1])[0][ROWS, COLUMNS], samples(real[0])[0][ROWS, COLUMNS])
    with pytest.raises(VideoError, match=r"mask is 64x48 and .*in\.mp4 is shown at 48x64"):
        plan_video(source, tmp_path / "out.mkv", options=lossless(mask=rectangle()))


def test_mixed_frames_at_a_cut_are_masked_too(tmp_path, vfi):
    source = write(tmp_path / "in.mkv", [noise("yuv420p", seed) for seed in range(3)])
    options = lossless(mask=rectangle(), cut_list=[Fraction(1, 25)], cut_policy="blend")
    interpolate_video(source, tmp_path / "out.mkv", model=vfi, options=options)
    made, real = frames_of(tmp_path / "out.mkv"), frames_of(source)
    assert np.array_equal(samples(made[1])[0][ROWS, COLUMNS], samples(real[0])[0][ROWS, COLUMNS])
    assert not np.array_equal(samples(made[1])[0], samples(real[0])[0])


def test_a_mask_of_another_size_is_refused_before_the_model_is_opened(tmp_path):
    source = write(tmp_path / "in.mkv", [noise("yuv420p", seed) for seed in range(3)])
    mask = write_png(tmp_path / "mask", gray_frame(np.full((48, 62), 255, np.uint8)))
    message = r"000\.png is 62x48 and .*in\.mkv is shown at 64x48: give a mask of that size"
    for call, more in (
        (plan_video, {}),
        (interpolate_video, {"model": tmp_path / "none.onnx"}),
    ):
        with pytest.raises(VideoError, match=message):
            call(source, tmp_path / "out.mkv", options=VideoOptions(mask=mask), **more)


@pytest.mark.parametrize("fmt", ["x2rgb10le", "gbrpf32le"])
def test_a_format_whose_samples_cannot_be_mixed_is_refused(fmt):
    info = SimpleNamespace(pixel_format=fmt, name="in.mkv", rotation=0, height=HEIGHT, width=WIDTH)
    with pytest.raises(VideoError, match=f"frames of the pixel format {fmt} cannot be mixed"):
        check_mask(Mask(rectangle()), info)
    frames = VideoFrame(WIDTH, HEIGHT, fmt), VideoFrame(WIDTH, HEIGHT, fmt)
    with pytest.raises(VideoError, match=f"frames of the pixel format {fmt} cannot be mixed"):
        covered(rectangle(), *frames)


def test_the_option_of_the_command(tmp_path):
    mask = write_png(tmp_path / "mask", gray_frame(rectangle()))
    args = make_parser().parse_args(["in.mkv", "out.mkv", "--mask", str(mask)])
    assert options_from(args).mask == Mask(rectangle())
