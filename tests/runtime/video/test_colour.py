"""Conversion to RGB and back has no bias, no shift and no blur.

Tolerances are in 8-bit levels, also for deeper formats.
"""

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from hypothesis import given, settings
from hypothesis import strategies as st

from paths import DATA, WALK
from runtime.errors import VideoError
from runtime.video.colour import (
    ColourConverter,
    frame_from_rgb,
    matrix_of,
    range_of,
    reformatted,
    rgb_from_frame,
    siting_of,
)

LIMITED, FULL = 1, 2
MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}  # Kr, Kb
FORMATS = [
    *("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"),
    *("yuv444p12le", "nv12", "p010le"),
]
BIAS = 0.02
"""Highest mean error."""

BLUR = {"left": 0.08, "center": 0.05, "topleft": 0.05}
"""Highest mean absolute difference. Inverse filters leave almost none; those of swscale give 0.3 or
more. The filter for "left" has no exact inverse."""


def bits_of(frame):
    return frame.format.components[0].bits


def samples_of(frame):
    """The frame's samples by component, in 8-bit levels, as float64 arrays."""
    bits = bits_of(frame)
    dtype = np.uint8 if bits <= 8 else np.uint16
    unit = (1 << (bits - 8)) * (64 if frame.format.name == "p010le" else 1)
    found = []
    for number, plane in enumerate(frame.planes):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        rows = rows.view(dtype).astype(float) / unit
        if frame.format.name in ("nv12", "p010le") and number == 1:
            found += [rows[:, 0 : 2 * plane.width : 2], rows[:, 1 : 2 * plane.width : 2]]
        else:
            found.append(rows[:, : plane.width])
    return found


def fill(frame, samples):
    """Writes samples, in 8-bit levels, rounded to the frame's own."""
    bits = bits_of(frame)
    dtype = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    unit = (1 << (bits - 8)) * (64 if frame.format.name == "p010le" else 1)
    values = [
        (np.rint(s * (1 << (bits - 8))) * (unit >> (bits - 8))).astype(dtype) for s in samples
    ]
    if frame.format.name in ("nv12", "p010le"):
        values = [values[0], np.stack(values[1:], -1).reshape(values[1].shape[0], -1)]
    for plane, value in zip(frame.planes, values, strict=True):
        rows = np.zeros((plane.height, plane.line_size // dtype.itemsize), dtype)
        rows[:, : value.shape[1]] = value
        plane.update(rows.tobytes())
    return frame


def new_frame(name, width=64, height=48, *, matrix=1, limits=LIMITED):
    frame = VideoFrame(width, height, name)
    frame.colorspace, frame.color_range = matrix, limits
    return frame


def chroma_shape(frame):
    form = frame.format
    return form.chroma_height(frame.height), form.chroma_width(frame.width)


def smooth_noise(shape, rng, cells=6):
    """Noise in [-1, 1] with a falling spectrum, as in photographs."""
    out = np.zeros(shape)
    for octave in range(3):
        n = cells * 2**octave
        coarse = rng.uniform(-1, 1, (n, n))
        at = [np.linspace(0, n - 1, size) for size in shape]
        across = np.array([np.interp(at[1], np.arange(n), row) for row in coarse])
        full = np.array([np.interp(at[0], np.arange(n), col) for col in across.T]).T
        out += full / 2**octave
    return out / 1.75


def natural(name, width=192, height=160, *, matrix=1, limits=LIMITED, seed=0):
    """A frame inside the gamut: gray within 90..160, chroma within 128 +- 28."""
    rng = np.random.default_rng(seed)
    frame = new_frame(name, width, height, matrix=matrix, limits=limits)
    luma = 125 + 35 * smooth_noise((height, width), rng, 12)
    shape = chroma_shape(frame)
    return fill(frame, [luma, *(128 + 28 * smooth_noise(shape, rng) for _ in range(2))])


def round_trip(frame, depth=None, siting="left"):
    converter = ColourConverter(siting=siting)
    picture = converter.rgb_from_frame(frame, depth or (8 if bits_of(frame) <= 8 else 16))
    return converter.frame_from_rgb(picture, like=frame)


def errors(frame, made):
    assert (made.format.name, made.width, made.height) == (
        frame.format.name,
        frame.width,
        frame.height,
    )
    pairs = zip(samples_of(frame), samples_of(made), strict=True)
    return [new - old for old, new in pairs]


def exact_rgb(samples, matrix, limits):
    """The formulas of BT.601, 709 and 2020 in float64: one colour -> R, G, B in [0, 1]."""
    kr, kb = MATRICES[matrix]
    y, cb, cr = samples
    if limits == LIMITED:
        y, cb, cr = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
    else:
        y, cb, cr = y / 255, (cb - 128) / 255, (cr - 128) / 255
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    return np.array([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue])


@pytest.mark.parametrize("limits", [LIMITED, FULL])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", FORMATS)
def test_no_bias_in_any_plane(name, matrix, limits):
    frame = natural(name, matrix=matrix, limits=limits)
    for error in errors(frame, round_trip(frame)):
        assert abs(error.mean()) < BIAS
        assert np.abs(error).mean() < BLUR["left"]


@pytest.mark.parametrize("siting", BLUR)
@pytest.mark.parametrize("name", ["yuv420p", "yuvj420p", "yuv422p", "yuv420p10le"])
def test_no_bias_in_any_siting(name, siting):
    frame = natural(name, limits=FULL if name == "yuvj420p" else LIMITED)
    for error in errors(frame, round_trip(frame, siting=siting)):
        assert abs(error.mean()) < BIAS
        assert np.abs(error).mean() < BLUR[siting]


@pytest.mark.parametrize("limits", [LIMITED, FULL])
@pytest.mark.parametrize("name", ["yuv420p10le", "yuv420p12le", "p010le"])
def test_no_bias_of_deep_frames_through_eight_bit(name, limits):
    frame = natural(name, limits=limits)
    for error in errors(frame, round_trip(frame, depth=8)):
        assert abs(error.mean()) < BIAS


@pytest.mark.parametrize("name", ["gray", "gray10le"])
@pytest.mark.parametrize("limits", [LIMITED, FULL])
def test_gray_frames_round_trip(name, limits):
    frame = natural("yuv420p", limits=limits)
    gray = fill(new_frame(name, 192, 160, limits=limits), samples_of(frame)[:1])
    (error,) = errors(gray, round_trip(gray))
    assert np.abs(error).max() == 0
    white = fill(new_frame(name, limits=limits), [np.full((48, 64), 235.0)])
    picture = rgb_from_frame(white, 8)
    shown = 235 if name == "gray" else 235 * 4 * 255 / 1023
    assert picture.min() == picture.max() == (255 if limits == LIMITED else round(shown))
    coloured = reformatted(gray, "yuv420p", gray)
    for number, expected in enumerate([np.rint(samples_of(gray)[0]), 128.0, 128.0]):
        assert np.abs(samples_of(coloured)[number] - expected).max() <= (0 if name == "gray" else 1)


@pytest.mark.parametrize("size", [(63, 47), (97, 33), (161, 121)])
@pytest.mark.parametrize("name", ["yuv420p", "yuv422p10le", "yuv444p", "nv12", "yuvj420p"])
def test_odd_sizes_round_trip(name, size):
    frame = natural(name, *size, limits=FULL if name == "yuvj420p" else LIMITED)
    picture = rgb_from_frame(frame, 8)
    assert picture.shape == (size[1], size[0], 3)
    for error in errors(frame, round_trip(frame)):
        assert abs(error.mean()) < 0.1  # of few samples, a third at an edge
        assert np.abs(error).mean() < 0.15


@settings(max_examples=60, deadline=None)
@given(
    rgb=st.tuples(*[st.integers(4, 251)] * 3),
    matrix=st.sampled_from(sorted(MATRICES)),
    limits=st.sampled_from([LIMITED, FULL]),
    name=st.sampled_from(["yuv420p", "yuv444p", "yuv422p10le", "yuv420p10le"]),
)
def test_one_colour_equals_the_formulas_and_round_trips(rgb, matrix, limits, name):
    kr, kb = MATRICES[matrix]
    red, green, blue = (c / 255 for c in rgb)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    frame = new_frame(name, 16, 16, matrix=matrix, limits=limits)
    deep = bits_of(frame) > 8
    peak = 1023 / 4 if deep else 255
    scale, low, chroma = (219, 16, 224) if limits == LIMITED else (peak, 0, peak)
    values = low + scale * luma, 128 + chroma * cb, 128 + chroma * cr
    shapes = [(16, 16), chroma_shape(frame), chroma_shape(frame)]
    fill(frame, [np.full(s, v) for s, v in zip(shapes, values, strict=True)])
    stored = [plane[0, 0] for plane in samples_of(frame)]
    if limits == FULL:
        stored = [stored[0] * 255 / peak, *((c - 128) * 255 / peak + 128 for c in stored[1:])]
    expected = np.clip(exact_rgb(stored, matrix, limits), 0, 1)
    top = 65535 if deep else 255
    picture = rgb_from_frame(frame, 16 if deep else 8)
    # swscale's coefficients have about 13 bits: an error of one level of 10 bits, even in 16 bits.
    assert np.abs(picture / top - expected).max() <= (1 / 1023 if deep else 0.51 / 255)
    assert (picture == picture[0, 0]).all()
    for error in errors(frame, round_trip(frame)):
        # 8-bit RGB can represent each colour of limited range, but not all of full range.
        assert np.abs(error).max() <= (1 if limits == FULL and not deep else 0)


@pytest.mark.parametrize("limits", [LIMITED, FULL])
@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10le", "yuv444p12le", "p010le"])
def test_black_and_white_round_trip(name, limits):
    for level, shown in ((16 if limits == LIMITED else 0, 0.0), (235, 1.0)):
        frame = new_frame(name, 16, 16, limits=limits)
        bits = bits_of(frame)
        if shown and limits == FULL:
            level = ((1 << bits) - 1) / (1 << (bits - 8))
        shape = chroma_shape(frame)
        fill(frame, [np.full((16, 16), float(level)), np.full(shape, 128.0), np.full(shape, 128.0)])
        assert (rgb_from_frame(frame, 8) == 255 * shown).all()
        assert (rgb_from_frame(frame, 16) == 65535 * shown).all()
        for error in errors(frame, round_trip(frame, depth=16)):
            assert np.abs(error).max() == 0


def test_colours_outside_rgb_are_clipped():
    frame = new_frame("yuv444p", 16, 16)
    fill(frame, [np.full((16, 16), 250.0), np.full((16, 16), 128.0), np.full((16, 16), 128.0)])
    assert (rgb_from_frame(frame, 8) == 255).all()
    assert (rgb_from_frame(frame, 16) == 65535).all()
    assert (samples_of(round_trip(frame))[0] == 235).all()
    deep = fill(new_frame("yuv444p10le", 16, 16), samples_of(frame))
    assert (rgb_from_frame(deep, 16) == 65535).all()


@pytest.mark.parametrize("siting", BLUR)
@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10le", "yuv422p"])
@pytest.mark.parametrize("axis", [0, 1])
def test_chroma_does_not_move(name, siting, axis):
    frame = new_frame(name)
    shape = chroma_shape(frame)
    at = np.arange(shape[axis]) - shape[axis] / 2 + 0.3
    edge = 128 + 30 * np.tanh(at / 1.5)
    chroma = np.broadcast_to(edge[:, None] if axis == 0 else edge, shape)
    fill(frame, [np.full((48, 64), 120.0), chroma, 256 - chroma])
    for old, new in list(
        zip(samples_of(frame), samples_of(round_trip(frame, siting=siting)), strict=True)
    )[1:]:
        centres = []
        for plane in (old, new):
            slope = np.abs(np.diff(plane.mean(1 - axis)))[2:-2]
            centres.append((slope * np.arange(len(slope))).sum() / slope.sum())
        assert abs(centres[0] - centres[1]) * 2 < 0.05  # in pixels of luma
        assert np.abs(new - old).max() < 1.5


@pytest.mark.parametrize(
    ("siting", "shift"), [("left", (0.5, 0)), ("center", (0.5, 0.5)), ("topleft", (0, 0))]
)
def test_chroma_is_sampled_at_its_siting(siting, shift):
    frame = new_frame("yuv420p10le")
    rows, columns = np.mgrid[:24, :32]
    chroma = [
        np.full((24, 32), 128.0) + 2 * (rows - 12),
        np.full((24, 32), 128.0) + 2 * (columns - 16),
    ]
    fill(frame, [np.full((48, 64), 120.0), *chroma])
    picture = ColourConverter(siting=siting).rgb_from_frame(frame, 16) / 65535
    rows, columns = np.mgrid[:48, :64]
    blue = (picture[..., 2] - (120 - 16) / 219) * 224 / 1.8556
    red = (picture[..., 0] - (120 - 16) / 219) * 224 / 1.5748
    inside = slice(6, -6)
    assert np.abs(blue - ((rows - shift[0]) - 24))[inside, inside].max() < 0.1
    assert np.abs(red - ((columns - shift[1]) - 32))[inside, inside].max() < 0.1


@pytest.mark.parametrize("name", ["rgb24", "bgr24", "gbrp", "bgra", "rgba", "rgb48le"])
def test_rgb_is_exact(name):
    source = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    if name.startswith("rgb48"):
        frame = VideoFrame.from_ndarray(source.astype(np.uint16) * 257, format=name)
    else:
        frame = VideoFrame.from_ndarray(source, format="rgb24").reformat(format=name)
    np.testing.assert_array_equal(rgb_from_frame(frame, 8), source)
    picture = rgb_from_frame(frame, 8 if bits_of(frame) == 8 else 16)
    made = frame_from_rgb(picture, like=frame)
    for old, new in zip(frame.planes, made.planes, strict=True):
        assert bytes(old) == bytes(new)


def test_deep_planar_rgb_has_no_bias():
    rng = np.random.default_rng(4)
    planes = [rng.uniform(0, 255, (48, 64)) for _ in range(3)]
    frame = fill(VideoFrame(64, 48, "gbrp10le"), planes)
    for error in errors(frame, round_trip(frame)):
        assert np.abs(error).max() <= 0.25  # one step of the format
        assert abs(error.mean()) < 2 * BIAS


def test_a_palette_is_converted():
    palette = np.random.default_rng(2).integers(0, 256, (256, 4), np.uint8)
    palette[:, 0] = 255  # alpha
    index = np.random.default_rng(3).integers(0, 256, (48, 64), np.uint8)
    frame = VideoFrame.from_ndarray((index, palette), format="pal8")
    np.testing.assert_array_equal(rgb_from_frame(frame, 8), palette[index][..., 1:])


def test_rgb_is_written_as_limited_yuv_of_its_matrix():
    source = np.full((48, 64, 3), 255, np.uint8)
    frame = VideoFrame.from_ndarray(source, format="rgb24")
    made = reformatted(frame, "yuv420p", frame)
    assert [plane.max() for plane in samples_of(made)] == [235, 128, 128]
    assert (made.colorspace, made.color_range) == (5, ColorRange.MPEG)


def test_other_subsampling_keeps_luma_and_does_not_move_chroma():
    frame = natural("yuv420p")
    wide = reformatted(frame, "yuv444p", frame)
    back = reformatted(wide, "yuv420p", frame)
    luma, *chroma = errors(frame, back)
    assert np.abs(luma).max() == 0
    assert all(np.abs(error).mean() < 0.1 for error in chroma)


def test_inputs_are_not_changed_and_tags_are_copied():
    frame = natural("yuv420p10le", matrix=9)
    frame.color_trc, frame.color_primaries = 16, 9
    before = [bytes(plane) for plane in frame.planes]
    picture = rgb_from_frame(frame, 16)
    copy = picture.copy()
    made = frame_from_rgb(picture, like=frame)
    np.testing.assert_array_equal(picture, copy)
    assert [bytes(plane) for plane in frame.planes] == before
    tags = "colorspace", "color_range", "color_primaries", "color_trc"
    assert [getattr(made, tag) for tag in tags] == [getattr(frame, tag) for tag in tags]
    assert frame.colorspace == 9
    assert frame.color_range == LIMITED


def test_a_converter_follows_changes_of_size_format_and_tags():
    converter = ColourConverter()
    for frame in (natural("yuv420p"), natural("yuv444p10le", 64, 64), natural("yuv420p", matrix=5)):
        picture = converter.rgb_from_frame(frame, 8)
        np.testing.assert_array_equal(picture, rgb_from_frame(frame, 8))
        made = converter.frame_from_rgb(picture, like=frame)
        assert all(abs(error.mean()) < BIAS for error in errors(frame, made))


def test_results_do_not_change_with_later_calls():
    converter = ColourConverter()
    frame0, frame1 = natural("yuv420p"), natural("yuv420p", seed=1)
    picture = converter.rgb_from_frame(frame0, 8)
    copy = picture.copy()
    made = converter.frame_from_rgb(picture, like=frame0)
    planes = [bytes(plane) for plane in made.planes]
    converter.frame_from_rgb(converter.rgb_from_frame(frame1, 8), like=frame1)
    np.testing.assert_array_equal(picture, copy)
    assert [bytes(plane) for plane in made.planes] == planes


@pytest.mark.parametrize(
    ("number", "name"), [(8, "YCgCo"), (10, "constant luminance"), (14, "ICtCp"), (99, "number 99")]
)
def test_a_matrix_that_cannot_be_converted_is_refused_by_name(number, name):
    frame = new_frame("yuv420p", matrix=number)
    with pytest.raises(VideoError, match=name):
        rgb_from_frame(frame, 8)
    with pytest.raises(VideoError, match=name):
        frame_from_rgb(np.zeros((48, 64, 3), np.uint8), like=frame)


@pytest.mark.parametrize("name", ["gbrap", "gbrap10le", "gbrap12le", "gbrap16le"])
@pytest.mark.parametrize("depth", [8, 16])
def test_planar_rgb_with_alpha_equals_that_without(name, depth):
    """FFmpeg's swscale loses half of the last row when it converts gbrap16le."""
    without = natural(name.replace("gbrap", "gbrp"))
    frame = VideoFrame(without.width, without.height, name)
    for target, plane in zip(frame.planes, without.planes, strict=False):
        rows = memoryview(bytes(plane)).cast("B", (plane.height, plane.line_size)).tolist()
        padding = bytes(target.line_size - plane.line_size)
        target.update(b"".join(bytes(row) + padding for row in rows))
    np.testing.assert_array_equal(rgb_from_frame(frame, depth), rgb_from_frame(without, depth))


def test_an_invalid_siting_is_refused():
    with pytest.raises(VideoError, match="left, center, topleft"):
        ColourConverter(siting="centre")


def test_defaults_of_matrix_and_range():
    assert matrix_of(new_frame("yuv420p", matrix=2)) == 5
    assert matrix_of(new_frame("yuv420p", 32, 720, matrix=2)) == 1
    assert matrix_of(new_frame("yuv420p", matrix=6)) == 5
    assert range_of(new_frame("yuv420p", limits=0)) == ColorRange.MPEG
    assert range_of(new_frame("yuvj420p", limits=0)) == ColorRange.JPEG


def coded(path, codec, pix_fmt, **options):
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        for k in range(2):
            frame = VideoFrame(64, 48, pix_fmt)
            frame.pts = k
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with av.open(str(path)) as clip:
        return next(clip.decode(video=0))


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (64, 48)])
def test_reading_the_siting_does_not_change_the_frame(size):
    frame = natural("yuv420p", *size)
    before = [bytes(plane) for plane in frame.planes]
    assert siting_of(frame) == "left"
    assert [bytes(plane) for plane in frame.planes] == before


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "said", "siting"),
    [
        ("libx264", "yuv420p", {}, "left"),
        ("libx264", "yuvj420p", {}, "left"),
        ("libx264", "yuv420p", {"chroma_sample_location": "topleft"}, "topleft"),
        ("mpeg2video", "yuv420p", {}, "left"),
        ("libvpx-vp9", "yuv420p", {}, "left"),  # states no siting
        ("mjpeg", "yuvj420p", {}, "center"),
    ],
)
def test_siting_of_decoded_frames(tmp_path, codec, pix_fmt, said, siting):
    assert siting_of(coded(tmp_path / "clip.mkv", codec, pix_fmt, **said)) == siting


@pytest.mark.parametrize(
    "path", [WALK, DATA / "bear-vp9-odd-dimensions.webm"], ids=lambda path: path.stem
)
def test_a_still_clip_does_not_flicker(path):
    with av.open(str(path)) as clip:
        frame = next(clip.decode(video=0))
    converter = ColourConverter()
    picture = converter.rgb_from_frame(frame, 8)
    made = converter.frame_from_rgb(picture, like=frame)
    held = ((picture > 0) & (picture < 255)).all(-1)  # colours outside of the gamut are clipped
    for error in errors(frame, made):
        rows, columns = (-(-n // m) for n, m in zip(held.shape, error.shape, strict=True))
        inside = held[::rows, ::columns][: error.shape[0], : error.shape[1]]
        assert abs(error[inside].mean()) < 0.05
        assert np.abs(error[inside]).mean() < 0.15
