"""Animated GIF, APNG and WebP: durations, repetition, colours and alpha, read from the bytes."""

import io
import itertools
import re
import struct
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest

import alpha_clips
from blend import Blend
from runtime import Interpolator, VideoError, VideoOptions, interpolate_video
from runtime.video.interpolate import plan_video
from runtime.video.segments.resume import interpolate_video_resumable
from video_clips import frames_of, write

KINDS = [".gif", ".apng", ".webp"]
STAMPS = [0, 40, 120, 160, 360]
"""Times of frames, in milliseconds; their halves are whole ticks of every format."""


@pytest.fixture
def mean():
    return Interpolator(Blend())


def png_chunks(data):
    at = 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        end = at + 8 + size
        assert zlib.crc32(data[at + 4 : end]) == int.from_bytes(data[end : end + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : end]
        at = end + 4


def webp_chunks(data, at=12):
    while at < len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def durations(path):
    """Durations of the frames in seconds, as the file stores them."""
    data = path.read_bytes()
    if path.suffix == ".gif":
        found = re.findall(rb"\x21\xf9\x04.(..).\x00\x2c", data, re.DOTALL)
        return [Fraction(*struct.unpack("<H", delay), 100) for delay in found]
    if path.suffix == ".apng":
        found = [content for name, content in png_chunks(data) if name == b"fcTL"]
        return [Fraction(*struct.unpack(">HH", content[20:24])) for content in found]
    found = [content for name, content in webp_chunks(data) if name == b"ANMF"]
    return [Fraction(int.from_bytes(content[12:15], "little"), 1000) for content in found]


def repetitions(path):
    """How often the file is played; 0 is without end."""
    data = path.read_bytes()
    if path.suffix == ".gif":
        (count,) = re.findall(rb"\x21\xff\x0bNETSCAPE2\.0\x03\x01(..)\x00", data, re.DOTALL)
        return int.from_bytes(count, "little")
    if path.suffix == ".apng":
        frames, plays = struct.unpack(">II", dict(png_chunks(data))[b"acTL"])
        assert frames == len(durations(path))
        return plays
    return int.from_bytes(dict(webp_chunks(data))[b"ANIM"][4:6], "little")


def webp_frames(path):
    """The frames (H, W, 4) of an animated WebP.

    FFmpeg decodes still images only, so each frame is decoded as one, and put onto the canvas.
    """
    data = path.read_bytes()
    size = [1 + int.from_bytes(data[at : at + 3], "little") for at in (27, 24)]
    canvas, shown = np.zeros((*size, 4), np.uint8), []
    for name, content in webp_chunks(data):
        if name != b"ANMF":
            continue
        x, y = (2 * int.from_bytes(content[at : at + 3], "little") for at in (0, 3))
        width, height = (1 + int.from_bytes(content[at : at + 3], "little") for at in (6, 9))
        parts = content[16:]
        if parts[:4] == b"ALPH":
            sides = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
            parts = b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + sides + parts
        still = b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WEBP" + parts
        with av.open(io.BytesIO(still), format="webp_pipe") as image:
            pixels = next(image.decode(video=0)).to_ndarray(format="rgba")
        place = canvas[y : y + height, x : x + width]
        blended = content[15] & 2 == 0
        kept = (pixels[..., 3:] == 0) & blended
        place[:] = np.where(kept, place, pixels)
        shown.append(canvas.copy())
        if content[15] & 1:
            place[:] = 0
    return shown


def pixels_of(path):
    """The frames (H, W, 4), RGBA."""
    if path.suffix == ".webp":
        return webp_frames(path)
    with av.open(str(path)) as clip:
        return [frame.to_ndarray(format="rgba") for frame in clip.decode(video=0)]


def psnr(one, other):
    error = np.mean((one[..., :3].astype(float) - other[..., :3]) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


@pytest.mark.parametrize("suffix", KINDS)
def test_times_of_a_variable_rate_are_exact_and_the_animation_repeats(tmp_path, mean, suffix):
    source = write(tmp_path / "in.mp4", 5, stamps=STAMPS)
    out = tmp_path / f"out{suffix}"
    report = interpolate_video(source, out, model=mean)
    real = [b - a for a, b in itertools.pairwise(STAMPS)]
    found = durations(out)
    assert found[:8] == [Fraction(gap, 2000) for gap in real for _ in range(2)]
    assert report.frames_out == 10
    # The last frame is shown twice, which WebP stores once.
    assert len(found) == len(pixels_of(out)) == (9 if suffix == ".webp" else 10)
    assert repetitions(out) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", out.name]


@pytest.mark.parametrize(("suffix", "tick"), [(".gif", 0.01), (".apng", 2e-5), (".webp", 0.001)])
def test_the_last_frame_has_its_own_duration(tmp_path, mean, suffix, tick):
    held = {"final_delay": "400"}
    source = write(tmp_path / "in.gif", 4, codec="gif", fmt="rgb8", container_options=held)
    out = tmp_path / f"out{suffix}"
    # The last frame is shown twice, from 0.12 s and from 2.12 s; the part ends during the second.
    end = 3.3456789
    interpolate_video(source, out, model=mean, options=VideoOptions(end=end))
    assert abs(float(sum(durations(out))) - end) <= tick / 2
    if suffix != ".webp":
        assert abs(float(durations(out)[-1]) - (end - 2.12)) <= tick / 2


def test_frames_within_a_tick_of_gif_last_a_tick_each(tmp_path, mean):
    source = write(tmp_path / "in.mp4", 5, stamps=[0, 40, 43, 80, 120])
    interpolate_video(source, tmp_path / "out.gif", model=mean)
    assert [100 * delay for delay in durations(tmp_path / "out.gif")[:8]] == [
        2,
        2,
        1,
        1,
        1,
        1,
        2,
        2,
    ]


@pytest.mark.parametrize("rate", ["30", "60000/1001"])
def test_rounded_durations_do_not_add_up_to_an_error(tmp_path, mean, rate):
    source = write(tmp_path / "in.mp4", 9)
    out = tmp_path / "out.gif"
    report = interpolate_video(source, out, model=mean, rate=rate)
    total, step = Fraction(0), 1 / Fraction(rate)
    found = durations(out)
    assert len(found) == report.frames_out == (11 if rate == "30" else 22)
    for number, duration in enumerate(found, 1):
        total += duration
        assert abs(total - number * step) <= Fraction(1, 200)
    slow = [note for note in report.notes if "10 ms" in note]
    assert bool(slow) == (rate != "30")


def test_ntsc_rates_are_exact_in_apng(tmp_path, mean):
    source = write(tmp_path / "in.mkv", 3, rate=Fraction(24000, 1001))
    interpolate_video(source, tmp_path / "out.apng", model=mean)
    assert set(durations(tmp_path / "out.apng")) == {Fraction(1001, 48000)}


def test_a_pause_longer_than_a_gif_delay_is_kept(tmp_path, mean):
    source = write(tmp_path / "in.mp4", 3, stamps=[0, 40, 2_000_040])
    interpolate_video(source, tmp_path / "out.gif", model=mean)
    found = durations(tmp_path / "out.gif")
    assert sum(found[:-2]) == Fraction(2_000_040, 1000)
    assert max(found) <= Fraction(0xFFFF, 100)


@pytest.mark.parametrize(("suffix", "rate"), [(".gif", 101), (".webp", 1001)])
def test_rates_that_the_format_cannot_hold_are_refused(tmp_path, suffix, rate):
    source = write(tmp_path / "in.mp4", 3)
    for run in (plan_video, interpolate_video):
        with pytest.raises(VideoError, match=rf"at most, and the rate is {rate}: .*\.apng"):
            run(source, tmp_path / f"out{suffix}", rate=rate)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("fmt", ["bgr0", "gbrp16le"])
def test_real_frames_are_lossless_in_apng(tmp_path, mean, fmt):
    source = write(tmp_path / "in.mkv", 3, codec="ffv1", fmt=fmt)
    interpolate_video(source, tmp_path / "out.apng", model=mean)
    same = "rgb48le" if "16" in fmt else "rgb24"
    made = frames_of(tmp_path / "out.apng")[::2]
    assert {frame.format.name for frame in made} == {"rgb48be" if "16" in fmt else "rgb24"}
    for one, other in zip(made, frames_of(source), strict=True):
        assert np.array_equal(one.to_ndarray(format=same), other.to_ndarray(format=same))


def test_colours_use_matrix_and_range_of_the_source(tmp_path, mean):
    tags = (("colorspace", 1), ("color_range", 2))
    source = write(tmp_path / "in.mkv", 2, codec="ffv1", fmt="yuv444p", tags=tags)
    wanted = [
        frame.reformat(
            format="rgb24", src_colorspace=1, dst_colorspace=1, src_color_range=2
        ).to_ndarray()
        for frame in frames_of(source)
    ]
    for suffix, least in ((".apng", 45), (".gif", 30), (".webp", 28)):
        out = tmp_path / f"out{suffix}"
        interpolate_video(source, out, model=mean)
        for one, other in zip(pixels_of(out)[::2], wanted, strict=True):
            assert psnr(one, other) > least, suffix


def test_quality_and_lossless_of_webp(tmp_path, mean):
    source = write(tmp_path / "in.mkv", 3, codec="ffv1", fmt="bgr0")
    wanted = [frame.to_ndarray(format="rgba") for frame in frames_of(source)]
    out, sizes = tmp_path / "out.webp", []
    for options in ({"quality": 10}, {"quality": 95}, {"lossless": True}):
        interpolate_video(
            source, out, model=mean, options=VideoOptions(overwrite=True, preset="0", **options)
        )
        sizes.append((out.stat().st_size, min(map(psnr, pixels_of(out)[::2], wanted))))
    assert sizes[0][0] < sizes[1][0]
    assert sizes[0][1] < sizes[1][1] < sizes[2][1]
    assert sizes[2][1] > 90


@pytest.mark.parametrize("suffix", KINDS)
def test_alpha_is_kept(tmp_path, mean, suffix):
    fade = np.linspace(0, 255, 64).astype(np.uint8)[None].repeat(48, 0)
    colours = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 3)).repeat(8, 1).repeat(8, 2)
    frames = [alpha_clips.layered(colour, fade) for colour in colours]
    source = alpha_clips.write(tmp_path / "in.mov", frames, "png")
    out = tmp_path / f"out{suffix}"
    report = interpolate_video(source, out, model=mean)
    said = [note for note in report.notes if "one bit" in note]
    assert bool(said) == (suffix == ".gif")
    wanted = np.where(fade < 128, 0, 255) if suffix == ".gif" else fade
    count = 5 if suffix == ".webp" else 6  # WebP joins the last frame and its repeat.
    made = pixels_of(out)
    assert len(made) == count
    for one in made[::2]:
        assert np.abs(one[..., 3].astype(int) - wanted).max() <= 1
    interpolate_video(source, out, model=mean, options=VideoOptions(alpha="none", overwrite=True))
    made = pixels_of(out)
    assert len(made) == count
    assert all((one[..., 3] == 255).all() for one in made)


@pytest.mark.parametrize("suffix", KINDS)
def test_sound_is_left_out_with_a_note(tmp_path, mean, suffix):
    source = write(tmp_path / "in.mp4", 3, audio="aac", rotation=90)
    out = tmp_path / f"out{suffix}"
    plan = plan_video(source, out)
    assert plan.encoder == {".gif": "gif", ".apng": "apng", ".webp": "libwebp_anim"}[suffix]
    assert [track.split(": ")[1] for track in plan.tracks] == ["not carried over"]
    early = []
    report = interpolate_video(source, out, model=mean, on_note=early.append)
    assert report.notes == early
    assert any(note.startswith("audio track 1 (aac") for note in early)
    assert any("rotated by" in note for note in early)
    with pytest.raises(VideoError, match="does not support aac"):
        interpolate_video(source, tmp_path / f"b{suffix}", options=VideoOptions(audio="aac"))


@pytest.mark.parametrize(
    ("suffix", "options", "message"),
    [
        (".gif", {"preset": "slow"}, "GIF takes no preset"),
        (".gif", {"quality": 5, "codec": "h264"}, "GIF takes no codec or quality"),
        (".gif", {"lossless": True}, "GIF cannot be lossless"),
        (".apng", {"quality": 5}, "APNG takes no quality"),
        (".webp", {"codec": "h264"}, "WebP takes no codec"),
        (".webp", {"quality": 101}, "quality is 101: WebP takes 0 to 100"),
        (".webp", {"preset": "slow"}, "preset is 'slow': WebP takes 0"),
        (
            ".webp",
            {"quality": 5, "lossless": True},
            "libwebp_anim cannot be lossless with quality 5",
        ),
    ],
)
def test_options_without_a_meaning_are_refused(tmp_path, suffix, options, message):
    source = write(tmp_path / "in.mp4", 2)
    with pytest.raises(VideoError, match=message):
        interpolate_video(source, tmp_path / f"out{suffix}", options=VideoOptions(**options))
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_segments_are_refused(tmp_path):
    source = write(tmp_path / "in.mp4", 2)
    with pytest.raises(VideoError, match=r"out\.gif is not a video file"):
        interpolate_video_resumable(source, tmp_path / "out.gif")


def test_pixel_aspect_ratio(tmp_path, mean):
    source = write(tmp_path / "in.mp4", 2, sar=Fraction(4, 3))
    for suffix in KINDS:
        report = interpolate_video(source, tmp_path / f"out{suffix}", model=mean)
        assert [note for note in report.notes if "aspect" not in note] == []
        assert bool(report.notes) == (suffix != ".gif")
    assert (tmp_path / "out.gif").read_bytes()[12] == 70  # 64 * ratio - 15
    # FFmpeg writes numerator and denominator for the pixels per unit, the other way round.
    assert dict(png_chunks((tmp_path / "out.apng").read_bytes()))[b"pHYs"][3:8:4] == b"\1\1"


def test_hdr_is_declared_in_apng_only(tmp_path, mean):
    tags = (("color_primaries", 9), ("color_trc", 16), ("colorspace", 9))
    source = write(tmp_path / "in.mkv", 2, codec="ffv1", fmt="yuv420p10le", tags=tags)
    for suffix in KINDS:
        report = interpolate_video(source, tmp_path / f"out{suffix}", model=mean)
        lost = [note for note in report.notes if "primaries" in note or ".apng keeps" in note]
        assert len(lost) == (0 if suffix == ".apng" else 2)
    frame = frames_of(tmp_path / "out.apng")[0]
    assert (frame.color_primaries, frame.color_trc) == (9, 16)


@pytest.mark.parametrize("suffix", KINDS)
def test_an_error_leaves_the_frames_until_then(tmp_path, mean, suffix):
    source = write(tmp_path / "in.mp4", 6)

    def stop(done, _):
        if done == 6:
            raise VideoError("stopped")

    with pytest.raises(VideoError, match=rf"the partial output is .*out\.partial\{suffix}"):
        interpolate_video(source, tmp_path / f"out{suffix}", model=mean, progress=stop)
    partial = tmp_path / f"out.partial{suffix}"
    assert len(durations(partial)) == 6
    assert not (tmp_path / f"out{suffix}").exists()
