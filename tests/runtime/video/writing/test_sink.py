import io
import os
import signal
import subprocess
import sys
from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from paths import DATA, ROOT
from runtime import VideoError
from runtime.video.reading.info import DecodedFrame
from runtime.video.reading.source import open_source
from runtime.video.writing.encoding import EncodeOptions, available, encoding_for
from runtime.video.writing.sink import open_sink
from video_clips import (
    RATE,
    arrays_of,
    frames_of,
    packets_of,
    pictures,
    planes,
    samples_of,
    times_of,
    write,
)


def passed(source, destination, *, start=None, end=None, stop=None, **options):
    """Copies all frames and packets; returns (info, notes). Calls `stop` with each number."""
    names = [field.name for field in fields(EncodeOptions)]
    options["encode"] = EncodeOptions(**{n: options.pop(n) for n in names if n in options})
    with open_source(source, start=start, end=end) as opened:
        info = opened.info
        with open_sink(destination, like=info, rate=options.pop("rate", info.rate), **options) as s:
            number = 0
            for item in opened:
                if not isinstance(item, DecodedFrame):
                    s.write_packet(item)
                    continue
                moment = item.pts * item.time_base - info.origin
                if moment < 0 or (end is not None and moment >= end - (start or 0)):
                    continue
                s.write(item.frame, moment)
                number += 1
                if stop is not None:
                    stop(number)
    return info, s.notes


def names(folder):
    return sorted(p.name for p in folder.iterdir())


FORMATS = ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le", "gray"]


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("codec", ["ffv1", "h264", "hevc"])
def test_lossless_results_are_bit_exact(tmp_path, fmt, codec):
    if (fmt, codec) == ("gray", "h264"):
        pytest.skip("FFmpeg decodes H.264 without chroma as yuv420p")
    source = write(tmp_path / "in.mkv", 6, codec="ffv1", fmt=fmt)
    _, notes = passed(source, tmp_path / "out.mkv", codec=codec, lossless=True)
    assert notes == []
    frames = frames_of(tmp_path / "out.mkv")
    assert {f.format.name for f in frames} == {fmt}
    for made, expected in zip(frames, arrays_of(source), strict=True):
        assert np.array_equal(planes(made), expected)


@pytest.mark.parametrize("fmt", ["yuv420p", "yuv444p"])
def test_lossless_vp9_is_bit_exact(tmp_path, fmt):
    source = write(tmp_path / "in.mkv", 4, codec="ffv1", fmt=fmt)
    passed(source, tmp_path / "out.webm", lossless=True)
    assert np.array_equal(arrays_of(tmp_path / "out.webm"), arrays_of(source))


def test_rgb_is_lossless_in_ffv1(tmp_path):
    source = write(tmp_path / "in.mkv", 4, codec="ffv1", fmt="bgr0")
    _, notes = passed(source, tmp_path / "out.mkv", codec="ffv1", lossless=True)
    assert notes == []
    assert np.array_equal(
        [f.to_ndarray(format="rgb24") for f in frames_of(tmp_path / "out.mkv")],
        [f.to_ndarray(format="rgb24") for f in frames_of(source)],
    )


@pytest.mark.parametrize(
    ("suffix", "fmt", "codec", "expected"),
    [
        (".mp4", "yuv420p", None, "h264"),
        (".m4v", "yuv420p", None, "h264"),
        (".mov", "yuv422p10le", None, "h264"),
        (".mkv", "yuv444p", None, "h264"),
        (".webm", "yuv420p", None, "vp9"),
        (".mp4", "yuv420p10le", "hevc", "hevc"),
        (".mp4", "yuv420p", "vp9", "vp9"),
        (".mkv", "yuv420p10le", "av1", "av1"),
        (".mov", "yuv422p10le", "prores", "prores"),
        (".mkv", "yuv420p", "libx264", "h264"),
        (".mkv", "yuv420p", "mpeg4", "mpeg4"),
    ],
)
def test_codecs_keep_pixel_format_and_times(tmp_path, suffix, fmt, codec, expected, capfd):
    source = write(tmp_path / "in.mkv", 10, codec="ffv1", fmt=fmt)
    out = tmp_path / f"out{suffix}"
    _, notes = passed(source, out, codec=codec)
    assert notes == []
    assert names(tmp_path) == ["in.mkv", out.name]
    with av.open(str(out)) as clip:
        assert clip.streams.video[0].codec_context.codec.canonical_name == expected
        assert clip.streams.video[0].guessed_rate == RATE
    assert frames_of(out)[0].format.name == fmt
    assert times_of(out) == [Fraction(k, 25) for k in range(10)]
    worst = max(
        np.abs(a.astype(int) - b).mean()
        for a, b in zip(arrays_of(out), arrays_of(source), strict=True)
    )
    assert worst < (30 if "10" in fmt else 8)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(60000, 1001), Fraction(120)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_times_are_exact(tmp_path, rate, suffix):
    with open_source(write(tmp_path / "in.mkv", 2)) as source:
        out = tmp_path / f"out{suffix}"
        with open_sink(out, like=source.info, rate=rate) as sink:
            for k, frame in enumerate(pictures(30)):
                sink.write(frame, k / rate)
            assert sink.written == 30
    fuzz = 0 if suffix == ".mp4" else Fraction(1, 1000)
    times = times_of(out)
    assert len(times) == 30
    for k, moment in enumerate(times):
        assert abs(moment - k / rate) <= fuzz
    with av.open(str(out)) as clip:
        assert abs(Fraction(clip.duration, av.time_base) - 30 / rate) <= Fraction(1, 500)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "ffv1", "libvpx-vp9"])
def test_more_frames_than_matroska_has_milliseconds_are_written_and_named(tmp_path, codec):
    rate = Fraction(2400)
    source = write(tmp_path / "in.mp4", 60, rate=rate)
    options = {"rate": rate, "codec": codec}
    _, notes = passed(source, tmp_path / "out.mkv", **options)
    assert len(frames_of(tmp_path / "out.mkv")) == 60
    assert "at 2400 frames a second several frames have the same time, as .mkv counts" in notes[-1]
    assert passed(source, tmp_path / "slow.mkv", **{**options, "rate": Fraction(1000)})[1] == []
    if codec in ("libx264", "libx265"):
        assert passed(source, tmp_path / "out.mp4", **options)[1] == []
        assert times_of(tmp_path / "out.mp4") == [k / rate for k in range(60)]


def test_variable_times_are_kept_within_a_tick(tmp_path):
    moments = [Fraction(k * k, 7 * 600) for k in range(12)]
    with open_source(write(tmp_path / "in.mkv", 2)) as source:
        tick = Fraction(1, 7 * 600)
        out = tmp_path / "out.mp4"
        with open_sink(out, like=source.info, rate=RATE, time_base=tick) as sink:
            for moment, frame in zip(moments, pictures(12), strict=True):
                sink.write(frame, moment)
    assert times_of(out) == moments


@pytest.mark.parametrize(
    ("audio", "inside", "outside"),
    [
        ("aac", ".mp4", ".mp4"),
        ("aac", ".mp4", ".mov"),
        ("aac", ".mp4", ".mkv"),
        ("libopus", ".mkv", ".webm"),
        ("libopus", ".mkv", ".mkv"),
        ("libopus", ".mkv", ".mp4"),
        ("flac", ".mkv", ".mp4"),
        ("pcm_s24le", ".mov", ".mkv"),
        ("pcm_s16le", ".mov", ".mov"),
    ],
)
def test_sound_is_copied(tmp_path, audio, inside, outside):
    source = write(tmp_path / f"in{inside}", 50, audio=audio, languages=("fra",))
    out = tmp_path / f"out{outside}"
    _, notes = passed(source, out)
    assert notes == []
    before, after = packets_of(source, 1), packets_of(out, 1)
    assert [data for _, data in after] == [data for _, data in before]
    assert len(before) >= 21  # FLAC has the longest packets, of 96 ms.
    # Matroska has no times before 0: video and sound shift by the priming (21 ms in AAC).
    moved = times_of(out)[0] - times_of(source)[0]
    assert moved <= Fraction(22, 1000)
    for (was, _), (now, _) in zip(before, after, strict=True):
        assert abs(now - moved - was) <= Fraction(2, 1000)
    if outside != ".mkv" and audio != "libopus":
        assert moved == 0
    with av.open(str(out)) as clip:
        assert clip.streams.audio[0].language == "fra"
    if audio != "libopus" and outside != ".mkv":  # containers that can mark priming and padding
        first, sound = samples_of(out)
        assert (first, len(sound)) == (samples_of(source)[0], len(samples_of(source)[1]))
        assert np.array_equal(sound, samples_of(source)[1])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("mode", ["copy", "aac"])
@pytest.mark.parametrize("late", ["audio", "video"])
def test_a_track_that_starts_later_stays_in_sync(tmp_path, suffix, late, mode):
    source = write(
        tmp_path / "in.mp4",
        25,
        audio="aac",
        audio_start=Fraction(1, 2) if late == "audio" else 0,
        stamps=[500 + 40 * k for k in range(25)] if late == "video" else None,
    )
    out = tmp_path / f"out{suffix}"
    passed(source, out, audio=mode)
    assert abs(times_of(out)[0] - times_of(source)[0]) <= Fraction(22, 1000)
    onsets = []
    for path in (source, out):
        first, sound = samples_of(path)
        heard = first + Fraction(int(np.argmax(np.abs(sound) > 0.1)), 48000)
        onsets.append(heard - times_of(path)[0])
    # In Matroska the priming of AAC is played.
    assert abs(onsets[0] - onsets[1]) <= Fraction(23, 1000)


@pytest.mark.parametrize("audio", ["pcm_s16le", "libopus", "flac"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_sound_converted_to_aac_keeps_its_length(tmp_path, audio, suffix):
    source = write(tmp_path / "in.mkv", 50, audio=audio)
    out = tmp_path / f"out{suffix}"
    passed(source, out, audio="aac")
    first, sound = samples_of(out)
    was, expected = samples_of(source)
    assert abs(first - was) <= Fraction(1024, 48000)
    # FFmpeg 8.0 does not cut the padding at the end of Opus.
    assert abs(len(sound) - len(expected)) <= (1024 if audio != "libopus" else 2048)
    if expected.dtype != np.float32:
        expected = expected.astype(float) / (2 ** (8 * expected.dtype.itemsize - 1))
    middle = slice(4096, 8192)
    assert np.corrcoef(sound[middle], expected[middle])[0, 1] > 0.99 or audio == "libopus"


@pytest.mark.parametrize("mode", ["copy", "aac"])
def test_sound_of_a_part_is_in_sync_and_ends_with_it(tmp_path, mode):
    source = write(tmp_path / "in.mkv", 100, audio="flac")
    start, end = Fraction(1), Fraction(3)
    passed(source, tmp_path / "out.mp4", start=start, end=end, audio=mode)
    assert times_of(tmp_path / "out.mp4") == [Fraction(k, 25) for k in range(50)]
    packets = packets_of(tmp_path / "out.mp4", 1)
    if mode == "copy":
        # Of 4608 samples each; packet 11 of the source begins at 1.056 s, packet 31 at 2.976 s.
        assert packets == [(time - start, data) for time, data in packets_of(source, 1)[11:32]]
    else:
        # 96000 samples after a packet of priming; the last packet has 768 of them.
        assert (len(packets), samples_of(tmp_path / "out.mp4")[0]) == (95, 0)
        with av.open(str(tmp_path / "out.mp4")) as clip:
            assert sum(p.duration for p in clip.demux(audio=0) if p.size) == 1024 + 96000


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_chapters_are_cut_to_a_part(tmp_path, suffix):
    chapters = ((0, 900, "a"), (900, 1500, "b"), (1500, 4000, "c"), (4000, 5000, "d"))
    source = write(tmp_path / "in.mkv", 125, chapters=chapters)
    passed(source, tmp_path / f"out{suffix}", start=Fraction(1), end=Fraction(3))
    with av.open(str(tmp_path / f"out{suffix}")) as clip:
        found = [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
            for c in clip.chapters()
        ]
    assert found == [(0, Fraction(1, 2), "b"), (Fraction(1, 2), 2, "c")]


@pytest.mark.parametrize(
    ("audio", "suffix", "message"),
    [
        ("libopus", ".mov", "mov does not support opus audio: choose .mkv, or --audio aac"),
        ("aac", ".webm", "webm does not support aac audio: choose .mkv, or --audio none"),
    ],
)
def test_sound_that_the_container_does_not_support_is_refused(tmp_path, audio, suffix, message):
    source = write(tmp_path / "in.mkv", 5, audio=audio)
    out = tmp_path / f"out{suffix}"
    with pytest.raises(VideoError, match=message):
        passed(source, out)
    assert names(tmp_path) == ["in.mkv"]
    _, notes = passed(source, out, audio="none")
    assert notes == [f"audio track 1 ({audio.removeprefix('lib')}): not carried over"]
    if suffix == ".webm":
        with pytest.raises(VideoError, match="webm does not support aac"):
            passed(source, out, audio="aac", overwrite=True)


def test_subtitles_are_copied(tmp_path):
    source = write(tmp_path / "in.mkv", 25, subtitles="subrip", audio="aac", languages=("a", "deu"))
    passed(source, tmp_path / "out.mkv")
    moved = times_of(tmp_path / "out.mkv")[0]
    assert packets_of(tmp_path / "out.mkv", 2) == [
        (time + moved, text) for time, text in packets_of(source, 2)
    ]
    with av.open(str(tmp_path / "out.mkv")) as clip:
        assert clip.streams[2].language == "deu"
    _, notes = passed(source, tmp_path / "out.mp4")
    assert notes == [
        "subtitle track 2 (srt, deu): not carried over, because mp4 does not support it"
    ]


def test_tags_metadata_and_chapters_are_copied(tmp_path):
    tags = {"color_range": 1, "colorspace": 1, "color_primaries": 1, "color_trc": 1}
    source = write(
        tmp_path / "in.mkv",
        25,
        tags=tags,
        sar=Fraction(4, 3),
        metadata={"title": "A title", "creation_time": "2020-01-02T03:04:05.000000Z"},
        chapters=((0, 500, "one"), (500, 1000, "two")),
    )
    for name in ("out.mp4", "out.mkv", "out.webm"):
        _, notes = passed(source, tmp_path / name)
        frame = frames_of(tmp_path / name)[0]
        assert {tag: int(getattr(frame, tag)) for tag in tags} == tags, name
        with av.open(str(tmp_path / name)) as clip:
            if name == "out.webm":
                assert notes == [
                    "the pixel aspect ratio, 4/3, is not carried over by libvpx-vp9 in webm: "
                    "choose .mp4 or .mov"
                ]
            else:
                assert notes == []
                assert clip.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
            assert clip.metadata["title"] == "A title"
            assert clip.metadata["creation_time"] == "2020-01-02T03:04:05.000000Z"
            assert [
                (c["start"] * c["time_base"], c["metadata"]["title"]) for c in clip.chapters()
            ] == [(0, "one"), (Fraction(1, 2), "two")]


@pytest.mark.parametrize("codec", [None, "h264", "av1"])
def test_hdr10_metadata_is_copied(tmp_path, codec):
    hdr = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    source = write(
        tmp_path / "in.mkv",
        6,
        codec="libx265",
        fmt="yuv420p10le",
        options={"x265-params": f"log-level=error:hdr10=1:{hdr}:max-cll=1000,400:chromaloc=2"},
        tags={"color_range": 1, "colorspace": 9, "color_primaries": 9, "color_trc": 16},
    )
    info, notes = passed(source, tmp_path / "out.mp4", codec=codec)
    assert notes == []
    with open_source(tmp_path / "out.mp4") as made:
        assert made.info.is_hdr
        assert made.info.pixel_format == "yuv420p10le"
        assert made.info.hdr.light == (1000, 400)
        for found, expected in zip(made.info.hdr.primaries, info.hdr.primaries, strict=True):
            assert abs(found - expected) < Fraction(1, 10000)
        assert made.info.hdr.luminance[1] == 1000
        if codec != "av1":
            assert made.info.siting == "topleft"
            assert made.info.hdr == info.hdr
    _, notes = passed(source, tmp_path / "out.webm", codec="vp9")
    assert "libvpx-vp9 does not carry over the HDR10 metadata" in notes


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="Linux alone has it")
def test_an_encoder_does_not_change_the_priority_of_its_caller(tmp_path):
    source = write(tmp_path / "in.mkv", 3)
    before = os.sched_getscheduler(0)
    passed(source, tmp_path / "out.mkv", codec="av1")  # Sets real-time priority, if run by root.
    assert os.sched_getscheduler(0) == before


def test_a_mastering_display_without_luminance_is_named(tmp_path):
    hdr = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(1000,50)"
    options = {"x265-params": f"log-level=error:hdr10=1:{hdr}"}  # FFmpeg treats 0.1 cd/m2 as none.
    source = write(tmp_path / "in.mkv", 3, codec="libx265", fmt="yuv420p10le", options=options)
    info, notes = passed(source, tmp_path / "out.mp4")
    assert info.hdr.luminance is None
    assert notes == ["the mastering display is not carried over, as its luminance is not declared"]


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_rotation"), reason="PyAV 18 only")
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_rotation_is_copied(tmp_path, name):
    source = write(tmp_path / "in.mp4", 5, rotation=90)
    passed(source, tmp_path / name)
    assert {f.rotation for f in frames_of(tmp_path / name)} == {90}


@pytest.mark.parametrize(
    ("codec", "suffix", "expected"),
    [
        ("h264", ".mp4", "yuv444p"),
        ("hevc", ".mp4", "yuv444p"),
        ("av1", ".mkv", "yuv420p"),
        ("vp9", ".webm", "yuv420p"),
        ("ffv1", ".mkv", "yuv420p"),
    ],
)
def test_odd_sizes_are_written(tmp_path, codec, suffix, expected):
    _, notes = passed(DATA / "bear-vp9-odd-dimensions.webm", tmp_path / f"a{suffix}", codec=codec)
    frames = frames_of(tmp_path / f"a{suffix}")
    assert (frames[0].width, frames[0].height, len(frames)) == (161, 121, 30)
    assert frames[0].format.name == expected
    assert notes == (
        []
        if expected == "yuv420p"
        else ["pixel format: yuv444p in the output, yuv420p in the source"]
    )


def test_a_pixel_format_that_the_encoder_lacks_is_noted(tmp_path):
    source = write(tmp_path / "in.mkv", 3, codec="ffv1", fmt="yuv422p10le")
    _, notes = passed(source, tmp_path / "a.mkv", codec="av1")
    assert notes == ["pixel format: yuv420p10le in the output, yuv422p10le in the source"]
    _, notes = passed(write(tmp_path / "in.gif", 3, codec="gif", fmt="rgb8"), tmp_path / "a.mp4")
    assert notes[0].startswith("the alpha channel is not carried over by libx264 in .mp4: ")
    assert notes[1:] == ["pixel format: yuv420p in the output, bgra in the source"]


def info_of(tmp_path, **options):
    with open_source(write(tmp_path / "like.mkv", 2, **options)) as source:
        return source.info


def test_quality_and_preset_reach_the_encoder(tmp_path):
    like = info_of(tmp_path)

    def options(**choice):
        return encoding_for(like, ".mkv", EncodeOptions(**choice)).options

    assert options() == {"crf": "16"}
    assert options(quality=23.5, preset="slow") == {"crf": "23.5", "preset": "slow"}
    assert options(codec="vp9", preset="4", quality=30) == {
        "crf": "30", "cpu-used": "4", "row-mt": "1"
    }  # fmt: skip
    assert options(codec="hevc_nvenc", preset="p7") == {"cq": "19", "preset": "p7", "rc": "vbr"}
    assert encoding_for(like, ".mp4", EncodeOptions(codec="h264_qsv")).pixel_format == "nv12"
    small, large = tmp_path / "s.mkv", tmp_path / "l.mkv"
    source = write(tmp_path / "in.mkv", 50)
    passed(source, small, quality=45)
    passed(source, large, quality=5)
    assert small.stat().st_size < large.stat().st_size / 2


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"codec": "h267"}, "no encoder 'h267' in this FFmpeg: choose one of libx264, .*ffv1"),
        ({"codec": "aac"}, "no encoder 'aac'"),
        ({"codec": "av1", "lossless": True}, "libsvtav1 cannot be lossless"),
        ({"codec": "ffv1", "quality": 3}, "ffv1 takes no quality"),
        ({"quality": 52}, "quality is 52: libx264 takes 0 to 51"),
        ({"codec": "hevc", "quality": -1}, "quality is -1: libx265 takes 0 to 51"),
        ({"codec": "vp9", "quality": 64}, "quality is 64: libvpx-vp9 takes 0 to 63"),
        ({"codec": "ffv1", "preset": "slow"}, "ffv1 takes no preset"),
        ({"lossless": True, "quality": 3}, "leave quality out"),
        ({"preset": "warp"}, "libx264 does not open"),
    ],
)
def test_unsuitable_encoders_are_refused(tmp_path, choice, message):
    source = write(tmp_path / "in.mkv", 2)
    with pytest.raises(VideoError, match=message):
        passed(source, tmp_path / "out.mkv", **choice)
    assert names(tmp_path) == ["in.mkv"]


@pytest.mark.parametrize(
    ("codec", "device", "advice"),
    [
        ("h264_nvenc", "nvidia0", "an NVIDIA GPU with its driver, so .*, or choose libx264"),
        ("hevc_nvenc", "nvidia0", "an NVIDIA GPU with its driver, so .*, or choose libx265"),
        ("av1_qsv", "dri", "an Intel GPU with its driver, so .*, or choose libsvtav1"),
        ("hevc_amf", "dri", "an AMD GPU with its driver, so .*, or choose libx265"),
    ],
)
def test_missing_hardware_is_an_error_that_names_it(tmp_path, codec, device, advice):
    if codec not in available() or Path("/dev", device).exists():
        pytest.skip(f"needs an FFmpeg with {codec} on a machine without the hardware")
    with pytest.raises(VideoError, match=rf"{codec} does not open \(.*\): it needs {advice}$"):
        passed(write(tmp_path / "in.mkv", 2), tmp_path / "out.mkv", codec=codec)
    assert names(tmp_path) == ["in.mkv"]


def test_the_frame_rate_that_svt_av1_takes_is_named(tmp_path):
    if "libsvtav1" not in available():
        pytest.skip("this FFmpeg has no libsvtav1")
    source = write(tmp_path / "in.mkv", 2)
    with pytest.raises(VideoError, match=r"\): it takes 240 frames a second at most, so choose"):
        passed(source, tmp_path / "out.mkv", codec="av1", rate=Fraction(241))
    passed(source, tmp_path / "out.mkv", codec="av1", rate=Fraction(240))


def test_a_codec_that_the_container_does_not_support_is_refused(tmp_path):
    source = write(tmp_path / "in.mkv", 2)
    with pytest.raises(VideoError, match=r"webm does not support libx264: choose \.mkv"):
        passed(source, tmp_path / "out.webm", codec="h264")
    assert names(tmp_path) == ["in.mkv"]


@pytest.mark.parametrize("fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_y4m_round_trips(tmp_path, fmt):
    source = write(tmp_path / "in.mkv", 5, codec="ffv1", fmt=fmt, audio="flac")
    pipe = io.BytesIO()
    info, notes = passed(source, pipe)
    assert notes == ["not carried over by Y4M: audio track 1 (flac)"]
    with open_source(io.BytesIO(pipe.getvalue())) as back:
        assert (back.info.rate, back.info.pixel_format) == (info.rate, fmt)
        made = [planes(frame.frame) for frame in back]
    assert np.array_equal(made, arrays_of(source))


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        ({"codec": "ffv1"}, "codec"),
        ({"quality": 0}, "quality"),
        ({"preset": "slow"}, "preset"),
        ({"codec": "ffv1", "quality": 3, "preset": "slow"}, "codec or quality or preset"),
    ],
)
def test_options_that_y4m_ignores_are_refused(tmp_path, choice, named):
    pipe = io.BytesIO()
    with pytest.raises(VideoError, match=f"^Y4M takes no {named}: leave it out$"):
        passed(write(tmp_path / "in.mkv", 2), pipe, **choice)
    assert pipe.getvalue() == b""


def test_metadata_that_y4m_cannot_store_is_noted(tmp_path):
    tags = {"colorspace": 1, "color_primaries": 1, "color_trc": 1}
    source = write(tmp_path / "in.mkv", 3, sar=Fraction(4, 3), tags=tags)
    _, notes = passed(source, io.BytesIO())
    assert notes == [
        "Y4M does not declare matrix, primaries and transfer: set them in the reader",
        "Y4M is written without the pixel aspect ratio, 4/3: set it in the reader",
    ]


def test_a_closed_pipe_is_an_error(tmp_path):
    source = write(tmp_path / "in.mkv", 5)
    reading, writing = os.pipe()
    os.close(reading)
    with (
        os.fdopen(writing, "wb", buffering=0) as pipe,
        pytest.raises(VideoError, match="Y4M stream could not be written"),
    ):
        passed(source, pipe)


@pytest.mark.parametrize(("fmt", "dtype"), [("bgr0", np.uint8), ("gbrp16le", np.uint16)])
def test_a_folder_of_images_is_written(tmp_path, fmt, dtype):
    source = write(tmp_path / "in.mkv", 5, codec="ffv1", fmt=fmt)
    passed(source, tmp_path / "out")
    assert names(tmp_path) == ["in.mkv", "out"]
    assert names(tmp_path / "out") == [f"{k:06d}.png" for k in range(1, 6)]
    form = "rgb24" if dtype is np.uint8 else "rgb48le"
    with open_source(tmp_path / "out") as back:
        made = [frame.frame.to_ndarray(format=form) for frame in back]
    expected = [f.to_ndarray(format=form) for f in frames_of(source)]
    assert np.abs(np.subtract(made, expected, dtype=np.int64)).max() <= (
        0 if dtype is np.uint8 else 1
    )
    (tmp_path / "empty").mkdir()
    passed(source, tmp_path / "empty" / "f%03d.png")
    assert names(tmp_path / "empty")[0] == "f001.png"
    with pytest.raises(VideoError, match="is not empty"):
        passed(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "message"),
    [("out.txt", "no supported suffix"), ("no/out.mp4", "is not a folder"), ("in.mkv", "itself")],
)
def test_invalid_destinations_are_refused(tmp_path, name, message):
    source = write(tmp_path / "in.mkv", 2)
    content = source.read_bytes()
    with pytest.raises(VideoError, match=message):
        passed(source, tmp_path / name)
    assert source.read_bytes() == content
    assert names(tmp_path) == ["in.mkv"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("no"), VideoError("broken")])
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.webm", "out"])
def test_an_error_leaves_a_playable_partial_file(tmp_path, name, error):
    source = write(tmp_path / "in.mkv", 30, audio="libopus")
    if "." in name:
        (tmp_path / name).write_bytes(b"an older result")
    kept = {}

    def stop(number):
        if number == 20:
            raise error

    def run():
        with (
            open_source(source) as opened,
            open_sink(tmp_path / name, like=opened.info, rate=RATE, overwrite=True) as sink,
        ):
            kept["sink"] = sink
            for item in opened:
                if isinstance(item, DecodedFrame):
                    sink.write(item.frame, item.pts * item.time_base)
                    stop(sink.written)
                else:
                    sink.write_packet(item)

    with pytest.raises(type(error) if isinstance(error, Exception) else error) as caught:
        run()
    partial = kept["sink"].partial
    assert partial == tmp_path / ("out.partial" + Path(name).suffix)
    if isinstance(error, VideoError):
        assert str(caught.value) == f"broken; the partial output is {partial}"
    if "." in name:
        assert (tmp_path / name).read_bytes() == b"an older result"
        assert len(frames_of(partial)) == 20
    else:
        assert len(names(partial)) == 20
        assert not (tmp_path / name).exists()


def test_an_image_that_cannot_be_written_is_an_error_after_the_images_before_it(tmp_path):
    source = write(tmp_path / "in.mkv", 5)
    partial = tmp_path / "out.partial"

    def stop(number):
        if number == 2:
            (partial / "000003.png").mkdir()

    with pytest.raises(VideoError, match=r"out could not be written \(.+\): check free space"):
        passed(source, tmp_path / "out", stop=stop)
    assert names(tmp_path) == ["in.mkv", "out.partial"]
    assert names(partial) == ["000001.png", "000002.png", "000003.png"]


def test_an_error_before_the_first_frame_leaves_no_file(tmp_path):
    source = write(tmp_path / "in.mkv", 3)

    def fail():
        raise RuntimeError

    for name in ("out.mp4", "out.mkv", "out"):
        with (
            open_source(source) as opened,
            pytest.raises(RuntimeError),
            open_sink(tmp_path / name, like=opened.info, rate=RATE),
        ):
            fail()
    assert names(tmp_path) == ["in.mkv"]


def test_the_encoder_chooses_its_key_frames_and_not_the_source(tmp_path):
    source = write(tmp_path / "in.mkv", 12, codec="ffv1", options={"g": "1"})
    passed(source, tmp_path / "out.mkv")
    keys = []
    for path in (source, tmp_path / "out.mkv"):
        with av.open(str(path)) as clip:
            keys.append([packet.is_keyframe for packet in clip.demux(video=0) if packet.size])
    assert keys == [[True] * 12, [True] + [False] * 11]


def test_a_frame_of_another_size_is_refused(tmp_path):
    source = write(tmp_path / "in.mkv", 3)
    with (
        open_source(source) as opened,
        pytest.raises(VideoError, match="a frame of 32x32 was given for a video of 64x48"),
        open_sink(tmp_path / "out.mp4", like=opened.info, rate=RATE) as sink,
    ):
        sink.write(next(pictures(1, size=(32, 32))), Fraction(0))
    assert names(tmp_path) == ["in.mkv"]


SCRIPT = """
import resource, sys, time
from fractions import Fraction
import numpy as np
from av.video.frame import VideoFrame
from runtime.video.reading.source import open_source
from runtime.video.writing.encoding import EncodeOptions
from runtime.video.writing.sink import open_sink
limit = int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
with open_source(sys.argv[1]) as source:
    encode = EncodeOptions(quality=1)
    with open_sink(sys.argv[2], like=source.info, rate=source.info.rate, encode=encode) as sink:
        noise = np.random.default_rng(0)
        for k in range(400):
            picture = noise.integers(0, 256, (72, 64), dtype=np.uint8)
            sink.write(VideoFrame.from_ndarray(picture, format="yuv420p"), Fraction(k, 25))
            if not limit and k == 200:
                print("now", flush=True)
                time.sleep(60)
"""


def run_script(*arguments):
    search = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "support")))
    environment = {**os.environ, "PYTHONPATH": search}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_full_disk_is_an_error(tmp_path, name):
    source = write(tmp_path / "in.mkv", 3)
    with run_script(source, tmp_path / name, 100_000) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"{name} could not be written (File too large): check free space" in errors
    assert "Error while" not in errors
    if name == "out.mp4":
        assert names(tmp_path) == ["in.mkv"]
    else:
        assert names(tmp_path) == ["in.mkv", "out.partial.mkv"]
        assert "the partial output is" in errors
        assert frames_of(tmp_path / "out.partial.mkv")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_leaves_nothing_under_the_final_name(tmp_path, name, how):
    source = write(tmp_path / "in.mkv", 3)
    with run_script(source, tmp_path / name, 0) as process:
        assert process.stdout.readline() == "now\n"
        process.send_signal(how)
        process.communicate(timeout=60)
    assert names(tmp_path) == ["in.mkv", f"out.partial{Path(name).suffix}"]
    if how == signal.SIGINT:
        assert len(frames_of(tmp_path / f"out.partial{Path(name).suffix}")) == 201
    elif name == "out.mkv":
        assert frames_of(tmp_path / "out.partial.mkv")


def write_edited(path, *, hidden=12, shown=25, beeps=(8, 18), gop=250):
    """Writes a clip whose edit list hides its first `hidden` frames, and the sound with them.

    A white frame and a tone begin at the same time at each of `beeps`, and in the hidden part.
    """
    marks = [*beeps, -hidden // 2]
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE, options={"bf": "2", "g": str(gop)})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = out.add_stream("aac", rate=48000)
        for k in range(-hidden, shown):
            level = 230 if k in marks else 20
            frame = av.VideoFrame.from_ndarray(
                np.full((48, 64, 3), level, np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = k, 1 / RATE
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        sound = np.zeros((2, (hidden + shown) * 1920), np.float32)
        for mark in marks:
            place = slice((mark + hidden) * 1920, (mark + hidden + 1) * 1920)
            sound[:, place] = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(1920) / 48000)
        for at in range(0, sound.shape[1], 1024):
            part = np.ascontiguousarray(sound[:, at : at + 1024])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
            frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
            frame.pts = at - hidden * 1920
            out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    return path


def moments(path):
    """(times of the first frame, of white frames, of tones) in a clip, in seconds."""
    frames = [(f.pts * f.time_base, f.to_ndarray(format="gray").mean()) for f in frames_of(path)]
    white = [float(time) for time, level in frames if level > 200]
    start, sound = samples_of(path)
    loud = np.nonzero(np.abs(sound) > 0.3)[0]
    first = [at for at, before in zip(loud, [-48000, *loud], strict=False) if at - before > 4800]
    return float(frames[0][0]), white, [float(start) + at / 48000 for at in first]


@pytest.mark.parametrize("audio", ["copy", "aac"])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
def test_sound_and_frames_that_an_edit_list_hides_stay_hidden(tmp_path, suffix, audio):
    source = write_edited(tmp_path / "in.mp4")
    assert moments(source) == (0, [0.32, 0.72], pytest.approx([0.32, 0.72], abs=0.002))
    out = tmp_path / f"out{suffix}"
    _, notes = passed(source, out, audio=audio)
    assert notes == []
    start, white, tones = moments(out)
    # Before PyAV 19 all tracks in Matroska begin later, by a packet of AAC at most.
    late = start if suffix == ".mkv" and audio == "copy" else 0
    assert start == late <= 1024 / 48000
    assert white == pytest.approx([late + 0.32, late + 0.72], abs=0.001)
    assert tones == pytest.approx([late + 0.32, late + 0.72], abs=0.002)
    assert len(frames_of(out)) == 25


@pytest.mark.parametrize("audio", ["copy", "aac"])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_part_has_all_its_sound_if_an_edit_list_hides_more_at_the_beginning(
    tmp_path, suffix, audio
):
    # Frame 3 is a key frame, to which a seek goes directly.
    source = write_edited(tmp_path / "in.mp4", gop=5)
    out = tmp_path / f"out{suffix}"
    passed(source, out, start=3 / RATE, audio=audio)
    start, white, tones = moments(out)
    assert start == pytest.approx(0, abs=0.001)
    assert white == pytest.approx([0.2, 0.6], abs=0.001)
    assert tones == pytest.approx([0.2, 0.6], abs=0.003)
