"""Interlaced sources that are deinterlaced while they are read."""

from fractions import Fraction
from itertools import pairwise

import av
import pytest

from interlaced_clips import RATE, luma, psnr, scene, write_interlaced, write_telecined
from runtime import VideoError
from runtime.video.reading.info import DecodedFrame
from runtime.video.reading.source import open_source
from runtime.video.timing.schedule import FrameFacts, OnlineSchedule
from runtime.video.timing.timeline import Multiply
from video_clips import frames_of, planes, write, write_changing_aspect

CODECS = [
    ("in.mkv", "ffv1", {}, True),
    ("in.mkv", "ffv1", {}, False),
    ("in.mp4", "libx264", {"x264-params": "tff=1", "crf": "5"}, True),
    ("in.mp4", "libx264", {"x264-params": "bff=1", "crf": "5"}, False),
    ("in.ts", "mpeg2video", {"b": "8M"}, True),
    ("in.mpg", "mpeg2video", {"b": "8M"}, False),
]


def read(path, **options):
    """(info, frames, their times in seconds, notes) of a source."""
    with open_source(path, **options) as source:
        info = source.info
        items = [item for item in source if isinstance(item, DecodedFrame)]
    times = [None if i.pts is None else i.pts * i.time_base - info.origin for i in items]
    return info, [item.frame for item in items], times, source.notes


def shown_at(info, frames, *, factor):
    """When the output frames of a run with these frames are shown, in seconds."""
    schedule = OnlineSchedule(info, Multiply(factor), "any")
    shown = []
    for frame in frames:
        shown += schedule.push(FrameFacts(frame.pts, frame.time_base, None, False, False))
    return [one.time for one in [*shown, *schedule.finish()]]


@pytest.mark.parametrize(("name", "codec", "options", "top_first"), CODECS)
@pytest.mark.parametrize("mode", ["frame", "field"])
def test_frames_and_times_of_the_progressive_original(
    tmp_path, name, codec, options, top_first, mode
):
    path = write_interlaced(
        tmp_path / name, codec=codec, options=options, top_first=top_first, rate=RATE
    )
    factor = 2 if mode == "field" else 1
    info, frames, times, notes = read(path, deinterlace=mode)
    original = scene(24)[:: 2 // factor]
    assert notes == []
    assert info.rate == RATE * factor
    assert len(frames) == len(original)
    assert times == [k / (RATE * factor) for k in range(12 * factor)]
    assert not any(frame.interlaced_frame for frame in frames)
    assert [frame.duration * frame.time_base for frame in frames][-1] == 1 / info.rate
    for frame, picture in zip(frames, original, strict=True):
        assert psnr(luma(frame), picture) > 36
    combed = [psnr(luma(frame), picture) for frame, picture in zip(
        frames_of(path), scene(24)[::2], strict=True
    )]  # fmt: skip
    assert max(combed) < 28


def test_times_half_way_between_frames_of_a_variable_rate(tmp_path):
    stamps = [0, 1, 3, 4, 20, 21, 22]
    path = write_interlaced(
        tmp_path / "in.mp4", 7, codec="libx264", options={"bf": "0"}, stamps=stamps
    )
    _, _, times, _ = read(path, deinterlace="frame")
    assert times == [stamp / RATE for stamp in stamps]
    _, frames, times, _ = read(path, deinterlace="field")
    half = Fraction(1, 2)
    # In the gap from 4 to 20 frames are missing: the field belongs to the frame at 4.
    expected = [0, half, 1, 2, 3, 3 + half, 4, 4 + half, 20, 20 + half, 21, 21 + half, 22]
    assert times == [stamp / RATE for stamp in [*expected, 22 + half]]
    for frame, picture in zip(frames, scene(14), strict=True):
        assert psnr(luma(frame), picture) > 36


def test_only_frames_that_are_marked_as_interlaced_are_changed(tmp_path):
    path = write_interlaced(tmp_path / "in.mkv", progressive=range(3, 8))
    _, frames, times, notes = read(path, deinterlace="field")
    assert notes == ["7 of 12 frames are marked as interlaced, the others are unchanged"]
    whole = [*range(3, 8)]
    numbers = sorted([*range(12), *(k + 0.5 for k in range(12) if k not in whole)])
    assert times == [Fraction(number) / RATE for number in numbers]
    stored = frames_of(path)
    for frame, number in zip(frames, numbers, strict=True):
        if number in whole:
            assert (planes(frame) == planes(stored[number])).all()


def test_a_video_without_interlaced_frames_is_unchanged_and_a_note_says_so(tmp_path):
    path = write(tmp_path / "in.mkv", 4)
    _, frames, _, notes = read(path, deinterlace="field")
    assert notes == [
        "0 of 4 frames are marked as interlaced, the others are unchanged: mark the frames with "
        "FFmpeg's setfield first"
    ]
    for frame, stored in zip(frames, frames_of(path), strict=True):
        assert (planes(frame) == planes(stored)).all()


@pytest.mark.parametrize("mode", ["frame", "field"])
@pytest.mark.parametrize("name", ["in.mkv", "in.mp4", "in.ts"])
@pytest.mark.parametrize("number", [1, 11, 12, 13, 24])
def test_a_part_has_the_frames_of_the_whole(tmp_path, name, mode, number):
    codec = "mpeg2video" if name == "in.ts" else "libx264"
    path = write_interlaced(tmp_path / name, 30, codec=codec, options={"g": "6"})
    _, whole, all_times, _ = read(path, deinterlace=mode)
    start, end = number / RATE, (number + 4) / RATE
    _, frames, times, _ = read(path, start=start, end=end, deinterlace=mode)
    times = [start + time for time in times]
    assert times[0] <= start
    assert times[-1] == end
    place = all_times.index(times[0])
    assert times == all_times[place : place + len(times)]
    for frame, same in zip(frames, whole[place:], strict=False):
        assert (planes(frame) == planes(same)).all()


FILM = Fraction(24000, 1001)


@pytest.mark.parametrize("count", [24, 22])
@pytest.mark.parametrize(
    ("name", "codec", "options", "top_first"),
    [
        ("in.ts", "mpeg2video", {"b": "8M", "bf": "0"}, True),
        ("in.mp4", "libx264", {"x264-params": "tff=1", "qp": "0"}, True),
        ("in.mp4", "libx264", {"x264-params": "bff=1", "qp": "0"}, False),
    ],
)
def test_telecined_film_is_restored(tmp_path, name, codec, options, top_first, count):
    path = write_telecined(
        tmp_path / name, count, codec=codec, options=options, top_first=top_first
    )
    stored = frames_of(path)
    assert len(stored) == count * 5 // 4
    combed = [psnr(luma(frame), scene(count)[4]) for frame in stored[2:4]]
    assert max(combed) < 28
    info, frames, times, notes = read(path, deinterlace="film")
    assert notes == []
    assert info.rate == FILM
    assert len(frames) == count
    assert times == [k / FILM for k in range(len(frames))]
    for frame, picture in zip(frames, scene(count), strict=True):
        assert psnr(luma(frame), picture) > 36
    assert {frame.duration * frame.time_base for frame in frames} == {1 / FILM}


def test_film_frames_after_a_gap_in_the_video_keep_their_times(tmp_path):
    path = write_telecined(tmp_path / "in.mp4", codec="libx264", options={"qp": "0"},
                           lost=range(10, 15))  # fmt: skip
    _, frames, times, _ = read(path, deinterlace="film")
    numbers = [k for k in range(24) if not 8 <= k < 12]
    assert times == [k / FILM for k in numbers]
    for frame, number in zip(frames, numbers, strict=True):
        assert psnr(luma(frame), scene(24)[number]) > 60


def test_a_part_of_telecined_film_has_film_frames(tmp_path):
    options = {"qp": "0", "g": "6"}
    path = write_telecined(tmp_path / "in.mp4", 48, codec="libx264", options=options)
    _, frames, times, _ = read(path, deinterlace="film", start=Fraction(1), end=Fraction(3, 2))
    inside = [frame for frame, time in zip(frames, times, strict=True) if 0 <= time < 0.5]
    assert len(inside) == 12
    assert {late - early for early, late in pairwise(times)} == {1 / FILM}
    numbers = [max(range(48), key=lambda n: psnr(luma(f), scene(48)[n])) for f in inside]
    assert numbers == list(range(numbers[0], numbers[0] + 12))
    assert 23 <= numbers[0] <= 25
    assert all(
        psnr(luma(frame), scene(48)[n]) > 60 for frame, n in zip(inside, numbers, strict=True)
    )


def test_rounded_times_of_telecined_film_in_matroska_become_exact_ones(tmp_path):
    info, frames, _, _ = read(write_telecined(tmp_path / "in.mkv"), deinterlace="film")
    assert shown_at(info, frames, factor=2) == [k / (2 * FILM) for k in range(48)]


SOFT = [round(1000 * n / (FILM * Fraction(5, 2))) for n in range(60) if n % 5 in (0, 2)]
"""Stamps of film frames for two and three fields in turn, in milliseconds."""


@pytest.mark.parametrize("name", ["in.mkv", "in.mp4"])
def test_film_with_the_times_of_pulldown_gets_equal_distances(tmp_path, name):
    path = write(tmp_path / name, len(SOFT), stamps=SOFT)
    info, plain, times, (note,) = read(path)
    assert [1000 * time for time in times] == pytest.approx(SOFT, abs=1)
    assert "film, shown for two and three fields in turn: use --deinterlace film" in note
    assert info.rate == FILM
    info, frames, times, notes = read(path, deinterlace="film")
    assert notes == []
    assert info.rate == FILM
    assert len(frames) == len(plain) == 24
    assert times == pytest.approx([float(k / FILM) for k in range(24)], abs=0.001)
    for frame, same in zip(frames, plain, strict=True):
        assert (planes(frame) == planes(same)).all()
    assert shown_at(info, frames, factor=2) == [k / (2 * FILM) for k in range(48)]


def test_film_frames_after_missing_ones_keep_their_times(tmp_path):
    kept = [*range(9), *range(14, 24)]
    path = write(tmp_path / "in.mkv", len(kept), stamps=[SOFT[k] for k in kept])
    _, _, times, _ = read(path, deinterlace="film")
    exact = [float(k / FILM) for k in kept]
    assert times[:9] == pytest.approx(exact[:9], abs=0.001)
    assert times[9:] == pytest.approx(exact[9:], abs=0.01)
    assert [late - early for early, late in pairwise(times[9:])] == pytest.approx(
        [float(1 / FILM)] * 9, abs=0.001
    )


def test_video_that_cannot_be_telecined_film_is_refused(tmp_path):
    path = write_interlaced(tmp_path / "in.mkv")
    with pytest.raises(VideoError, match=r"29\.97 or 30 frames a second, and this video 25: use"):
        read(path, deinterlace="film")


def test_a_pixel_format_that_fieldmatch_does_not_take_is_refused(tmp_path):
    path = write_telecined(tmp_path / "in.mkv", form="yuv422p10le")
    with pytest.raises(VideoError, match="in the pixel format yuv422p10le: convert the video to"):
        read(path, deinterlace="film")


def test_rounded_times_of_matroska_become_exact_ones_of_the_field_rate(tmp_path):
    """Half of a millisecond is the rounding of a field's time; the clock must undo it."""
    rate = Fraction(30000, 1001)
    path = write_interlaced(tmp_path / "in.mkv", 30, rate=rate)
    info, frames, _, _ = read(path, deinterlace="field")
    assert shown_at(info, frames, factor=1) == [k / (2 * rate) for k in range(60)]
    assert info.rate == 2 * rate


def test_colours_and_side_data_of_deinterlaced_frames_are_those_of_the_source(tmp_path):
    tags = {"colorspace": 5, "color_range": 1, "color_primaries": 5, "color_trc": 6}
    path = write_interlaced(tmp_path / "in.mkv", 4, tags=tags)
    plain, progressive = read(path)[0], read(path, deinterlace="field")[0]
    names = ("colorspace", "color_range", "color_primaries", "color_trc", "siting", "hdr")
    for name in (*names, "width", "height", "pixel_format", "origin", "duration"):
        assert getattr(progressive, name) == getattr(plain, name), name
    assert progressive.colorspace == 5


def test_interlaced_frames_are_counted_if_they_are_not_deinterlaced(tmp_path):
    path = write_interlaced(tmp_path / "in.mkv", progressive=range(7))
    with open_source(path) as source:
        assert source.notes == []
        list(source)
    (note,) = source.notes
    assert note.startswith("5 of 12 frames are interlaced, and processed like progressive ones")
    assert "--deinterlace frame" in note
    # From frame 3 to frame 9, and the frame before it.
    part = {"start": 3 / RATE, "end": 9 / RATE}
    (note,) = read(path, **part)[3]
    assert note.startswith("3 of 8 frames are interlaced")


def test_the_note_on_interlaced_first_frames_is_early_and_becomes_exact(tmp_path):
    path = write_interlaced(tmp_path / "in.mkv", progressive=range(7, 12))
    with open_source(path) as source:
        (note,) = source.notes
        assert note.startswith("the first frames are interlaced")
        list(source)
    (note,) = source.notes
    assert note.startswith("7 of 12 frames are interlaced")


def test_images_are_not_deinterlaced(tmp_path):
    (tmp_path / "frames").mkdir()
    with (
        pytest.raises(VideoError, match="images, which are progressive: leave deinterlace out"),
        open_source(tmp_path / "frames", deinterlace="frame"),
    ):
        pass


def test_a_change_of_the_pixel_aspect_ratio_is_named_with_its_time(tmp_path):
    wide, narrow = Fraction(4, 3), Fraction(1)
    path = write_changing_aspect(tmp_path / "in.ts", [wide, narrow, wide])
    info, frames, _, notes = read(path)
    assert (info.sample_aspect_ratio, len(frames)) == (wide, 18)
    (note,) = notes
    assert note.startswith(
        "the pixel aspect ratio changes at 0.240 s to 1, and 1 time after that: the output keeps"
    )
    assert read(path, end=Fraction(1, 5))[3] == []
    assert read(write_changing_aspect(tmp_path / "same.ts", [wide, wide]))[3] == []


@pytest.mark.parametrize(("mode", "name"), [("frame", "bwdif"), ("film", "fieldmatch")])
def test_a_filter_that_ffmpeg_lacks_is_named(tmp_path, monkeypatch, mode, name):
    others = av.filter.filters_available - {name}
    assert len(others) == len(av.filter.filters_available) - 1
    monkeypatch.setattr(av.filter, "filters_available", others)
    path = write_telecined(tmp_path / "in.mkv", 24)
    with pytest.raises(VideoError, match=f"^this FFmpeg has no filter {name}: install PyAV from"):
        read(path, deinterlace=mode)
