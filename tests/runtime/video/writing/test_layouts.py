"""Layouts of audio tracks that are encoded as AAC."""

from fractions import Fraction

import av
import numpy as np
import pytest

from runtime import VideoError
from runtime.video.interpolate import plan_video
from runtime.video.options import VideoOptions
from runtime.video.reading.info import DecodedFrame
from runtime.video.reading.source import open_source
from runtime.video.writing.sink import open_sink
from video_clips import RATE, pictures

BURST = 9600
"""Samples in which one channel after the other has a tone."""


def write_layout(path, layout, codec="pcm_s16le"):
    """Writes a clip in which each channel of the layout has a tone at another time."""
    channels = av.AudioLayout(layout).nb_channels
    tone = (8000 * np.sin(2 * np.pi * 100 * np.arange(BURST) / 48000)).astype(np.int16)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = out.add_stream(codec, rate=48000, layout=layout)
        for k, frame in enumerate(pictures(5 * channels)):
            frame.pts, frame.time_base = k, 1 / RATE
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for k in range(channels):
            samples = np.zeros((BURST, channels), np.int16)
            samples[:, k] = tone
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "s16", layout)
            frame.sample_rate, frame.pts, frame.time_base = 48000, k * BURST, Fraction(1, 48000)
            out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    return path


def gains(path):
    """(layout, names of the output's channels, gain of each in each burst) of the first track."""
    with av.open(str(path)) as clip:
        frames = list(clip.decode(audio=0))
    layout = frames[0].layout
    graph = av.filter.Graph()
    source = graph.add_abuffer(
        format="fltp", sample_rate=48000, layout=layout.name, time_base=Fraction(1, 48000)
    )
    packed = graph.add("aformat", "sample_fmts=s16")  # PyAV gives 8 planes at most.
    graph.link_nodes(source, packed, graph.add("abuffersink")).configure()
    found = []
    for frame in [*frames, None]:
        graph.push(frame)
        while True:
            try:
                found.append(graph.pull().to_ndarray().reshape(-1, layout.nb_channels))
            except (av.error.BlockingIOError, av.error.EOFError):
                break
    sound = np.abs(np.concatenate(found).astype(float))
    bursts = [sound[k * BURST + 3000 : (k + 1) * BURST - 3000] for k in range(len(sound) // BURST)]
    level = 8000 * 2 / np.pi
    return (
        layout.name,
        [channel.name for channel in layout.channels],
        np.array([burst.mean(0) / level for burst in bursts]),
    )


def converted(source, destination):
    with open_source(source) as opened:
        info = opened.info
        with open_sink(destination, like=info, rate=RATE, audio="aac") as sink:
            early = list(sink.notes)
            for item in opened:
                if isinstance(item, DecodedFrame):
                    sink.write(item.frame, item.pts * item.time_base - info.origin)
                else:
                    sink.write_packet(item)
    assert sink.notes == early
    return early


@pytest.mark.parametrize(
    ("layout", "made", "others"),
    [
        ("mono", "mono", {}),
        ("stereo", "stereo", {}),
        ("2.1", "2.1", {}),
        ("3.0", "3.0", {}),
        ("4.0", "4.0", {}),
        ("quad", "quad", {}),
        ("5.0", "5.0", {}),
        ("5.1", "5.1", {}),
        ("5.1(side)", "5.1", {"SL": "BL", "SR": "BR"}),
        ("5.0(side)", "5.0", {"SL": "BL", "SR": "BR"}),
        ("7.1", "7.1", {}),
        ("3.1", "5.1", {}),
        ("4.1", "5.1", {"BC": "BL BR"}),
        ("6.1", "7.1", {"BC": "BL BR"}),
        ("7.0", "7.1", {}),
    ],
)
def test_layouts_whose_channels_aac_keeps(tmp_path, layout, made, others):
    source = write_layout(tmp_path / "in.mov", layout)
    with av.open(str(source)) as clip:
        assert clip.streams.audio[0].layout.name == layout
    notes = converted(source, tmp_path / "out.mp4")
    name, names, found = gains(tmp_path / "out.mp4")
    assert name == made
    assert len(found) == av.AudioLayout(layout).nb_channels
    for channel, row in zip(av.AudioLayout(layout).channels, found, strict=True):
        targets = others.get(channel.name, channel.name).split()
        for target, gain in zip(names, row, strict=True):
            expected = len(targets) ** -0.5 if target in targets else 0
            assert gain == pytest.approx(expected, abs=0.08), (channel.name, target)
    larger = av.AudioLayout(made).nb_channels > av.AudioLayout(layout).nb_channels
    expected = f"encoded as AAC, in the layout {made}, which holds all of {layout}"
    assert notes == ([f"audio track 1 (pcm_s16le): {expected}"] if larger else [])


@pytest.mark.parametrize(
    ("layout", "made"),
    [("hexagonal", "5.1"), ("6.1(back)", "7.1"), ("7.1(wide)", "7.1"), ("hexadecagonal", "7.1")],
)
def test_a_downmix_is_named_before_the_first_frame(tmp_path, layout, made):
    source = write_layout(tmp_path / "in.mov", layout)
    notes = converted(source, tmp_path / "out.mp4")
    change = f"encoded as AAC, mixed down from {layout} to {made}"
    assert notes == [f"audio track 1 (pcm_s16le): {change}"]
    assert gains(tmp_path / "out.mp4")[0] == made
    plan = plan_video(source, tmp_path / "no.mp4", options=VideoOptions(audio="aac"))
    assert plan.tracks == [f"audio track 1 (pcm_s16le): {change}"]


def test_channels_without_positions_are_refused_before_the_first_frame(tmp_path):
    source = write_layout(tmp_path / "in.mkv", "hexadecagonal")  # Matroska declares no layout.
    with open_source(source) as opened:
        with (
            pytest.raises(VideoError, match="has 16 channels without known positions"),
            open_sink(tmp_path / "out.mkv", like=opened.info, rate=RATE, audio="aac"),
        ):
            pass
        assert not list(tmp_path.glob("out*"))
