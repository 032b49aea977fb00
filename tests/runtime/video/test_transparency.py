"""Alpha channels are removed and added without a change of any sample, in every pixel format."""

import av
import numpy as np
import pytest
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from alpha_clips import colours, layered, noise, samples
from runtime.video.planes import alpha_of, has_alpha, is_transparent, set_alpha, without_palette
from runtime.video.transparency import AlphaConverter, without_alpha

WITH_ALPHA = [name for name in sorted(av.video.format.names) if has_alpha(name)]
FLOATS = ("f16", "f32")
UNUSED = ("gbrap32", "rgba128")  # 32-bit integers, which no decoder outputs.
INTEGERS = [
    name
    for name in WITH_ALPHA
    if not name.startswith(UNUSED) and not any(kind in name for kind in FLOATS)
]
CONVERTED = [name for name in WITH_ALPHA if not name.startswith((*UNUSED, "yaf32", "rgbaf32"))]


def test_every_format_with_alpha_has_an_opaque_format():
    assert len(WITH_ALPHA) > 40
    for name in WITH_ALPHA:
        other = without_alpha(name)
        assert not has_alpha(other), name
        if name.startswith(UNUSED):
            continue  # They become 16-bit.
        before, after = VideoFormat(name, 64, 64), VideoFormat(other, 64, 64)
        assert len(after.components) == len(before.components) - 1, name
        assert before.is_rgb == after.is_rgb, name
        for one, two in zip(after.components, before.components[:-1], strict=True):
            assert (one.bits, one.width, one.height) == (two.bits, two.width, two.height), name


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("size", [(48, 64), (35, 51)])
def test_colour_and_alpha_make_the_same_frame_again(name, size):
    frame, converter = noise(name, 0, size), AlphaConverter()
    plain = converter.without_alpha(frame)
    assert plain.format.name == without_alpha(name)
    assert converter.without_alpha(plain) is plain
    bits = frame.format.components[-1].bits
    again = converter.with_alpha(plain, alpha_of(frame, bits), bits, name)
    assert again.format.name == name
    assert all(map(np.array_equal, samples(again), samples(frame)))


@pytest.mark.parametrize(
    "name",
    ["yuva420p", "yuva422p12le", "yuva444p16le", "bgra", "gbrap10le", "gbrap16le", "ya8"],
)
@pytest.mark.parametrize("size", [(48, 64), (35, 51)])
def test_colour_samples_are_not_changed(name, size):
    before = noise(name, 0, size)
    after = AlphaConverter().without_alpha(before)
    assert all(map(np.array_equal, colours(before), colours(after)))


@pytest.mark.parametrize("name", CONVERTED)
def test_alpha_is_where_ffmpeg_expects_it(name):
    frame = VideoFrame(48, 32, name)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    alpha = np.random.default_rng(0).integers(0, 256, (32, 48), np.uint8)
    set_alpha(frame, alpha, 8)
    assert np.array_equal(alpha_of(frame, 8), alpha)
    read = frame.reformat(format="rgba64le").to_ndarray()[..., 3] / 65535
    assert np.abs(read - alpha / 255).max() < 0.006


@pytest.mark.parametrize(("bits", "name"), [(8, "rgba"), (10, "yuva420p10le"), (16, "rgba64le")])
def test_alpha_keeps_its_value_at_other_depths(bits, name):
    frame = VideoFrame(32, 32, name)
    alpha = np.linspace(0, (1 << bits) - 1, 1024).astype(np.uint16).reshape(32, 32)
    alpha = alpha.astype(np.uint8) if bits == 8 else alpha
    set_alpha(frame, alpha, bits)
    for depth in (8, 10, 16):
        exact = alpha / ((1 << bits) - 1) * ((1 << depth) - 1)
        assert np.abs(alpha_of(frame, depth) - exact).max() <= 0.5


@pytest.mark.parametrize("name", ["yuva420p", "yuva444p10le", "gbrap12le", "rgba64be", "ya8"])
def test_other_formats_get_the_alpha_of_the_frame(name):
    y, x = np.mgrid[:35, :51]
    frame = layered(np.full((35, 51, 3), 200), (3 * x + y).astype(np.uint8))
    fitted = AlphaConverter().fitted(frame, name)
    assert fitted.format.name == name
    assert np.array_equal(alpha_of(fitted, 8), alpha_of(frame, 8))
    plain = AlphaConverter().fitted(frame.reformat(format="rgb24"), name)
    assert (alpha_of(plain, 16) == 65535).all()


def test_a_palette_keeps_its_colours_and_their_alpha():
    frame = noise("pal8", 0)
    colourful = without_palette(frame)
    assert colourful.format.name == "bgra"
    palette = np.frombuffer(frame.planes[1], np.uint8).reshape(256, 4)
    pixels = np.frombuffer(colourful.planes[0], np.uint8).reshape(48, 64, 4)
    numbers = np.frombuffer(frame.planes[0], np.uint8).reshape(48, 64)
    assert np.array_equal(pixels, palette[numbers])
    assert np.array_equal(alpha_of(frame, 8), palette[numbers, 3])


def test_only_a_palette_with_a_colour_that_is_not_opaque_is_transparent():
    frame = noise("pal8", 0)
    assert is_transparent(frame)
    palette = np.frombuffer(frame.planes[1], np.uint8).reshape(256, 4).copy()
    palette[:, 3] = 255
    frame.planes[1].update(palette.tobytes())
    assert not is_transparent(frame)
    assert is_transparent(noise("ya8", 0))
    assert not is_transparent(noise("gray", 0))
