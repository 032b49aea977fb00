"""Timecodes of outputs: their rate and their start."""

import itertools
from fractions import Fraction

import av
import pytest

from blend import Blend
from runtime import Interpolator, interpolate_video
from runtime.video.options import VideoOptions
from runtime.video.writing.timecode import converted
from video_clips import pictures

NTSC = Fraction(30000, 1001)


def write_timecode(path, label, *, rate=Fraction(25), count=50):
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = 1 / rate
        stream.metadata["timecode"] = label
        for k, frame in enumerate(pictures(count)):
            frame.pts, frame.time_base = k, 1 / rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def timecode_of(path):
    """(tag of the video, number of the first frame in a timecode track or None)."""
    with av.open(str(path)) as clip:
        tags = {name.lower(): text for name, text in clip.streams.video[0].metadata.items()}
        tracks = [s for s in clip.streams if s.type == "data"]
        numbers = [int.from_bytes(bytes(p), "big") for s in tracks for p in clip.demux(s) if p.size]
        return tags.get("timecode"), numbers[0] if numbers else None


@pytest.mark.parametrize("suffix", [".mov", ".mp4", ".mkv"])
def test_the_timecode_counts_frames_of_the_new_rate_from_the_first_output_frame(tmp_path, suffix):
    source = write_timecode(tmp_path / "in.mov", "01:00:00:12")
    out = tmp_path / f"out{suffix}"
    model = Interpolator(Blend())
    note = ["the timecode track becomes a tag, as .mkv has no such tracks"]
    report = interpolate_video(source, out, model=model, factor=2)
    assert report.notes == (note if suffix == ".mkv" else [])
    number = (3600 * 50 + 24) if suffix != ".mkv" else None
    assert timecode_of(out) == ("01:00:00:24", number)
    options = VideoOptions(start="1.2", overwrite=True)
    interpolate_video(source, out, model=model, factor=2, options=options)
    number = (3601 * 50 + 34) if suffix != ".mkv" else None
    assert timecode_of(out) == ("01:00:01:34", number)


def test_a_tag_of_matroska_becomes_a_timecode_track(tmp_path):
    source = write_timecode(tmp_path / "in.mkv", "00:00:59;28", rate=NTSC)
    interpolate_video(source, tmp_path / "out.mp4", model=Interpolator(Blend()), factor=2)
    assert timecode_of(tmp_path / "out.mp4") == ("00:00:59;56", 59 * 60 + 56)


def test_a_label_that_is_no_timecode_is_left_out_with_a_note(tmp_path):
    source = write_timecode(tmp_path / "in.mkv", "00:00:00:77")
    report = interpolate_video(source, tmp_path / "out.mp4", model=Interpolator(Blend()))
    assert timecode_of(tmp_path / "out.mp4") == (None, None)
    (note,) = report.notes
    assert note.startswith("not carried over: the timecode 00:00:00:77, which does not fit")


def test_images_do_not_carry_the_timecode_over(tmp_path):
    source = write_timecode(tmp_path / "in.mov", "01:00:00:12", count=3)
    report = interpolate_video(source, tmp_path / "out", model=Interpolator(Blend()))
    (note,) = report.notes
    assert note == "not carried over by PNG: the timecode 01:00:00:12"


@pytest.mark.parametrize(
    ("label", "source", "rate", "start", "expected"),
    [
        ("10:20:30:24", 25, 25, 0, "10:20:30:24"),
        ("10:20:30:23", 24, 60, 0, "10:20:30:57"),
        ("01:00:00:10", 50, 25, 0, "01:00:00:05"),
        ("23:59:59:24", 25, 25, Fraction(1, 25), "00:00:00:00"),
        ("00:00:59;29", NTSC, NTSC, 1 / NTSC, "00:01:00;02"),
        ("00:09:59;29", NTSC, NTSC, 1 / NTSC, "00:10:00;00"),
        ("00:00:59;29", NTSC, 2 * NTSC, 1 / NTSC, "00:01:00;04"),
        ("00:00:59:29", NTSC, NTSC, 1 / NTSC, "00:01:00:00"),
        ("01:00:00;00", NTSC, 50, 0, "01:00:00:00"),
        ("01:00:00:25", 25, 50, 0, None),
        ("01:60:00:00", 25, 50, 0, None),
        ("1:2:3", 25, 50, 0, None),
        ("01:00:00:00", 25, 1000, 0, None),
    ],
)
def test_labels(label, source, rate, start, expected):
    rates = {"source": Fraction(source), "rate": Fraction(rate)}
    assert converted(label, **rates, start=Fraction(start)) == expected


def test_drop_frame_timecode_leaves_out_two_numbers_a_minute_but_not_each_tenth():
    labels = itertools.product(range(21), range(60), range(30))
    expected = [f"00:{m:02}:{s:02};{f:02}" for m, s, f in labels if s or f > 1 or m % 10 == 0]
    rates = {"source": NTSC, "rate": NTSC}
    for number in range(0, len(expected), 7):
        assert converted("00:00:00;00", **rates, start=number / NTSC) == expected[number]


@pytest.mark.parametrize(("rate", "expected"), [(255, "01:02:03:102"), (256, None)])
def test_a_timecode_counts_up_to_255_frames_a_second(rate, expected):
    found = converted("01:02:03:10", source=Fraction(25), rate=Fraction(rate))
    assert found == expected
