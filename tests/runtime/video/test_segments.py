"""A video rendered in segments equals one rendered in one run, frame for frame."""

import itertools
import json
import shutil
import struct
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from hypothesis import given
from hypothesis import strategies as st

from blend import Blend
from interlaced_clips import write_interlaced, write_telecined
from runtime import Interpolator, VideoError
from runtime.video.interpolate import interpolate_video, mode_for
from runtime.video.options import VideoOptions
from runtime.video.segments.errors import SeamError
from runtime.video.segments.file import SegmentFile
from runtime.video.segments.join import decoding_stamps, join
from runtime.video.segments.plan import analyse, plan, scan, seams, spans
from runtime.video.segments.render import render
from video_clips import RATE, copied, noisy, packets_of, pictures, write
from video_parts import KEYS, interpolate_in_segments, times_and_hashes

WHOLE = VideoOptions(codec="ffv1", cuts=None)


@pytest.fixture
def vfi():
    return Interpolator(Blend())


def assert_equal_to_one_run(source, tmp_path, vfi, options, *, suffix=".mkv", least=3, **how):
    options = replace(options, overwrite=True)  # Some tests call this twice.
    one, cut = tmp_path / f"one{suffix}", tmp_path / f"cut{suffix}"
    report = interpolate_video(
        source, one, model=vfi, factor=how.get("factor"), rate=how.get("rate"), options=options
    )
    planned = interpolate_in_segments(source, cut, vfi, options, **how)
    assert len(planned.segments) >= least
    begins = [segment.shown[0].time for segment in planned.segments[1:]]
    assert [segment.end for segment in planned.segments[:-1]] == begins
    assert times_and_hashes(cut) == times_and_hashes(one)
    assert (planned.frames_in, planned.frames_out) == (report.frames_in, report.frames_out)
    assert (planned.cuts, planned.repeats) == (report.cuts, report.repeats)
    return planned, one, cut


@pytest.mark.parametrize(
    "how",
    [{"factor": 2}, {"factor": 3}, {"rate": Fraction(60)}, {"rate": Fraction(10)}],
    ids=["x2", "x3", "60", "10"],
)
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_segments_equal_one_run(tmp_path, vfi, how, suffix):
    source = write(tmp_path / "in.mp4", 45, options=KEYS)
    options = WHOLE if suffix == ".mkv" else VideoOptions(lossless=True, cuts=None)
    assert_equal_to_one_run(source, tmp_path, vfi, options, suffix=suffix, **how)


@pytest.mark.parametrize("options", [{"bf": "3", "b_pyramid": "normal"}, {"open_gop": "1"}])
def test_sources_with_open_gops(tmp_path, vfi, options):
    """Open GOPs: frames that come after a key frame in the file and before it on the screen."""
    source = write(tmp_path / "in.mkv", 45, options={**KEYS, "bf": "3", **options})
    assert_equal_to_one_run(source, tmp_path, vfi, WHOLE)


@pytest.mark.parametrize(("suffix", "codec"), [(".webm", "libvpx-vp9"), (".mkv", "libx265")])
def test_sources_of_other_codecs(tmp_path, vfi, suffix, codec):
    options = {"x265-params": "keyint=10:min-keyint=10:log-level=error"}
    options = options if codec == "libx265" else {"g": "10"}
    source = write(tmp_path / f"in{suffix}", 32, codec=codec, options=options)
    assert_equal_to_one_run(source, tmp_path, vfi, WHOLE)


def test_a_source_of_variable_rate(tmp_path, vfi):
    rng = np.random.default_rng(3)
    stamps = np.cumsum(rng.integers(17, 90, 45)).tolist()
    source = write(tmp_path / "in.mkv", 45, options=KEYS, stamps=stamps)
    assert_equal_to_one_run(source, tmp_path, vfi, WHOLE)
    assert_equal_to_one_run(source, tmp_path, vfi, WHOLE, rate=Fraction(50))


def test_midpoint_weights_in_segments(tmp_path):
    vfi = Interpolator(Blend(time_steps="midpoint"))
    source = write(tmp_path / "in.mp4", 35, options=KEYS)
    assert_equal_to_one_run(source, tmp_path, vfi, WHOLE, factor=4)
    assert_equal_to_one_run(source, tmp_path, vfi, WHOLE, rate=Fraction(60))


@pytest.mark.parametrize("policy", ["hold", "blend"])
@pytest.mark.parametrize("first", [17, 18, 19, 20, 21, 22, 23])
def test_a_scene_cut_near_a_segment_border(tmp_path, vfi, first, policy):
    """A cut is judged by the frames before it, which are in another segment."""
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options=KEYS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(40):
            level = (40 if k < first else 200) + k % 3
            frame = VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = k, 1 / RATE
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    options = VideoOptions(codec="ffv1", cut_policy=policy)
    planned, *_ = assert_equal_to_one_run(source, tmp_path, vfi, options)
    assert planned.cuts == [first / RATE]


def test_flicker_is_not_a_cut_after_a_segment_border(tmp_path, vfi):
    """A single segment does not show that there were similar changes before."""
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options=KEYS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(40):
            level = 200 if k % 2 else 40
            frame = VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = k, 1 / RATE
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    planned, *_ = assert_equal_to_one_run(source, tmp_path, vfi, VideoOptions(codec="ffv1"))
    assert planned.cuts == [1 / RATE, 2 / RATE]


def test_repeated_frames_across_a_segment_border(tmp_path, vfi):
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={**KEYS, "qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k, frame in enumerate(f for f in pictures(20) for _ in range(2)):
            frame.pts, frame.time_base = k + 1, 1 / RATE
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    options = VideoOptions(codec="ffv1", dedupe=True)
    planned, *_ = assert_equal_to_one_run(source, tmp_path, vfi, options)
    assert planned.repeats >= 15


@pytest.mark.parametrize("mode", ["frame", "field"])
def test_a_deinterlaced_source_is_one_segment(tmp_path, vfi, mode):
    source = write_interlaced(tmp_path / "in.mkv", 30, options={"g": "1"}, sound=True)
    options = VideoOptions(codec="ffv1", deinterlace=mode)
    planned, *_ = assert_equal_to_one_run(source, tmp_path, vfi, options, least=1)
    assert len(planned.segments) == 1
    assert planned.frames_in == (60 if mode == "field" else 30)


def test_restored_film_is_one_segment(tmp_path, vfi):
    source = write_telecined(tmp_path / "in.mkv", 24, options={"g": "1"})
    options = VideoOptions(codec="ffv1", deinterlace="film")
    planned, *_ = assert_equal_to_one_run(source, tmp_path, vfi, options, least=1)
    assert (len(planned.segments), planned.frames_in) == (1, 24)


def test_sound_subtitles_and_chapters_are_added_once(tmp_path, vfi):
    source = write(
        tmp_path / "in.mkv", 45, options=KEYS, audio="aac", subtitles="srt",
        chapters=[(0, 800, "a"), (800, 1800, "b")], metadata={"title": "t"},
    )  # fmt: skip
    options = replace(WHOLE, audio="copy")
    _, one, cut = assert_equal_to_one_run(source, tmp_path, vfi, options)

    def rest(path):
        with av.open(str(path)) as clip:
            kinds = [stream.type for stream in clip.streams]
            others = [s.index for s in clip.streams if s.type != "video"]
            packets = [packets_of(path, index) for index in others]
            return kinds, packets, [c["start"] for c in clip.chapters()], dict(clip.metadata)

    assert rest(cut) == rest(one)
    assert rest(cut)[0] == ["video", "audio", "subtitle"]


def test_sound_and_video_of_a_joined_file_are_near_to_each_other(tmp_path, vfi):
    """FFmpeg's own order ends after 10 s without packets of a track."""
    source = write(tmp_path / "in.mkv", 45, rate=Fraction(1), options=KEYS, audio="flac")
    interpolate_in_segments(source, tmp_path / "out.mkv", vfi, WHOLE)
    with av.open(str(tmp_path / "out.mkv")) as clip:
        packets = [(p.stream.type, p.pts * p.time_base) for p in clip.demux() if p.size]
    latest, lead = {"audio": Fraction(0), "video": Fraction(0)}, []
    for kind, time in packets:
        latest[kind] = time
        lead.append(abs(latest["video"] - latest["audio"]))
    assert len(packets) == 90 + 469
    assert max(lead) <= 1


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".mp4", VideoOptions(cuts=None)),
        (".mkv", VideoOptions(cuts=None, codec="hevc", preset="ultrafast")),
        (".webm", VideoOptions(cuts=None, preset="8")),
        (".mov", VideoOptions(cuts=None, codec="prores")),
        (".mkv", VideoOptions(cuts=None, codec="av1", preset="12")),
    ],
)
def test_encoders_that_reorder_are_joined(tmp_path, vfi, suffix, options, capfd):
    """With lossy codecs packets differ, but times, number and decodability must not."""
    source = write(tmp_path / "in.mp4", 45, options=KEYS)
    one, cut = tmp_path / f"one{suffix}", tmp_path / f"cut{suffix}"
    interpolate_video(source, one, model=vfi, factor=2, options=options)
    interpolate_in_segments(source, cut, vfi, options)
    assert [t for t, _ in times_and_hashes(cut)] == [t for t, _ in times_and_hashes(one)]
    with av.open(str(cut)) as clip:
        stamps = [(p.dts, p.pts) for p in clip.demux(video=0) if p.size]
    assert len(stamps) == 90
    assert all(dts is None or dts <= pts for dts, pts in stamps)
    known = [dts for dts, _ in stamps if dts is not None]
    assert known == sorted(set(known))
    assert "non monotonically" not in capfd.readouterr().err


def marked_as_key(number, packet):
    if number == 15:
        packet.is_keyframe = True
    return packet


def write_with_a_wrong_key_frame(folder):
    """Packet 15 is declared a key frame, but needs the frames before it."""
    whole = write(folder / "whole.mkv", 45, codec="mpeg4", options={"g": "100"})
    return copied(whole, folder / "in.mp4", marked_as_key)


def write_with_damage(folder):
    whole = write(folder / "whole.mkv", 45, codec="ffv1", options={"g": "10"})
    return copied(whole, folder / "in.mkv", lambda n, p: noisy(p) if n == 25 else p)


def write_all_key_frames(folder, stamps):
    return write(folder / "in.mkv", len(stamps), codec="ffv1", options={"g": "1"}, stamps=stamps)


SPARSE = [*range(0, 800, 40), 800, 1000, 1300]
"""Stamps in milliseconds; from 0.8 s on, two frames are in one span and one is in the last."""


@pytest.mark.parametrize(
    ("write_source", "message"),
    [
        (write_with_damage, "it has damaged packets"),
        (write_with_a_wrong_key_frame, "frames after a key frame refer to frames before it"),
        (
            # Without an order of decoding, the frames of AVI have the stamps of packets.
            lambda folder: write(folder / "in.avi", 45, options={**KEYS, "bf": "3"}),
            "it has frames whose time stamp is missing or does not rise",
        ),
        (
            lambda folder: write_all_key_frames(folder, SPARSE),
            "it has spans of less than four frames between key frames",
        ),
        (
            lambda folder: write_all_key_frames(folder, [*SPARSE, *range(1340, 1500, 40)]),
            "decoding from a key frame does not give the same frames as decoding from before it",
        ),
    ],
    ids=["damage", "wrong key frame", "stamps", "short spans at the end", "short span"],
)
def test_a_video_that_cannot_be_divided_is_recognised(tmp_path, write_source, message):
    source = write_source(tmp_path)
    scanned = scan(source, WHOLE, Fraction("0.4"))
    assert len(scanned.seams) >= 1
    analysed = [analyse(source, scanned, WHOLE, *span) for span in spans(scanned, WHOLE)]
    mode = mode_for(scanned.info, tmp_path / "o.mkv", 2, None, WHOLE)
    with pytest.raises(SeamError) as caught:
        plan(scanned, analysed, mode, "arbitrary", WHOLE)
    assert str(caught.value) == message


def moved(number, packet):
    if number == 15:
        packet.pts = packet.dts = 605
    return packet


@pytest.mark.parametrize(
    ("seed", "change", "message"),
    [
        (0, moved, "its frame at tick 600 is missing when decoding starts at the key frame"),
        (0, lambda n, p: p if n < 20 else None, "its frame at tick 800 is missing when decoding"),
        (1, lambda _, p: p, "its frame at tick 400 refers to frames before the key frame"),
    ],
    ids=["stamp", "end", "content"],
)
def test_a_segment_of_a_file_that_has_changed_is_not_rendered(tmp_path, vfi, seed, change, message):
    source = write(tmp_path / "in.mkv", 45, codec="ffv1", options={"g": "10"})
    scanned = scan(source, WHOLE, Fraction("0.4"))
    analysed = [analyse(source, scanned, WHOLE, *span) for span in spans(scanned, WHOLE)]
    mode = mode_for(scanned.info, tmp_path / "o.mkv", 2, None, WHOLE)
    segment = plan(scanned, analysed, mode, "arbitrary", WHOLE).segments[1]
    assert segment.stamps == tuple(range(400, 801, 40))
    later = write(tmp_path / "later.mkv", 45, seed=seed, codec="ffv1", options={"g": "10"})
    copied(later, source, change)
    later.unlink()
    output = tmp_path / "1.segment"
    with pytest.raises(SeamError, match=message):
        render(vfi, source, scanned, segment, mode, WHOLE, like=tmp_path / "o.mkv", output=output)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv"]


def test_only_complete_segments_of_the_same_encoder_are_joined(tmp_path, vfi):
    source = write(tmp_path / "in.mkv", 45, options=KEYS)
    destination = tmp_path / "out.mkv"
    interpolate_in_segments(source, destination, vfi, WHOLE)
    files = sorted(tmp_path.glob("*.segment"))
    mode = mode_for(scan(source, WHOLE, Fraction(1)).info, destination, 2, None, WHOLE)
    destination.unlink()
    with pytest.raises(VideoError, match="another libx264 than this machine has"):
        join(source, tmp_path / "o.mkv", files, mode, VideoOptions(lossless=True))
    half = tmp_path / "half.segment"
    half.write_bytes(files[1].read_bytes()[:-20])
    with pytest.raises(VideoError, match=r"half\.segment is not a complete segment"):
        join(source, destination, [files[0], half, *files[2:]], mode, WHOLE)
    shutil.copy(files[0], half)
    with pytest.raises(VideoError, match="at the same time"):
        join(source, destination, [files[0], half], mode, WHOLE)
    assert not destination.exists()
    assert SegmentFile(files[0]).packets[0].key


def index_of(segment):
    """(end of the packets, index) of a segment file."""
    content = segment.read_bytes()
    (length,) = struct.unpack("<Q", content[-24:-16])
    return len(content) - 24 - length, json.loads(content[-24 - length : -24])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tick": "1e5"}, "its tick is no fraction"),
        ({"tick": "1/0"}, "Fraction"),
        ({"tick": 1}, "expected string"),
        ({"header": "xy"}, "non-hexadecimal"),
        ({"packets": [[0, 1, True]]}, "missing 2 required"),
    ],
)
def test_a_segment_with_an_invalid_index_is_refused(tmp_path, vfi, change, reason):
    source = write(tmp_path / "in.mkv", 12, options=KEYS)
    interpolate_in_segments(source, tmp_path / "out.mkv", vfi, WHOLE)
    segment = tmp_path / "0.segment"
    end, index = index_of(segment)
    text = json.dumps(index | change).encode()
    content = segment.read_bytes()
    segment.write_bytes(content[:end] + text + struct.pack("<Q", len(text)) + content[-16:])
    with pytest.raises(VideoError, match=rf"0\.segment is not a complete segment \(.*{reason}"):
        SegmentFile(segment)
    segment.write_bytes(content[:-1] + b"2")
    with pytest.raises(VideoError, match="its end is not that of a segment"):
        SegmentFile(segment)


@given(st.permutations(range(8)), st.integers(1, 50))
def test_decoding_timestamps_rise_and_are_never_after_the_presentation(order, step):
    stamps = [place * step for place in order]
    made = decoding_stamps(stamps)
    assert all(a < b for a, b in itertools.pairwise(made))
    assert all(dts <= pts for dts, pts in zip(made, stamps, strict=True))


def test_a_segment_may_last_exactly_the_minimum():
    tick = Fraction(1, 1000)
    assert seams([5, 400, 405, 800, 805, 1206], tick, Fraction(2, 5)) == [405, 805, 1206]
    assert seams([5, 404], tick, Fraction(2, 5)) == seams([5], tick, tick) == seams([], tick, tick)


@given(st.lists(st.integers(0, 10_000), unique=True).map(sorted), st.integers(1, 3000))
def test_segments_have_the_given_duration(stamps, ticks):
    chosen = seams(stamps, Fraction(1, 1000), Fraction(ticks, 1000))
    edges = [*stamps[:1], *chosen]
    assert all(b - a >= ticks for a, b in itertools.pairwise(edges))
    assert set(chosen) <= set(stamps[1:])
