"""How long frames are shown: the last frame, parts, variable rates and long gaps."""

import itertools
import weakref
from fractions import Fraction

import av
import numpy as np
import pytest

from blend import Blend
from runtime import Interpolator, VideoError, interpolate_video
from runtime.video.options import VideoOptions
from runtime.video.reading.source import open_source
from runtime.video.render import Rendering
from runtime.video.timing.schedule import OnlineSchedule
from runtime.video.timing.timeline import ConstantRate, Multiply
from video_clips import pictures, write
from video_parts import KEYS, interpolate_in_segments

OUTPUTS = [
    ("out.mp4", "h264"),
    ("out.mov", "h264"),
    ("out.mp4", "hevc"),
    ("out.mp4", "av1"),
    ("out.mov", "prores"),
    ("out.mkv", "h264"),
    ("out.mkv", "ffv1"),
    ("out.webm", "vp9"),
]


@pytest.fixture
def vfi():
    return Interpolator(Blend())


def shown(path):
    """The times at which the frames of a file are shown, and the time at which the file ends."""
    with av.open(str(path)) as clip:
        stream = clip.streams.video[0]
        over = stream.duration and stream.duration * stream.time_base
        times = [frame.pts * frame.time_base for frame in clip.decode(stream)]
        return times, over or Fraction(clip.duration, av.time_base)


def gif(path, stamps, last):
    """Writes a GIF; `stamps` and the duration of the last frame are in hundredths of a second."""
    options = {"final_delay": str(last)}
    with av.open(str(path), "w", container_options=options) as out:
        stream = out.add_stream("gif", rate=100)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8"
        for stamp, frame in zip(stamps, pictures(len(stamps), fmt="rgb8"), strict=True):
            frame.pts, frame.time_base = stamp, Fraction(1, 100)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("name", "codec"), OUTPUTS)
def test_the_last_frame_keeps_its_duration(tmp_path, vfi, name, codec):
    source = gif(tmp_path / "in.gif", [0, 10, 20, 30], 200)
    interpolate_video(source, tmp_path / name, model=vfi, options=VideoOptions(codec=codec))
    times, over = shown(tmp_path / name)
    assert over == Fraction("2.3")
    assert times == [*(Fraction(k, 20) for k in range(7)), Fraction("1.3")]


@pytest.mark.parametrize(("name", "codec"), OUTPUTS)
def test_a_part_of_a_variable_rate_ends_where_it_was_cut(tmp_path, vfi, name, codec):
    source = write(tmp_path / "in.mkv", 6, stamps=[0, 40, 80, 120, 700, 1500])
    options = VideoOptions(codec=codec, end="0.95", cuts=None)
    interpolate_video(source, tmp_path / name, model=vfi, options=options)
    times, over = shown(tmp_path / name)
    assert over == Fraction("0.95")
    assert times == [Fraction(n, 1000) for n in (0, 20, 40, 60, 80, 100, 120, 410, 700)]


def test_a_constant_rate_has_one_duration(tmp_path, vfi):
    source = write(tmp_path / "in.mp4", 40, options={"bf": "3"})
    interpolate_video(source, tmp_path / "out.mp4", model=vfi)
    with av.open(str(tmp_path / "out.mp4")) as clip:
        packets = [packet for packet in clip.demux(video=0) if packet.size]
        assert {packet.duration * packet.time_base for packet in packets} == {Fraction(1, 50)}
        steps = {b.dts - a.dts for a, b in itertools.pairwise(packets)}
        assert len(steps) == 1
        assert clip.streams.video[0].average_rate == 50


def test_a_frame_has_its_duration_in_matroska(tmp_path, vfi):
    source = write(tmp_path / "in.mkv", 5, stamps=[0, 40, 440, 480, 520])
    interpolate_video(
        source, tmp_path / "o.mkv", model=vfi, options=VideoOptions(codec="ffv1", cuts=None)
    )
    with av.open(str(tmp_path / "o.mkv")) as clip:
        spans = [packet.duration for packet in clip.demux(video=0) if packet.size]
    assert spans == [20, 20, 200, 200, 20, 20, 20, 20, 20, 20]


@pytest.mark.parametrize(("name", "lossless"), [("o.mp4", True), ("o.mkv", False)])
def test_segments_end_as_one_run(tmp_path, vfi, name, lossless):
    stamps = [*range(0, 1200, 40), 1240, 1500]
    source = write(tmp_path / "in.mp4", 32, options=KEYS, stamps=stamps)
    options = VideoOptions(lossless=lossless, cuts=None, end=None)
    interpolate_video(source, tmp_path / f"one-{name}", model=vfi, options=options)
    planned = interpolate_in_segments(source, tmp_path / name, vfi, options)
    assert len(planned.segments) > 1
    assert shown(tmp_path / name) == shown(tmp_path / f"one-{name}")


GAP = [0, 33, 67, 100, 5100, 5133, 5167]


def new_frames(path):
    """Numbers of the frames of a lossless file that differ from the real frames of the source."""
    real = {frame.to_ndarray().tobytes() for frame in pictures(len(GAP))}
    with av.open(str(path)) as clip:
        frames = list(clip.decode(video=0))
    return [n for n, frame in enumerate(frames) if frame.to_ndarray().tobytes() not in real]


@pytest.mark.parametrize(
    ("longest", "held", "new"),
    [
        ("auto", 1, [1, 3, 5, 9, 11]),
        ("4.9", 1, [1, 3, 5, 9, 11]),
        (5, 0, [1, 3, 5, 7, 9, 11]),
        (None, 0, [1, 3, 5, 7, 9, 11]),
        ("0.01", 6, []),
    ],
)
def test_a_frame_is_held_in_a_long_gap(tmp_path, vfi, longest, held, new):
    source = write(tmp_path / "in.mkv", 7, codec="ffv1", stamps=GAP, rate=Fraction(30))
    options = VideoOptions(codec="ffv1", cuts=None, longest_gap=longest)
    report = interpolate_video(source, tmp_path / "out.mkv", model=vfi, options=options)
    assert new_frames(tmp_path / "out.mkv") == new
    assert (report.held_gaps, report.frames_new) == (held, len(new))
    planned = interpolate_in_segments(source, tmp_path / "cut.mkv", vfi, options)
    assert planned.held_gaps == held
    assert new_frames(tmp_path / "cut.mkv") == new


def test_a_slow_video_has_no_long_gaps(tmp_path, vfi):
    source = write(tmp_path / "in.mp4", 4, rate=Fraction(1, 2))
    report = interpolate_video(
        source, tmp_path / "o.mp4", model=vfi, options=VideoOptions(cuts=None)
    )
    assert (report.held_gaps, report.frames_new) == (0, 3)


@pytest.mark.parametrize("gap", [0, -1, "0", "soon", float("nan")])
def test_a_longest_gap_is_a_time(gap):
    with pytest.raises(VideoError, match="longest_gap is"):
        VideoOptions(longest_gap=gap)


class Counting(Blend):
    """Counts the new images that are in memory.

    Attributes:
        most: The largest number so far.
    """

    def __init__(self, **info):
        super().__init__(**info)
        self.most = self.alive = 0

    def run(self, img0, img1, timestep):
        image = super().run(img0, img1, timestep)
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(image, self._free)
        return image

    def _free(self):
        self.alive -= 1


class CountingInputs(Counting):
    """Counts the images of real frames that are in memory."""

    def put(self, image):
        self.alive += 1
        self.most = max(self.most, self.alive)
        memory = image
        while memory.base is not None:
            memory = memory.base
        weakref.finalize(memory, self._free)
        return image

    def run(self, img0, img1, timestep):
        return Blend.run(self, img0, img1, timestep)


class Discard:
    """A sink that counts frames."""

    alpha = False

    def __init__(self):
        self.written = 0

    def write(self, frame, time):
        del frame, time
        self.written += 1

    def end_at(self, time):
        pass


@pytest.mark.parametrize("time_steps", ["arbitrary", "midpoint"])
def test_memory_does_not_grow_with_a_gap(tmp_path, time_steps):
    source = write(tmp_path / "in.mkv", 4, stamps=[0, 40, 80, 40_080])
    backend, sink = Counting(time_steps=time_steps), Discard()
    with open_source(source) as read:
        schedule = OnlineSchedule(read.info, ConstantRate(Fraction(50)), time_steps)
        Rendering(Interpolator(backend), read.info, schedule).run(read, sink)
    assert sink.written > 2000
    assert backend.most <= 128


def test_memory_does_not_grow_with_the_number_of_real_frames(tmp_path):
    source = write(tmp_path / "in.mkv", 100)
    backend, sink = CountingInputs(), Discard()
    with open_source(source) as read:
        schedule = OnlineSchedule(read.info, Multiply(2), "arbitrary")
        Rendering(Interpolator(backend), read.info, schedule).run(read, sink)
    assert sink.written == 200
    assert 2 <= backend.most <= 20


def test_new_frames_of_a_long_gap_have_their_times(tmp_path, vfi):
    """The frames of one pair are computed in several requests."""
    source = write(tmp_path / "in.mkv", 4, codec="ffv1", stamps=[0, 40, 80, 880])
    options = VideoOptions(codec="ffv1", cuts=None, longest_gap=None)
    interpolate_video(source, tmp_path / "o.mkv", model=vfi, rate=100, options=options)
    with av.open(str(tmp_path / "o.mkv")) as clip:
        means = [frame.to_ndarray().astype(float).mean() for frame in clip.decode(video=0)]
    steps = np.diff(means[8:88])
    assert np.abs(steps - steps.mean()).max() < 0.2
