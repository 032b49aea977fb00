import itertools
import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from functools import partial

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

import alpha_clips
from blend import Blend
from commands import run_main, signalled
from export.gate.cases import moving_frames
from interlaced_clips import luma, psnr, scene, write_interlaced, write_telecined
from moving_clips import RATE, read_clip, write_clip
from paths import DATA
from runtime import BackendError, FrameError, Interpolator, VideoError, interpolate_video
from runtime.__main__ import main, parse_time
from runtime.video.interpolate import plan_video
from runtime.video.options import VideoOptions
from video_clips import samples_of

QUICK = VideoOptions(preset="8")
OVERWRITE = VideoOptions(overwrite=True)


@pytest.fixture(scope="module")
def vfi(models):
    with Interpolator.open(models / "dynamic.onnx") as opened:
        yield opened


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_times_and_rate_of_the_result(tmp_path, mean, factor, suffix):
    source = write_clip(tmp_path / f"in{suffix}", 5)
    out = tmp_path / f"out{suffix}"
    seen = []
    report = interpolate_video(
        source, out, model=mean, factor=factor, progress=lambda done, _: seen.append(done)
    )
    frames, times, rate = read_clip(out)
    assert (report.frames_in, report.frames_out) == (5, 5 * factor)
    assert report.rate == RATE * factor
    assert report.notes == []
    assert seen == list(range(1, 5 * factor + 1))
    assert report.frames_new == 4 * (factor - 1)
    assert 0 <= report.idle <= 1
    assert len(frames) == 5 * factor
    # Matroska rounds the duration of a frame to nanoseconds.
    assert rate == pytest.approx(RATE * factor, rel=0 if suffix == ".mp4" else 1e-6)
    for number, time in enumerate(times):
        # Matroska counts milliseconds; MP4 is exact.
        assert abs(time - number / rate) <= (0 if suffix == ".mp4" else Fraction(1, 1000))
    assert (frames[0].width, frames[0].height) == (80, 64)


def test_real_frames_are_kept_and_new_ones_are_between_them(tmp_path, vfi):
    source = write_clip(tmp_path / "in.mp4", 4)
    interpolate_video(source, tmp_path / "out.mp4", model=vfi)
    real = [f.to_ndarray(format="rgb24").astype(float) for f in read_clip(source)[0]]
    made = [f.to_ndarray(format="rgb24").astype(float) for f in read_clip(tmp_path / "out.mp4")[0]]

    def distance(a, b):
        return np.abs(a - b).mean()

    for k, frame in enumerate(real):
        assert distance(made[2 * k], frame) < 2.5  # loss of the encoder
    moved = distance(real[0], real[1])
    for k in range(3):
        assert distance(made[2 * k + 1], real[k]) > 0.3 * moved
        assert distance(made[2 * k + 1], real[k + 1]) > 0.3 * moved
    np.testing.assert_array_equal(made[-1].shape, made[-2].shape)
    assert distance(made[-1], made[-2]) < 1  # the last frame is repeated


def test_each_gap_of_a_variable_rate_is_divided_evenly(tmp_path, mean):
    stamps = [0, 1, 2, 5, 6]
    source = write_clip(tmp_path / "in.mp4", 5, rate=Fraction(25), stamps=stamps)
    interpolate_video(source, tmp_path / "out.mp4", model=mean)
    _, times, _ = read_clip(tmp_path / "out.mp4")
    halves = [0, 1, 2, 3, 4, 7, 10, 11, 12, 13]
    assert times == [Fraction(h, 50) for h in halves]


def test_a_variable_rate_becomes_constant_unless_it_is_kept(tmp_path, mean):
    source = write_clip(tmp_path / "in.mp4", 5, rate=Fraction(25), stamps=[0, 1, 2, 5, 6])
    options = VideoOptions(keep_vfr=False)
    report = interpolate_video(source, tmp_path / "out.mp4", model=mean, options=options)
    _, times, _ = read_clip(tmp_path / "out.mp4")
    assert report.rate == 50
    assert times == [Fraction(k, 50) for k in range(14)]


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("out.partial.mp4", "out.mp4"),
        ("out.partial/%06d.png", "out"),
        ("out.partial", "out/%d.png"),
    ],
)
def test_an_input_with_the_name_of_the_partial_file_is_not_overwritten(tmp_path, mean, source, out):
    clip = write_clip(tmp_path / "in.mp4", 3)
    if source.endswith(".mp4"):
        clip.rename(tmp_path / source)
    else:
        interpolate_video(clip, tmp_path / "made", model=mean)
        (tmp_path / "made").rename(tmp_path / "out.partial")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(
        VideoError,
        match=r"because the output is first written to out\.partial",
    ):
        interpolate_video(tmp_path / source, tmp_path / out, model=mean)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_interlaced_frames_are_named(tmp_path, mean):
    source = write_clip(tmp_path / "in.mp4", 3, options={"flags": "+ildct", "x264-params": "tff=1"})
    early = []
    report = interpolate_video(source, tmp_path / "out.mp4", model=mean, on_note=early.append)
    for (note,) in (early, report.notes):
        assert "use --deinterlace frame, --deinterlace field for twice" in note
    assert report.notes[0].startswith("3 of 3 frames are interlaced")


@pytest.mark.parametrize("how", [{"factor": 2}, {"rate": "120"}])
@pytest.mark.parametrize("mode", ["frame", "field"])
def test_interlaced_sources_are_deinterlaced(tmp_path, mean, mode, how):
    source = write_interlaced(tmp_path / "in.mkv", 12, sound=True)
    options = VideoOptions(deinterlace=mode, codec="ffv1", cuts=None)
    planned = plan_video(source, tmp_path / "out.mkv", options=options, **how)
    report = interpolate_video(source, tmp_path / "out.mkv", model=mean, options=options, **how)
    frames, times, _ = read_clip(tmp_path / "out.mkv")
    rate = Fraction(50 if mode == "field" else 25)
    assert report.notes == []
    assert report.frames_in == 12 * rate / 25
    assert report.rate == (120 if "rate" in how else 2 * rate)
    assert len(frames) == report.frames_out == planned.frames == round(12 * report.rate / 25)
    for k, time in enumerate(times):
        assert abs(time - k / report.rate) <= Fraction(1, 1000)
    original = scene(24)[:: 1 if mode == "field" else 2]
    if "factor" in how:
        for frame, picture in zip(frames[::2], original, strict=True):
            assert psnr(luma(frame), picture) > 40
    assert len(samples_of(tmp_path / "out.mkv")[1]) == 12 * 48000 // 25


def test_telecined_film_is_restored_before_new_frames_are_made(tmp_path, mean):
    source = write_telecined(tmp_path / "in.mp4", codec="libx264", options={"qp": "0"})
    options = VideoOptions(deinterlace="film", codec="ffv1", cuts=None)
    planned = plan_video(source, tmp_path / "out.mkv", options=options)
    report = interpolate_video(source, tmp_path / "out.mkv", model=mean, options=options)
    frames, times, _ = read_clip(tmp_path / "out.mkv")
    rate = Fraction(48000, 1001)
    assert planned.rate == report.rate == rate
    assert (report.frames_in, report.frames_new) == (24, 23)
    assert report.frames_out == planned.frames == len(frames) == 48
    for k, time in enumerate(times):
        assert abs(time - k / rate) <= Fraction(1, 1000)
    for frame, picture in zip(frames[::2], scene(24), strict=True):
        assert psnr(luma(frame), picture) > 60


def test_a_change_of_size_is_an_error_with_its_time_and_the_output_reaches_it(tmp_path, mean):
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for k in range(20):
            coder = av.CodecContext.create("mjpeg", "w")
            coder.width, coder.height, coder.pix_fmt = 64, 48 if k < 12 else 32, "yuvj420p"
            coder.time_base, coder.thread_type = Fraction(1, 25), "SLICE"
            frame = VideoFrame(coder.width, coder.height, "yuvj420p")
            for plane in frame.planes:
                plane.update(bytes([10 * k]) * plane.buffer_size)
            frame.pts, frame.time_base = k, Fraction(1, 25)
            for packet in coder.encode(frame):
                packet.stream = stream
                out.mux(packet)
    with pytest.raises(
        VideoError,
        match=r"the frame size changes from 64x48 to 64x32 at 0\.480 s: cut .*out\.partial\.mkv",
    ):
        interpolate_video(source, tmp_path / "out.mkv", model=mean, options=VideoOptions(cuts=None))
    _, times, _ = read_clip(tmp_path / "out.partial.mkv")
    # The last frame before the change, at 0.44 s, is complete; none after it is.
    assert float(times[-1]) == pytest.approx(0.44, abs=1e-3)
    assert len(times) == 23


def test_odd_sizes_are_kept(tmp_path, mean):
    source = DATA / "bear-vp9-odd-dimensions.webm"
    for name, note in (("out.webm", False), ("out.mp4", True)):
        report = interpolate_video(source, tmp_path / name, model=mean, options=QUICK)
        frames, _, rate = read_clip(tmp_path / name)
        assert len(frames) == report.frames_out == 60
        assert (frames[0].width, frames[0].height) == (161, 121)
        assert rate == pytest.approx(Fraction(60_000, 1001), rel=1e-6)
        assert any("yuv444p" in text for text in report.notes) == note


@pytest.fixture
def mean():
    return Interpolator(Blend())


def test_a_damaged_packet_is_skipped_counted_and_noted(tmp_path, mean):
    source = DATA / "sample_with_invalid_nalu.mp4"
    quick = VideoOptions(preset="ultrafast", cuts=None)
    report = interpolate_video(source, tmp_path / "out.mp4", model=mean, options=quick)
    assert (report.frames_in, report.damaged) == (29, 1)
    assert "damaged packets skipped: 1" in report.notes
    frames, times, _ = read_clip(tmp_path / "out.mp4")
    assert len(frames) == report.frames_out == 58
    assert times == sorted(set(times))
    with pytest.raises(VideoError, match=r"is damaged .*: repair it, or leave out --strict"):
        interpolate_video(
            source, tmp_path / "no.mp4", model=mean, options=replace(quick, strict=True)
        )
    assert not (tmp_path / "no.mp4").exists()


def test_a_truncated_input_is_named_and_refused_when_strict(tmp_path, mean):
    source = write_clip(tmp_path / "in.mkv", 40, rate=Fraction(25))
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    report = interpolate_video(source, tmp_path / "out.mp4", model=mean)
    assert 2 < report.frames_in < 40
    (note,) = report.notes
    came = f"{report.frames_in / 25:.3f} s ({report.frames_in} frames)"
    assert note == f"the file declares 1.600 s of video, but contains {came}: it is truncated"
    with pytest.raises(VideoError, match=r"in\.mkv: the file declares .* get the complete file"):
        interpolate_video(
            source, tmp_path / "no.mp4", model=mean, options=VideoOptions(strict=True)
        )
    assert not (tmp_path / "no.mp4").exists()


def packets(path, kind):
    with av.open(str(path)) as clip:
        (stream,) = getattr(clip.streams, kind)
        return [
            (float(p.pts * p.time_base), bytes(p)) for p in clip.demux(stream) if p.pts is not None
        ]


def test_sound_is_copied_packet_by_packet(tmp_path, mean):
    source = write_clip(tmp_path / "in.mp4", 3, audio=True)
    for name in ("out.mp4", "out.mkv"):
        report = interpolate_video(source, tmp_path / name, model=mean)
        assert report.notes == []
        before, after = packets(source, "audio"), packets(tmp_path / name, "audio")
        assert [data for _, data in after] == [data for _, data in before]
        for (time0, _), (time1, _) in zip(before, after, strict=True):
            assert abs(time0 - time1) <= 0.001
    report = interpolate_video(
        source, tmp_path / "silent.mp4", model=mean, options=VideoOptions(audio="none")
    )
    (note,) = report.notes
    assert re.fullmatch(r"audio track 1 \(aac.*\): not carried over", note)


def test_a_constant_rate_keeps_real_frames_bit_for_bit(tmp_path, mean):
    source = write_clip(tmp_path / "in.mkv", 24, rate=Fraction(24), codec="ffv1")
    report = interpolate_video(
        source, tmp_path / "out.mkv", model=mean, rate=Fraction(60),
        options=VideoOptions(codec="ffv1"),
    )  # fmt: skip
    real, (made, times, rate) = read_clip(source)[0], read_clip(tmp_path / "out.mkv")
    assert (len(made), rate, report.rate) == (60, 60, 60)
    for number, time in enumerate(times):
        assert abs(time - Fraction(number, 60)) <= Fraction(1, 1000)
    for k in range(0, 24, 2):  # Every second frame at 24 frames/s has the time of one at 60.
        assert_same_planes(made[k * 5 // 2], real[k])
    assert report.frames_new == 60 - 12 - 2  # The last frame is repeated from 23/24 s on.


def assert_same_planes(frame, other):
    assert frame.format.name == other.format.name
    for plane, wanted in zip(frame.to_ndarray(), other.to_ndarray(), strict=True):
        np.testing.assert_array_equal(plane, wanted)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_real_and_new_frames_of_a_still_clip_do_not_flicker(tmp_path, pix_fmt):
    ground, _ = moving_frames(64, 80, 2.0)
    picture = np.ascontiguousarray(64 + ground // 2)  # All colours are inside the gamut of YUV.
    source, out = tmp_path / "in.mkv", tmp_path / "out.mkv"
    with av.open(str(source), "w") as clip:
        stream = clip.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 64, pix_fmt
        for number in range(3):
            frame = VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            clip.mux(stream.encode(frame))
        clip.mux(stream.encode(None))
    deep = pix_fmt.endswith("10le")
    model = Interpolator(Blend(io="float" if deep else "frames"))
    interpolate_video(source, out, model=model, options=VideoOptions(codec="ffv1"))
    real, new, *_ = read_clip(out)[0]
    levels = 4 if deep else 1
    for a, b in zip(planes(real), planes(new), strict=True):
        assert abs((b - a).mean()) / levels < 0.1


def planes(frame):
    dtype = np.uint16 if "10" in frame.format.name else np.uint8
    return [
        np.frombuffer(p, dtype).reshape(p.height, -1)[:, : p.width].astype(float)
        for p in frame.planes
    ]


def write_pictures(path, pictures, rate=25):
    """Writes a clip of one background, for each frame moved by some pixels, and dark or not."""
    with av.open(str(path), "w") as clip:
        stream = clip.add_stream("ffv1", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        ground, _ = moving_frames(64, 80 + 64, 2.0)
        for number, (shift, dark) in enumerate(pictures):
            picture = np.ascontiguousarray(ground[:, shift : shift + 80])
            frame = VideoFrame.from_ndarray(picture // 4 if dark else picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            clip.mux(stream.encode(frame))
        clip.mux(stream.encode(None))
    return path


def test_the_frame_before_a_scene_cut_is_repeated(tmp_path, mean):
    scenes = [(0, False), (2, False), (4, False), (0, True), (2, True)]
    source = write_pictures(tmp_path / "in.mkv", scenes)
    lossless = VideoOptions(codec="ffv1")
    report = interpolate_video(source, tmp_path / "out.mkv", model=mean, options=lossless)
    assert report.cuts == [Fraction(3, 25)]
    made, real = read_clip(tmp_path / "out.mkv")[0], read_clip(source)[0]
    assert len(made) == 10
    assert_same_planes(made[5], real[2])  # Repeated.
    assert_same_planes(made[6], real[3])
    off = VideoOptions(codec="ffv1", cuts=None)
    report = interpolate_video(source, tmp_path / "melts.mkv", model=mean, options=off)
    assert report.cuts == []
    melted = read_clip(tmp_path / "melts.mkv")[0][5]
    assert not np.array_equal(melted.to_ndarray(), real[2].to_ndarray())


def test_the_frames_at_a_cut_are_mixed_with_cut_policy_blend(tmp_path, mean):
    scenes = [(0, False), (2, False), (4, False), (0, True), (2, True)]
    source = write_pictures(tmp_path / "in.mkv", scenes)
    options = VideoOptions(codec="ffv1", cut_policy="blend")
    report = interpolate_video(source, tmp_path / "out.mkv", model=mean, factor=4, options=options)
    assert report.cuts == [Fraction(3, 25)]
    assert report.frames_new == 3 * 3  # The model did not make the three frames at the cut.
    made, real = read_clip(tmp_path / "out.mkv")[0], read_clip(source)[0]
    for number, frame in enumerate(real):
        assert_same_planes(made[4 * number], frame)
    before, after = planes(real[2])[0], planes(real[3])[0]
    for k in (1, 2, 3):
        wanted = before + (after - before) * k / 4
        assert np.abs(planes(made[8 + k])[0] - wanted).mean() < 1


def blended_at_the_cut(tmp_path, fmt, model, **how):
    """The frames of a source of two scenes of one frame each, and those of the output."""
    source = alpha_clips.write(tmp_path / "in.mkv", [alpha_clips.noise(fmt, n) for n in range(2)])
    cut = {"cut_policy": "blend", "cut_list": [Fraction(1, 25)]}
    options = VideoOptions(codec="ffv1", lossless=True, **cut)
    with Interpolator(model) as vfi:
        report = interpolate_video(source, tmp_path / "o.mkv", model=vfi, options=options, **how)
    assert (report.frames_new, model.calls) == (0, [])
    return alpha_clips.frames_of(source), alpha_clips.frames_of(tmp_path / "o.mkv")


def test_mixed_frames_at_a_cut_have_16_bits(tmp_path):
    (first, second), made = blended_at_the_cut(tmp_path, "gbrp16le", Blend(io="float"), factor=4)
    for k in range(5):
        share = min(k, 4) / 4
        for one, two, found in zip(
            *map(alpha_clips.colours, (first, second, made[k])), strict=True
        ):
            assert np.abs(one * (1 - share) + two * share - found).max() <= 1


def test_mixed_frames_at_a_cut_have_mixed_alpha(tmp_path):
    (first, second), made = blended_at_the_cut(tmp_path, "bgra", Blend(), factor=2)
    alphas = [alpha_clips.alpha_of(frame).astype(float) for frame in (first, second)]
    mean = sum(alphas) / 2
    found = alpha_clips.alpha_of(made[1])
    assert np.abs(found - mean).max() <= 0.5
    seen = mean > 64
    for one, two, colour in zip(*map(alpha_clips.colours, (first, second, made[1])), strict=True):
        wanted = (one * alphas[0] + two * alphas[1])[seen] / (2 * mean[seen])
        # The product of colour and alpha has 8 bits.
        assert (np.abs(colour[seen] - wanted) <= 1.5 * 255 / mean[seen] + 0.5).all()


def test_mixed_frames_at_a_cut_have_their_exact_time_with_midpoint_weights(tmp_path):
    model = Blend(time_steps="midpoint")
    (first, second), made = blended_at_the_cut(tmp_path, "gray", model, rate=75)
    one, two = (alpha_clips.colours(frame)[0].astype(float) for frame in (first, second))
    for k in (1, 2):
        found = alpha_clips.colours(made[k])[0]
        # Noise has values beyond black and white, which new frames clip.
        inside = (np.minimum(one, two) > 20) & (np.maximum(one, two) < 230)
        assert np.abs(found - (one * (3 - k) + two * k) / 3)[inside].max() <= 1


@pytest.mark.parametrize("cut_list", [None, ["3"]])
def test_a_long_gap_is_held_also_with_cut_policy_blend(tmp_path, mean, cut_list):
    source = write_clip(tmp_path / "in.mkv", 4, stamps=[0, 40, 3000, 3040])
    options = VideoOptions(codec="ffv1", cut_policy="blend", cuts=None, cut_list=cut_list)
    report = interpolate_video(source, tmp_path / "out.mkv", model=mean, options=options)
    made, real = read_clip(tmp_path / "out.mkv")[0], read_clip(source)[0]
    assert (report.held_gaps, len(report.cuts)) == ((1, 0) if cut_list is None else (0, 1))
    assert_same_planes(made[3], real[1])


@pytest.mark.parametrize("output", ["out.mkv", "out"])
@pytest.mark.parametrize("fmt", ["pal8", "rgb8", "rgb565le", "monow"])
def test_new_frames_of_a_source_with_few_colours_are_not_dithered(tmp_path, mean, fmt, output):
    frame = VideoFrame(80, 64, fmt)
    rows = np.add.outer(np.arange(64), np.arange(frame.planes[0].line_size)).astype(np.uint8)
    frame.planes[0].update(rows.tobytes())
    if fmt == "pal8":
        palette = np.random.default_rng(0).integers(0, 256, (256, 4), np.uint8)
        palette[:, 3] = 255
        frame.planes[1].update(palette.tobytes())
    source = alpha_clips.write(tmp_path / "in.nut", [frame, frame], "rawvideo")
    options = VideoOptions(codec=None if output == "out" else "ffv1", lossless=output != "out")
    report = interpolate_video(source, tmp_path / output, model=mean, options=options)
    assert report.frames_new == 1
    files = sorted((tmp_path / output).iterdir()) if output == "out" else [tmp_path / output]
    made = [f.to_ndarray(format="rgb24") for file in files for f in read_clip(file)[0]]
    with av.open(str(source)) as clip:
        real = next(clip.decode(video=0)).to_ndarray(format="rgb24")
    assert len(made) == 4
    for frame in made:
        assert np.array_equal(frame, real)


def test_at_the_cut_of_a_real_clip_the_frame_before_is_repeated(tmp_path, mean):
    source, out = DATA / "bbb_642x642_768kbps_30fps_vp9.webm", tmp_path / "out.mkv"
    options = VideoOptions(codec="ffv1", end=Fraction(4, 15))
    report = interpolate_video(source, out, model=mean, options=options)
    assert report.cuts == [Fraction(6, 30)]
    with av.open(str(source)) as clip:
        real = list(itertools.islice(clip.decode(video=0), 8))
    made = read_clip(out)[0]
    assert len(made) == 16
    for number, frame in enumerate(real):  # Real frames are unchanged at their own times.
        assert_same_planes(made[2 * number], frame)
    stands = [k for k in range(1, 15, 2) if (planes(made[k])[0] == planes(made[k - 1])[0]).all()]
    assert stands == [11]


def test_repeated_frames_are_replaced_by_new_ones(tmp_path, mean):
    doubled = [(4 * (k // 2), False) for k in range(8)]
    source = write_pictures(tmp_path / "in.mkv", doubled)
    options = VideoOptions(codec="ffv1", dedupe=True)
    report = interpolate_video(source, tmp_path / "out.mkv", model=mean, options=options)
    assert (report.repeats, report.frames_out) == (4, 16)
    made, real = read_clip(tmp_path / "out.mkv")[0], read_clip(source)[0]
    # A A B B: three new frames between A and B replace the repeat of A.
    assert_same_planes(made[0], real[0])
    assert_same_planes(made[4], real[2])
    luma = [planes(made[k])[0] for k in range(5)]
    for k in (1, 2, 3):
        wanted = luma[0] + (luma[4] - luma[0]) * k / 4
        assert np.abs(luma[k] - wanted).mean() < 1


def test_with_factor_one_only_repeated_frames_are_replaced(tmp_path, mean):
    doubled = [(4 * (k // 2), False) for k in range(8)]
    source = write_pictures(tmp_path / "in.mkv", doubled)
    options = VideoOptions(codec="ffv1", dedupe=True)
    report = interpolate_video(source, tmp_path / "out.mkv", model=mean, factor=1, options=options)
    assert (report.repeats, report.frames_new, report.frames_out, report.rate) == (4, 3, 8, 25)
    (made, times, _), (real, real_times, _) = (
        read_clip(tmp_path / n) for n in ("out.mkv", "in.mkv")
    )
    assert times == real_times
    for k in (0, 2, 4, 6, 7):  # Nothing follows the last one.
        assert_same_planes(made[k], real[k])
    for k in (1, 3, 5):
        wanted = (planes(real[k - 1])[0] + planes(real[k + 1])[0]) / 2
        assert np.abs(planes(made[k])[0] - wanted).mean() < 1


def test_factor_one_without_dedupe_is_refused(tmp_path, mean):
    source = write_clip(tmp_path / "in.mkv", 3)
    for call in (partial(interpolate_video, model=mean), plan_video):
        with pytest.raises(VideoError, match="factor is 1, which changes nothing: give 2 or more"):
            call(source, tmp_path / "out.mkv", factor=1)


def test_a_part_of_a_clip_can_be_interpolated(tmp_path, mean):
    source = write_clip(tmp_path / "in.mp4", 25, rate=Fraction(25), audio=True)
    options = VideoOptions(start=Fraction(1, 5), end=Fraction(3, 5))
    report = interpolate_video(source, tmp_path / "out.mp4", model=mean, options=options)
    _, times, _ = read_clip(tmp_path / "out.mp4")
    assert times == [Fraction(k, 50) for k in range(20)]
    assert report.frames_out == 20


def test_folders_of_images_are_read_and_written(tmp_path, mean):
    source = write_clip(tmp_path / "in.mkv", 3, rate=Fraction(25), codec="ffv1")
    interpolate_video(source, tmp_path / "pictures", model=mean)
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == [
        f"{k:06}.png" for k in range(1, 7)
    ]
    report = interpolate_video(tmp_path / "pictures", tmp_path / "out.mp4", model=mean)
    assert (report.frames_in, report.frames_out, report.rate) == (6, 12, 50)


def test_midpoint_weights_reach_a_rate_that_is_no_power_of_two(tmp_path, midpoint_model):
    source = write_clip(tmp_path / "in.mp4", 4, size=(50, 70), rate=Fraction(24))
    report = interpolate_video(
        source, tmp_path / "out.mp4", model=midpoint_model, rate=Fraction(60)
    )
    assert report.frames_out == 10


def test_the_plan_equals_the_result(tmp_path, mean):
    source = write_clip(tmp_path / "in.mp4", 25, rate=Fraction(25), audio=True)
    plan = plan_video(source, tmp_path / "out.mp4", rate=Fraction(60))
    assert (plan.frames, plan.rate, plan.encoder) == (60, 60, "libx264")
    assert [track.codec for track in plan.source.tracks] == ["aac"]
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]
    report = interpolate_video(source, tmp_path / "out.mp4", model=mean, rate=Fraction(60))
    assert report.frames_out == plan.frames


def test_ten_bit_sources_give_ten_bit_results_and_losses_are_noted(tmp_path, vfi, models):
    source = write_clip(tmp_path / "in.mp4", 3, pix_fmt="yuv420p10le")
    report = interpolate_video(source, tmp_path / "a.mp4", model=vfi)
    assert any(
        "8 of the 10 bits of the source: use a model exported with --io float" in n
        for n in report.notes
    )
    report = interpolate_video(
        source, tmp_path / "b.mp4", model=models / "float.onnx", precision="fp32"
    )
    assert report.notes == []
    for name in ("a.mp4", "b.mp4"):
        assert read_clip(tmp_path / name)[0][0].format.name == "yuv420p10le"


def test_colour_tags_are_copied(tmp_path, mean):
    tags = {"color_range": 2, "colorspace": 5, "color_primaries": 5, "color_trc": 6}
    source = write_clip(tmp_path / "in.mp4", 3, pix_fmt="yuvj420p", tags=tags)
    report = interpolate_video(source, tmp_path / "out.mp4", model=mean)
    assert report.notes == []
    made = read_clip(tmp_path / "out.mp4")[0]
    assert len(made) == 6
    for frame in made:
        assert {name: int(getattr(frame, name)) for name in tags} == tags


def test_rotation_is_copied(tmp_path, mean):
    source = write_clip(tmp_path / "in.mp4", 3, rotation=90)
    assert read_clip(source)[0][0].rotation == 90
    interpolate_video(source, tmp_path / "out.mp4", model=mean)
    frames, _, _ = read_clip(tmp_path / "out.mp4")
    assert {frame.rotation for frame in frames} == {90}
    assert (frames[0].width, frames[0].height) == (80, 64)


def test_rgb_sources_become_yuv_with_a_note(tmp_path, mean):
    source = write_clip(tmp_path / "in.mov", 3, pix_fmt="rgb24", codec="png")
    report = interpolate_video(source, tmp_path / "out.mp4", model=mean)
    assert report.notes == ["pixel format: yuv420p in the output, rgb24 in the source"]
    real, made = (read_clip(p)[0][0] for p in (source, tmp_path / "out.mp4"))
    assert int(made.colorspace) != 0  # 0 means RGB
    difference = real.to_ndarray(format="rgb24").astype(int) - made.to_ndarray(format="rgb24")
    assert np.abs(difference).mean() < 8  # chroma at half size, of a noisy scene
    # Real and new frames have the same range, so that nothing flickers.
    means = [f.to_ndarray(format="rgb24").mean() for f in read_clip(tmp_path / "out.mp4")[0]]
    assert max(means) - min(means) < 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "does not exist"),
        (lambda p: p.write_bytes(b""), "cannot be read as a video"),
        (lambda p: p.write_bytes(b"no video" * 100), "cannot be read as a video"),
        (
            lambda p: p.write_bytes((DATA / "invalid-bitstream.webm").read_bytes()),
            "no frame that can be decoded",
        ),
    ],
)
def test_invalid_sources_leave_no_files(tmp_path, mean, make, message):
    source = tmp_path / "in.webm"
    make(source)
    with pytest.raises(VideoError, match=message):
        interpolate_video(source, tmp_path / "out.mp4", model=mean)
    assert {p.name for p in tmp_path.iterdir()} <= {"in.webm"}


def test_a_file_with_only_sound_is_refused(tmp_path, mean):
    with av.open(str(tmp_path / "in.mka"), "w") as out:
        sound = out.add_stream("aac", rate=48000)
        silence = av.AudioFrame.from_ndarray(
            np.zeros((2, 1024), np.float32), format="fltp", layout="stereo"
        )
        silence.sample_rate = 48000
        out.mux(sound.encode(silence))
        out.mux(sound.encode(None))
    with pytest.raises(VideoError, match="no video track"):
        interpolate_video(tmp_path / "in.mka", tmp_path / "out.mp4", model=mean)


@pytest.mark.parametrize(
    ("name", "message"),
    [("out.txt", "no supported suffix"), ("no/out.mp4", "is not a folder"), ("in.mp4", "itself")],
)
def test_invalid_destinations_are_refused(tmp_path, mean, name, message):
    source = write_clip(tmp_path / "in.mp4", 2)
    content = source.read_bytes()
    with pytest.raises(VideoError, match=message):
        interpolate_video(source, tmp_path / name, model=mean)
    assert source.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_a_failure_keeps_the_old_file_and_a_playable_part(tmp_path, mean):
    source = write_clip(tmp_path / "in.mp4", 6)
    out = tmp_path / "out.mp4"
    out.write_bytes(b"an older result")

    def stop(done, _):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interpolate_video(source, out, model=mean, progress=stop, options=OVERWRITE)
    assert out.read_bytes() == b"an older result"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "out.partial.mp4"]
    assert len(read_clip(tmp_path / "out.partial.mp4")[0]) >= 3  # It plays up to the error.


@pytest.mark.parametrize("size", [(8, 8), (15, 64), (64, 14)])
def test_frames_that_are_too_small_are_refused_before_anything_is_written(tmp_path, mean, size):
    source = write_clip(tmp_path / "in.mkv", 3, size=size, codec="ffv1")
    message = rf"in\.mkv is {size[0]}x{size[1]}: frames are at least 16x16"
    with pytest.raises(FrameError, match=message):
        plan_video(source, tmp_path / "out.mkv")
    for model in (mean, tmp_path / "none.onnx"):  # Refused before the model is opened.
        with pytest.raises(FrameError, match=message):
            interpolate_video(source, tmp_path / "out.mkv", model=model)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


def test_the_smallest_frames_are_interpolated(tmp_path):
    source = write_clip(tmp_path / "in.mkv", 3, size=(16, 16), codec="ffv1")
    interpolate_video(source, tmp_path / "out.mkv", options=VideoOptions(codec="ffv1"))
    frames, _, _ = read_clip(tmp_path / "out.mkv")
    assert [(frame.width, frame.height) for frame in frames] == 6 * [(16, 16)]


def test_a_model_of_another_size_is_named_before_anything_is_written(tmp_path, models):
    source = write_clip(tmp_path / "in.mp4", 3)
    with pytest.raises(FrameError, match="this model takes 50x70 only: build a model"):
        interpolate_video(source, tmp_path / "out.mp4", model=models / "frames.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("factor", [0, 1, 2.5, 2.0, "2", True])
def test_invalid_factors_are_refused(tmp_path, mean, factor):
    source = write_clip(tmp_path / "in.mp4", 2)
    with pytest.raises((FrameError, VideoError), match="factor is"):
        interpolate_video(source, tmp_path / "out.mp4", model=mean, factor=factor)
    with pytest.raises((FrameError, VideoError), match="factor is"):
        plan_video(source, tmp_path / "out.mp4", factor=factor)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"factor": 2.5},
            "factor is 2.5: give a whole number, 2 or more, or 62.5 as the rate (--rate), 2.5 times"
            " that of in.mp4",
        ),
        ({"factor": np.float32(1.5)}, "or 37.5 as the rate (--rate)"),
        (
            {"factor": 1001},
            "factor 1001 would make about 5005 frames of in.mp4, a factor is 1000 at most: give a",
        ),
        (
            {"rate": 10**9},
            "rate 1000000000 would make about 200000000 frames of in.mp4, at most 10000 frames a "
            "second are possible: give a lower rate",
        ),
        ({"rate": "10000.5"}, "rate 10000.5 would make about 2000 frames of in.mp4, at most"),
        (
            {"factor": 500, "options": VideoOptions(keep_vfr=False)},
            "factor 500, which is rate 12500, would make about 2500 frames of in.mp4, at most 10000"
            " frames a second are possible: give a lower factor",
        ),
        ({"rate": 0.5}, "rate 0.5 would make one frame of in.mp4: give a higher rate"),
    ],
)
def test_rates_and_factors_beyond_sense_are_refused(tmp_path, monkeypatch, mean, given, message):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "in.mp4", 5, rate=Fraction(25))
    with pytest.raises((FrameError, VideoError), match=re.escape(message)):
        plan_video("in.mp4", "out.mp4", **given)
    for model in (mean, "none.onnx"):  # Refused before the model is opened.
        with pytest.raises((FrameError, VideoError), match=re.escape(message)):
            interpolate_video("in.mp4", "out.mp4", model=model, **given)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_without_a_duration_a_rate_beyond_sense_is_refused_too(tmp_path, mean):
    source = write_clip(tmp_path / "in.h264", 3, rate=Fraction(25))
    for given in ({"rate": 10**9}, {"factor": 10**9}):
        with pytest.raises(VideoError, match=r"would make too many frames of .*in\.h264, "):
            plan_video(source, tmp_path / "out.mp4", **given)


def test_a_rate_below_that_of_the_source_is_kept(tmp_path, mean):
    source = write_clip(tmp_path / "in.mp4", 5, rate=Fraction(25))
    report = interpolate_video(source, tmp_path / "out.mp4", model=mean, rate=10)
    assert read_clip(tmp_path / "out.mp4")[1] == [0, Fraction(1, 10)]
    assert (report.frames_out, report.rate) == (2, 10)
    # One frame of one frame is no fault of the rate.
    one = VideoOptions(end=0.04)
    report = interpolate_video(source, tmp_path / "one.mp4", model=mean, rate=25, options=one)
    assert report.frames_out == 1


def test_a_factor_and_a_rate_are_refused(tmp_path, mean):
    source = write_clip(tmp_path / "in.mp4", 2)
    for given in ({"factor": 2, "rate": 60}, {"factor": 3, "rate": Fraction(60)}):
        with pytest.raises(VideoError, match=r"were both given, .*: leave one out"):
            plan_video(source, tmp_path / "out.mp4", **given)
        with pytest.raises(VideoError, match=r"were both given, .*: leave one out"):
            interpolate_video(source, tmp_path / "out.mp4", model=mean, **given)


@pytest.mark.parametrize("rate", [23.976, "23.976", Fraction(24000, 1001), "24000/1001"])
def test_a_rate_can_be_a_number_or_text(tmp_path, mean, rate):
    source = write_clip(tmp_path / "in.mp4", 3, rate=Fraction(12))
    plan = plan_video(source, tmp_path / "out.mp4", rate=rate)
    report = interpolate_video(source, tmp_path / "out.mp4", model=mean, rate=rate)
    assert plan.rate == report.rate == Fraction(24000, 1001)
    assert read_clip(tmp_path / "out.mp4")[2] == Fraction(24000, 1001)


def test_times_can_be_numbers_or_text(tmp_path, mean):
    source = write_clip(tmp_path / "in.mp4", 20, rate=Fraction(25))
    written = [
        interpolate_video(
            source,
            tmp_path / "out.mp4",
            model=mean,
            options=VideoOptions(start=start, end=end, overwrite=True),
        ).frames_out
        for start, end in ((Fraction(1, 5), Fraction(3, 5)), (0.2, 0.6), ("0:00.2", "0.6"))
    ]
    assert written == [20, 20, 20]
    assert VideoOptions(start="1:30.5", picture_rate=23.976) == VideoOptions(
        start=Fraction(181, 2), picture_rate=Fraction(24000, 1001)
    )
    for name in ("start", "end", "picture_rate"):
        with pytest.raises(VideoError, match=f"{name} is 'x'"):
            VideoOptions(**{name: "x"})


def test_the_command_writes_a_video(tmp_path, models):
    write_clip(tmp_path / "in.mp4", 3)
    done = run_main(
        "runtime", "in.mp4", "out.mp4", "--model", models / "dynamic.onnx", "--factor", "4",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 -> 12 frames at 119.880 frames/s" in done.stdout
    assert len(read_clip(tmp_path / "out.mp4")[0]) == 12
    assert not (tmp_path / "out.partial.mp4").exists()


@pytest.fixture
def command(tmp_path, mean, monkeypatch, capsys):
    """Runs `python -m runtime` in this process and a folder, with a blending model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Interpolator, "open", lambda *_, **__: mean)

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        return left.value.code, *capsys.readouterr()

    return run


def test_the_command_plans_reports_and_writes_a_summary(tmp_path, command):
    write_clip(tmp_path / "in.mp4", 3, rate=Fraction(25), audio=True)
    code, out, _ = command("in.mp4", "out.mp4", "--rate", "60", "--dry-run")
    assert code == 0
    assert "out.mp4: about 7 frames at 60.000 frames/s, encoder libx264" in out
    assert "audio track 1 (aac" in out
    assert ": copied" in out
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]
    assert command("in.mp4", "out.mp4", "--model", "m", "--json", "s.json")[0] == 0
    summary = json.loads((tmp_path / "s.json").read_text())
    assert (summary["frames_in"], summary["frames_out"], summary["rate"]) == (3, 6, "50")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out.mp4", "--factor", "0"], "factor is 0"),
        (["out.mp4", "--factor=-2"], "factor is -2: give a whole number, 2 or more"),
        (["out.mp4", "--factor", "nan"], "factor is nan, a float: give a whole number, 2 or more"),
        (["out.mp4", "--factor", "inf"], "factor is inf, a float: give a whole number, 2 or more"),
        (["out.mp4", "--factor", "2.5"], "or 62.5 as the rate"),
        (["out.mp4", "--factor", "100000"], "would make about 300000 frames of in.mp4"),
        (["out.mp4", "--rate", "1e9", "--dry-run"], "would make about 120000000 frames of in.mp4"),
        (["out.mp4", "--picture-rate", "1e6"], "picture_rate is 1000000 frames a second: give one"),
        (["out.mp4", "--quality", "nan"], "quality is nan: give a number, or None"),
        (["out.mp4", "--quality", "inf"], "quality is inf: give a number, or None"),
        (["out.mp4", "--quality=-5"], "quality is -5: libx264 takes 0 to 51"),
        (
            ["out.mp4", "--preset", "warp"],
            "encoder libx264 does not open .*: check its preset and qual",
        ),
        (["out.mp4", "--cuts", "nan"], "the cut threshold is nan: give one above 0 and up to 100"),
        (["out.mp4", "--cuts", "inf"], "the cut threshold is inf: give one above 0 and up to 100"),
        (["out.mp4", "--cuts=-1"], "the cut threshold is -1: give one above 0 and up to 100"),
        (["out.mp4", "--video-stream=-1"], "no video track -1: choose one of 0"),
        (["out.mp4", "--end", "0"], "end is 0 s: give a time above 0"),
        (["out.mp4", "--start", "1e9"], "in.mp4 lasts .* s, but start is 1000000000.000 s: give"),
        (["out.mp4", "--json", "no/s.json"], "no is not a folder: create it first"),
        (["out.mp4", "--json", "s.json", "--dry-run"], "a dry run has no summary: leave one out"),
        (["out.mp4", "--rate", "60", "--keep-vfr"], "--rate gives a constant rate: use --factor"),
        (
            ["out.webm", "--dry-run"],
            "webm does not support aac audio: choose .mkv, or --audio none",
        ),
        (["out.mp4", "--picture-rate", "30"], "but in.mp4 is no folder of images: leave it out"),
        (["%06d.png"], r"\. is or contains the current folder: give a folder that is only"),
        (["out.mp4", "--start", "1.5", "--end", "1"], "part is 1.5 s to 1 s: give a start of 0"),
        (["out.mp4", "--start", "0.115"], "no frame of in.mp4 is between start and end"),
    ],
)
def test_refused_arguments_leave_no_files(tmp_path, command, arguments, message):
    write_clip(tmp_path / "in.mp4", 3, rate=Fraction(25), audio=True)
    code, _, errors = command("in.mp4", *arguments, "--model", "m")
    assert code == 1
    assert re.search(message, errors), errors
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize(
    ("option", "values", "message"),
    [
        ("--rate", ["nan", "inf", "1/0"], "is not understood: give frames a second as 60"),
        ("--rate", ["0", "-5", "1e-999999999"], "frames a second: give one above 0"),
        ("--rate", ["1e20"], "frames a second: give one of 10000 at most"),
        ("--picture-rate", ["0", "-5"], "frames a second: give one above 0"),
        ("--picture-rate", ["nan", "inf"], "is not understood: give frames a second as 60"),
        ("--start", ["-1", "nan", "inf", "1e400"], "is not understood: give seconds as 90.5"),
        ("--end", ["-1", "nan", "inf", "1e999999999"], "is not understood: give seconds as 90.5"),
        ("--factor", ["x", "1/2"], "is not a factor: write a whole number, 2 or more, or use"),
        ("--threads", ["nan", "1.5"], "invalid int value"),
        ("--streams", ["inf", "1.5"], "invalid int value"),
    ],
)
def test_values_that_no_option_takes_are_wrong_command_lines(command, option, values, message):
    for value in values:
        code, _, errors = command("in.mp4", "out.mp4", f"{option}={value}")
        assert code == 2
        assert f"argument {option}: " in errors
        assert message in " ".join(errors.split())


@pytest.mark.parametrize("option", ["threads", "streams"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_of_threads_and_streams_below_one_are_refused(tmp_path, models, option, value):
    source = write_clip(tmp_path / "in.mp4", 2)
    with pytest.raises(BackendError, match=f"{option} is {value}: use 1 or more, or None for"):
        interpolate_video(
            source, tmp_path / "out.mp4", model=models / "dynamic.onnx", **{option: value}
        )
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_after_ctrl_c_the_message_names_the_written_images(tmp_path, command, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    write_clip(tmp_path / "in.mp4", 3)
    monkeypatch.setattr("runtime.video.arguments.FrameBar.update", stop)
    code, _, errors = command("in.mp4", "out/%03d.png", "--model", "m")
    assert code == 130
    assert "the partial output is out.partial" in errors
    assert [p.name for p in (tmp_path / "out.partial").iterdir()] == ["001.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_sigterm_leaves_a_partial_output_that_plays(tmp_path, models):
    write_clip(tmp_path / "in.mp4", 2000)
    partial = tmp_path / "out.partial.mkv"
    run = signalled(
        signal.SIGTERM, "runtime", "in.mp4", "out.mkv", "--codec", "ffv1",
        "--model", models / "dynamic.onnx", cwd=tmp_path,
        when=lambda: partial.exists() and partial.stat().st_size > 200_000,
    )  # fmt: skip
    assert run.returncode == 143
    assert run.stderr == (
        "the partial output is out.partial.mkv\npython -m runtime: ended by SIGTERM\n"
    )
    with av.open(str(partial)) as container:
        assert len(list(container.decode(video=0))) > 10


def test_y4m_is_written_to_a_pipe(tmp_path, models):
    source = write_clip(tmp_path / "in.y4m", 3, codec="wrapped_avframe", rate=Fraction(25))
    done = subprocess.run(
        [sys.executable, "-m", "runtime", "-", "-", "--model", str(models / "dynamic.onnx")],
        input=source.read_bytes(), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (tmp_path / "out.y4m").write_bytes(done.stdout)
    frames, _, rate = read_clip(tmp_path / "out.y4m")
    assert (len(frames), rate) == (6, 50)


@pytest.mark.parametrize(("text", "seconds"), [("90.5", 90.5), ("1:30.5", 90.5), ("1:00:01", 3601)])
def test_times_are_seconds_or_clock_times(text, seconds):
    assert parse_time(text) == seconds
