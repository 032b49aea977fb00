from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from conftest import DATA, run_module

from export.verify import moving_frames
from runtime import FrameError, Interpolator, VideoError, interpolate_video
from runtime.backends.base import HostBackend
from runtime.manifest import ModelInfo

RATE = Fraction(30000, 1001)


def write_clip(
    path,
    count=5,
    *,
    size=(64, 80),
    rate=RATE,
    stamps=None,
    audio=False,
    pix_fmt="yuv420p",
    tags=(),
    rotation=0,
    codec=None,
):
    """A clip of a moving scene; `stamps` in frames of `rate` where they are not 0, 1, 2 ..."""
    height, width = size
    ground, _ = moving_frames(height, width + 4 * count, 2.0)
    codec = codec or ("libvpx-vp9" if path.suffix == ".webm" else "libx264")
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height = width, height
        stream.pix_fmt = pix_fmt
        for name, value in dict(tags).items():
            setattr(stream.codec_context, name, value)
        stream.codec_context.time_base = 1 / rate
        if rotation:
            stream.set_display_rotation(rotation)
        sound = out.add_stream("aac", rate=48000) if audio else None
        for k in range(count):
            picture = np.ascontiguousarray(ground[:, 4 * k : 4 * k + width])
            frame = VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = k if stamps is None else stamps[k]
            frame.time_base = 1 / rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(
                np.zeros((2, 1024), np.float32), format="fltp", layout="stereo"
            )
            silence.sample_rate = 48000
            out.mux(sound.encode(silence))
            out.mux(sound.encode(None))
    return path


def read_clip(path):
    with av.open(str(path)) as clip:
        stream = clip.streams.video[0]
        frames = list(clip.decode(stream))
        times = [frame.pts * Fraction(stream.time_base) for frame in frames]
        return frames, times, Fraction(stream.guessed_rate)


@pytest.fixture(scope="module")
def vfi(models):
    with Interpolator.open(models / "dynamic.onnx") as opened:
        yield opened


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_times_and_rate(tmp_path, vfi, factor, suffix):
    source = write_clip(tmp_path / f"in{suffix}", 5)
    out = tmp_path / f"out{suffix}"
    seen = []
    report = interpolate_video(
        source, out, model=vfi, factor=factor, progress=lambda done, _: seen.append(done)
    )
    frames, times, rate = read_clip(out)
    assert (report.frames_in, report.frames_out) == (5, 5 * factor)
    assert report.rate == RATE * factor
    assert report.notes == []
    assert seen == [1, 2, 3, 4, 5]
    assert len(frames) == 5 * factor
    # Matroska rounds the length of a frame to nanoseconds.
    assert rate == pytest.approx(RATE * factor, rel=0 if suffix == ".mp4" else 1e-6)
    for number, time in enumerate(times):
        # Matroska counts milliseconds; MP4 is exact.
        assert abs(time - number / rate) <= (0 if suffix == ".mp4" else Fraction(1, 1000))
    assert (frames[0].width, frames[0].height) == (80, 64)


def test_real_frames_stay_and_new_ones_lie_between(tmp_path, vfi):
    source = write_clip(tmp_path / "in.mp4", 4)
    interpolate_video(source, tmp_path / "out.mp4", model=vfi)
    real = [f.to_ndarray(format="rgb24").astype(float) for f in read_clip(source)[0]]
    made = [f.to_ndarray(format="rgb24").astype(float) for f in read_clip(tmp_path / "out.mp4")[0]]

    def distance(a, b):
        return np.abs(a - b).mean()

    for k, frame in enumerate(real):
        assert distance(made[2 * k], frame) < 2.5  # what the encoder loses
    moved = distance(real[0], real[1])
    for k in range(3):
        assert distance(made[2 * k + 1], real[k]) > 0.3 * moved
        assert distance(made[2 * k + 1], real[k + 1]) > 0.3 * moved
    np.testing.assert_array_equal(made[-1].shape, made[-2].shape)
    assert distance(made[-1], made[-2]) < 1  # the last frame is held


def test_variable_gaps_are_cut_each_at_its_own_times(tmp_path, vfi):
    stamps = [0, 1, 2, 5, 6]
    source = write_clip(tmp_path / "in.mp4", 5, rate=Fraction(25), stamps=stamps)
    interpolate_video(source, tmp_path / "out.mp4", model=vfi)
    _, times, _ = read_clip(tmp_path / "out.mp4")
    halves = [0, 1, 2, 3, 4, 7, 10, 11, 12, 13]
    assert times == [Fraction(h, 50) for h in halves]


def test_odd_sizes(tmp_path, vfi):
    source = DATA / "bear-vp9-odd-dimensions.webm"
    for name, note in (("out.webm", False), ("out.mp4", True)):
        report = interpolate_video(source, tmp_path / name, model=vfi)
        frames, _, rate = read_clip(tmp_path / name)
        assert len(frames) == report.frames_out == 60
        assert (frames[0].width, frames[0].height) == (161, 121)
        assert rate == 2 * Fraction(2997, 100)
        assert any("yuv444p" in text for text in report.notes) == note


def test_a_damaged_packet_is_skipped_counted_and_said(tmp_path):
    class Hold(HostBackend):
        """A model that repeats the first frame: this clip is about packets, not pictures."""

        name = "hold"
        info = ModelInfo(
            "small", "", "fp32", "frames", 16, 1.0, "arbitrary", 1, 1, None, None, "gridsample",
            "any", "0",
        )  # fmt: skip

        def run(self, img0, img1, timestep):
            del img1, timestep
            return img0.copy()

        def close(self):
            pass

    report = interpolate_video(
        DATA / "sample_with_invalid_nalu.mp4", tmp_path / "out.mp4", model=Interpolator(Hold())
    )
    assert report.frames_in == 29
    assert report.notes == ["skipped as damaged: 1 packets"]
    frames, times, _ = read_clip(tmp_path / "out.mp4")
    assert len(frames) == report.frames_out == 58
    assert times == sorted(set(times))


def test_what_is_dropped_is_said(tmp_path, vfi):
    source = write_clip(tmp_path / "in.mp4", 3, audio=True)
    report = interpolate_video(source, tmp_path / "out.mp4", model=vfi)
    assert report.notes == ["not carried over: audio"]


def test_ten_bit_in_is_ten_bit_out_and_what_is_lost_is_said(tmp_path, vfi, models):
    source = write_clip(tmp_path / "in.mp4", 3, pix_fmt="yuv420p10le")
    report = interpolate_video(source, tmp_path / "a.mp4", model=vfi)
    assert any("8 of 10 bit: use a model exported with --io float" in n for n in report.notes)
    report = interpolate_video(source, tmp_path / "b.mp4", model=models / "float.onnx")
    assert report.notes == []
    for name in ("a.mp4", "b.mp4"):
        assert read_clip(tmp_path / name)[0][0].format.name == "yuv420p10le"


def test_colour_tags_are_carried_over(tmp_path, vfi):
    tags = {"color_range": 2, "colorspace": 5, "color_primaries": 5, "color_trc": 6}
    source = write_clip(tmp_path / "in.mp4", 3, pix_fmt="yuvj420p", tags=tags)
    report = interpolate_video(source, tmp_path / "out.mp4", model=vfi)
    assert report.notes == []
    for frame in read_clip(tmp_path / "out.mp4")[0]:
        assert {name: int(getattr(frame, name)) for name in tags} == tags


def test_rotation_is_carried_over(tmp_path, vfi):
    source = write_clip(tmp_path / "in.mp4", 3, rotation=90)
    assert read_clip(source)[0][0].rotation == 90
    interpolate_video(source, tmp_path / "out.mp4", model=vfi)
    frames, _, _ = read_clip(tmp_path / "out.mp4")
    assert {frame.rotation for frame in frames} == {90}
    assert (frames[0].width, frames[0].height) == (80, 64)


def test_rgb_sources_become_yuv_with_a_note(tmp_path, vfi):
    source = write_clip(tmp_path / "in.mov", 3, pix_fmt="rgb24", codec="png")
    report = interpolate_video(source, tmp_path / "out.mp4", model=vfi)
    assert report.notes == ["written as yuv420p, the source is rgb24"]
    real, made = (read_clip(p)[0][0] for p in (source, tmp_path / "out.mp4"))
    assert int(made.colorspace) != 0  # 0 says RGB
    difference = real.to_ndarray(format="rgb24").astype(int) - made.to_ndarray(format="rgb24")
    assert np.abs(difference).mean() < 8  # halved chroma of a noisy scene
    # Real and new frames go through one range: no flicker.
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
def test_sources_that_are_none_leave_nothing(tmp_path, vfi, make, message):
    source = tmp_path / "in.webm"
    make(source)
    with pytest.raises(VideoError, match=message):
        interpolate_video(source, tmp_path / "out.mp4", model=vfi)
    assert {p.name for p in tmp_path.iterdir()} <= {"in.webm"}


def test_sound_alone_is_no_video(tmp_path, vfi):
    with av.open(str(tmp_path / "in.mka"), "w") as out:
        sound = out.add_stream("aac", rate=48000)
        silence = av.AudioFrame.from_ndarray(
            np.zeros((2, 1024), np.float32), format="fltp", layout="stereo"
        )
        silence.sample_rate = 48000
        out.mux(sound.encode(silence))
        out.mux(sound.encode(None))
    with pytest.raises(VideoError, match="no video track"):
        interpolate_video(tmp_path / "in.mka", tmp_path / "out.mp4", model=vfi)


@pytest.mark.parametrize(
    ("name", "message"),
    [("out.txt", "no suffix of a video"), ("no/out.mp4", "is no folder"), ("in.mp4", "itself")],
)
def test_destinations_that_cannot_be(tmp_path, vfi, name, message):
    source = write_clip(tmp_path / "in.mp4", 2)
    content = source.read_bytes()
    with pytest.raises(VideoError, match=message):
        interpolate_video(source, tmp_path / name, model=vfi)
    assert source.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_a_failure_in_the_middle_keeps_what_stood_there(tmp_path, vfi):
    source = write_clip(tmp_path / "in.mp4", 6)
    out = tmp_path / "out.mp4"
    out.write_bytes(b"an older result")

    def stop(done, _):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interpolate_video(source, out, model=vfi, progress=stop)
    assert out.read_bytes() == b"an older result"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_a_model_of_another_size_is_named_before_anything_is_written(tmp_path, models):
    source = write_clip(tmp_path / "in.mp4", 3)
    with pytest.raises(FrameError, match="export with --size 64x80 or --dynamic"):
        interpolate_video(source, tmp_path / "out.mp4", model=models / "frames.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("factor", [0, 1, 2.5])
def test_factors_that_are_none(tmp_path, vfi, factor):
    source = write_clip(tmp_path / "in.mp4", 2)
    with pytest.raises((FrameError, VideoError), match="factor is"):
        interpolate_video(source, tmp_path / "out.mp4", model=vfi, factor=factor)


def test_the_command(tmp_path, models):
    write_clip(tmp_path / "in.mp4", 3)
    done = run_module(
        "runtime", "in.mp4", "out.mp4", "--model", models / "dynamic.onnx", "--factor", "4",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 -> 12 frames at 119.880 per second" in done.stdout
    assert len(read_clip(tmp_path / "out.mp4")[0]) == 12
