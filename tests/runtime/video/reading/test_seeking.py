"""Reading a part of a video gives the same frames as reading all of it, in every container."""

from fractions import Fraction

import av
import pytest
from av.packet import Packet
from av.video.frame import VideoFrame

from runtime import VideoError
from runtime.video.reading.demux import Demuxer, Part
from runtime.video.reading.info import DecodedFrame
from runtime.video.reading.source import key_frames, open_source
from video_clips import noisy, planes, write

OPEN = "open-gop=1:keyint=25:min-keyint=25:bframes=3:b-adapt=0:scenecut=0"
H264 = {
    "closed": {"g": "25", "bf": "3"},
    "open": {"x264-params": OPEN},
    "pyramid": {"x264-params": f"{OPEN}:b-pyramid=normal"},
    "refresh": {"x264-params": "intra-refresh=1:keyint=25:bframes=0"},
    "one": {"g": "1000", "bf": "2"},
}
HEVC = {
    "closed": {"x265-params": "log-level=none:open-gop=0:keyint=25:bframes=3"},
    "open": {"x265-params": "log-level=none:open-gop=1:keyint=25:bframes=3"},
}
# These encoders write only open GOPs.
MPEG = {"open": {"g": "12", "bf": "2"}, "one": {"g": "600", "bf": "2"}}
VP9 = {"hidden": {"g": "25", "auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "8"}}
PLAIN = {"plain": {"g": "12"}}

CASES = [
    (suffix, codec, name, kinds[name])
    for suffixes, codec, kinds in (
        ((".ts", ".mkv", ".mp4", ".flv", ".mov", ".avi"), "libx264", H264),
        ((".ts", ".mkv", ".mp4"), "libx265", HEVC),
        ((".ts", ".mkv", ".mpg"), "mpeg2video", MPEG),
        ((".avi", ".mkv", ".mp4", ".nut"), "mpeg4", MPEG),
        ((".webm", ".mkv"), "libvpx-vp9", VP9),
        ((".wmv",), "wmv2", PLAIN),
    )
    for suffix in suffixes
    for name in kinds
]
SOUNDS = {".webm": "libopus", ".mpg": "mp2", ".wmv": "wmav2", ".avi": "libmp3lame"}
STARTS = [
    *(Fraction(k, 1000) for k in (1, 20, 40, 60, 100, 300, 500, 900, 960, 970, 1000, 1030)),
    *(Fraction(k, 7) for k in range(8, 15)),
]


def frames_of(path, **options):
    """Reads a video; returns (origin, (time in seconds, samples) of each frame, notes)."""
    with open_source(path, **options) as source:
        frames = [
            (None if item.pts is None else item.pts * item.time_base, planes(item.frame))
            for item in source
            if isinstance(item, DecodedFrame)
        ]
    return source.info.origin, frames, source.notes


def from_start(whole, moment):
    """The last frame before a moment, and all frames from the moment on."""
    first = next(k for k, (stamp, _) in enumerate(whole) if stamp >= moment)
    return whole[first if whole[first][0] == moment else max(0, first - 1) :]


def same(one, other):
    return len(one) == len(other) and all(
        a == b and (x == y).all() for (a, x), (b, y) in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("sound", [False, True], ids=["alone", "sound"])
@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [(suffix, codec, options) for suffix, codec, _, options in CASES],
    ids=["-".join([codec, name, suffix]) for suffix, codec, name, _ in CASES],
)
def test_a_part_has_the_frames_of_the_whole_from_its_start_on(
    tmp_path, suffix, codec, options, sound
):
    path = write(
        tmp_path / f"in{suffix}",
        60,
        codec=codec,
        options=options,
        format="asf" if suffix == ".wmv" else None,
        audio=SOUNDS.get(suffix, "aac") if sound else None,
    )
    origin, whole, _ = frames_of(path)
    assert len(whole) == 60
    for number, start in enumerate(STARTS):
        # A seek to a place between two key frames is no damage.
        _, part, notes = frames_of(path, start=start, strict=number % 2 == 0)
        expected = from_start(whole, origin + start)
        # If a frame is exactly at the start, the one before it may be read as well.
        earlier = whole[max(0, len(whole) - len(expected) - 1) :]
        assert same(part, expected) or (expected[0][0] == origin + start and same(part, earlier))
        assert notes == []


def test_a_part_is_exact_if_key_frames_are_far_apart(tmp_path):
    """There is no key frame within 30 s before the start."""
    path = write(tmp_path / "in.ts", 45, rate=Fraction(1), options={"g": "1000", "bf": "2"})
    origin, whole, _ = frames_of(path)
    _, part, _ = frames_of(path, start=Fraction(83, 2))
    assert same(part, from_start(whole, origin + Fraction(83, 2)))


def test_no_frame_is_lost_if_timestamps_go_back():
    stamps = [0, 4, 3, 8, 5, 2, 9, 12]

    def packets():
        for stamp in stamps:
            packet = Packet(b"x")
            packet.pts = packet.dts = stamp
            packet.time_base = Fraction(1)
            yield packet

    def decode(packet):
        frame = VideoFrame(16, 16)
        frame.pts, frame.time_base = packet.pts, packet.time_base
        return [frame]

    part = Part(Fraction(6), None)
    items = Demuxer("any", packets, decode, 0, part, False).items()
    assert [i.pts for i in items if isinstance(i, DecodedFrame)] == [3, 8, 5, 2, 9, 12]


@pytest.mark.parametrize(("sound", "read"), [(20, 3), (1, 14)])
def test_reading_ends_when_all_tracks_have_ended_or_ten_seconds_after_the_part(
    tmp_path, sound, read
):
    """Sound of 1 s never reaches the end of the part."""
    path = write(
        tmp_path / "in.mkv", 20, rate=Fraction(1), codec="mpeg4", audio="flac",
        audio_seconds=sound, container_options={"max_interleave_delta": "0"},
    )  # fmt: skip
    taken = []

    def packets():
        for packet in clip.demux():
            taken.append(packet.stream.type)
            yield packet

    with av.open(str(path)) as clip:
        video = clip.streams.video[0]
        part = Part(None, Fraction(2))
        demuxer = Demuxer("any", packets, lambda p: p.decode(), video.index, part, False, 1)
        kinds = [isinstance(item, DecodedFrame) for item in demuxer.items()]
    assert (taken.count("video"), sum(kinds)) == (read, 3)


@pytest.mark.parametrize(("after_seek", "damaged"), [(True, 1), (False, 8)])
def test_packets_before_the_first_key_frame_after_a_seek_are_no_damage(
    tmp_path, after_seek, damaged
):
    """VP8 decodes nothing from packet 13 on, up to key frame 20; packet 29 is damaged."""
    path = write(tmp_path / "in.webm", 30, codec="libvpx", options={"g": "10"})
    with av.open(str(path)) as clip:
        packets = [packet for packet in clip.demux(video=0) if packet.size]
        assert [n for n, packet in enumerate(packets) if packet.is_keyframe] == [0, 10, 20]
        packets[29] = noisy(packets[29])
        video, part = clip.streams.video[0], Part(None, None)
        packets[29].stream = video
        demuxer = Demuxer("any", lambda: iter(packets[13:]), video.decode, 0, part, False)
        if after_seek:
            demuxer.restart()
        frames = [item for item in demuxer.items() if isinstance(item, DecodedFrame)]
    assert (len(frames), demuxer.damaged) == (9, damaged)


def test_a_part_that_starts_at_the_end_is_refused(tmp_path):
    path = write(tmp_path / "in.mkv", 25)
    with pytest.raises(VideoError, match=r"lasts 1\.000 s, but start is 1\.000 s: give an earlier"):
        frames_of(path, start=Fraction(1))
    assert frames_of(path, start=Fraction(24, 25))[1][-1][0] == Fraction(24, 25)


@pytest.mark.parametrize("part", [{"start": Fraction(1, 2)}, {"end": Fraction(1, 2)}])
def test_a_part_of_a_raw_stream_is_refused(tmp_path, part):
    path = write(tmp_path / "in.h264", 30)
    assert len(frames_of(path)[1]) == 30
    with pytest.raises(VideoError, match=r"in\.h264 has no time stamps, so that start and end"):
        frames_of(path, **part)


def test_a_source_without_seeking_has_no_key_frames_to_split_at(tmp_path):
    path = write(tmp_path / "in.mpg", 60, codec="mpeg2video", options={"g": "12"})
    assert key_frames(path) == ([], None)
    with pytest.raises(VideoError, match="give an earlier start"):
        frames_of(write(tmp_path / "in.ts", 30), start=Fraction(60))
