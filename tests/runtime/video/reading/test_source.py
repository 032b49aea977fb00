import io
import random
from fractions import Fraction
from types import SimpleNamespace

import av
import pytest
from av.sidedata.sidedata import Type as SideDataType

from paths import DATA, ROOT, WALK
from runtime import VideoError
from runtime.video.reading.info import DecodedFrame, frame_notes
from runtime.video.reading.source import key_frames, open_source
from video_clips import RATE, arrays_of, copied, noisy, pictures, planes, png, write

CLIPS = ROOT.parent / "shared" / "data" / "clips"


def read(path, **options):
    """Reads a video; returns (info, notes, frames, packets as (kind, time, duration))."""
    with open_source(path, **options) as source:
        items = list(source)
        frames = [item for item in items if isinstance(item, DecodedFrame)]
        packets = [
            (p.stream.type, p.pts * p.time_base, p.duration * p.time_base)
            for p in items
            if not isinstance(p, DecodedFrame)
        ]
        return source.info, source.notes, frames, packets


def times(frames):
    return [frame.pts * frame.time_base for frame in frames]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("a.mkv", {}),
        ("a.mov", {}),
        ("a.webm", {}),
        ("a.ts", {}),
        ("a.avi", {"codec": "mpeg4"}),
        ("a.gif", {"codec": "gif", "fmt": "rgb8"}),
        ("with:colon.mp4", {}),
        ("with %d percent.mkv", {}),
    ],
)
def test_frames_and_times_in_every_container(tmp_path, name, options):
    path = write(tmp_path / name, 12, **options)
    info, notes, frames, packets = read(path)
    assert (info.width, info.height, len(frames)) == (64, 48, 12)
    assert info.rate == RATE
    assert notes == []
    assert packets == []
    start = info.origin
    assert times(frames) == pytest.approx([start + Fraction(k, 25) for k in range(12)])
    if name != "a.ts":  # the header has no duration
        assert info.duration == pytest.approx(Fraction(12, 25), abs=0.05)


def test_frames_equal_those_of_the_decoder(tmp_path):
    path = write(tmp_path / "a.mkv", 8, codec="ffv1", fmt="yuv422p10le")
    info, _, frames, _ = read(path)
    assert (info.pixel_format, info.bits) == ("yuv422p10le", 10)
    for frame, expected in zip(frames, pictures(8, fmt="yuv422p10le"), strict=True):
        assert (frame.frame.to_ndarray() == expected.to_ndarray()).all()


def test_the_info_is_complete_before_the_first_frame(tmp_path):
    tags = {"color_range": 1, "colorspace": 9, "color_primaries": 9, "color_trc": 16}
    hdr = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    path = write(
        tmp_path / "a.mp4",
        codec="libx265",
        fmt="yuv420p10le",
        options={"x265-params": f"log-level=error:hdr10=1:{hdr}:max-cll=1000,400:chromaloc=2"},
        tags=tags,
        sar=Fraction(4, 3),
        audio="aac",
        metadata={"title": "A"},
        languages=("deu", "eng"),
        chapters=((0, 200, "x"), (200, 480, "y")),
    )
    info, notes, _, packets = read(path)
    assert {name: getattr(info, name) for name in tags} == tags
    assert info.is_hdr
    assert info.hdr is not None
    assert info.hdr.light == (1000, 400)
    assert info.hdr.luminance == (Fraction(5, 1000), 1000)
    assert info.hdr.primaries is not None
    assert info.hdr.primaries[:2] == (Fraction(34000, 50000), Fraction(16000, 50000))
    assert info.siting == "topleft"
    assert info.sample_aspect_ratio == Fraction(4, 3)
    assert info.metadata["title"] == "A"
    assert [c["metadata"]["title"] for c in info.chapters] == ["x", "y"]
    assert [str(t) for t in info.tracks] == ["audio track 1 (aac, deu)"]
    assert notes == []  # the text track of an MP4's chapters is not reported as lost
    assert info.frames == 12
    assert packets


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_rotation"), reason="PyAV 18 only")
def test_rotation_is_read(tmp_path):
    info, *_ = read(write(tmp_path / "a.mp4", rotation=90))
    assert info.rotation == 90
    assert info.display_matrix is not None
    assert len(info.display_matrix) == 9


def test_packets_are_read_in_one_pass_in_the_order_of_the_file(tmp_path):
    path = write(tmp_path / "a.mkv", 50, audio="aac", subtitles="subrip")
    with open_source(path) as source:
        kinds = ["video" if isinstance(i, DecodedFrame) else i.stream.type for i in source]
    assert set(kinds) == {"video", "audio", "subtitle"}
    first = [k for k, kind in enumerate(kinds) if kind == "audio"]
    assert first[0] < 12
    assert first[-1] > 40
    with av.open(str(path)) as clip:
        expected = sum(1 for p in clip.demux(clip.streams.audio[0]) if p.size)
    assert len(first) == expected


def test_times_of_all_tracks_are_relative_to_the_earliest_start(tmp_path):
    early = write(tmp_path / "a.mp4", audio="aac", stamps=[500 + 40 * k for k in range(12)])
    info, _, frames, _ = read(early)
    assert info.origin == 0
    assert times(frames)[0] == Fraction(1, 2)
    late = write(tmp_path / "b.mp4", audio="aac", audio_start=Fraction(1, 2))
    info, _, frames, _ = read(late)
    assert (info.origin, times(frames)[0]) == (0, 0)
    stream = write(tmp_path / "c.ts", 12)
    assert read(stream)[0].origin > 0


def test_a_folder_of_images_is_read(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for k, frame in enumerate(pictures(11, fmt="rgb24"), 1):
        frame.save(str(folder / f"f{k}.png"))  # f10 comes after f9
    info, notes, frames, _ = read(folder, picture_rate=Fraction(30000, 1001))
    assert (info.rate, info.frames, info.width) == (Fraction(30000, 1001), 11, 64)
    assert times(frames) == [k * Fraction(1001, 30000) for k in range(11)]
    assert notes == []
    for frame, expected in zip(frames, pictures(11, fmt="rgb24"), strict=True):
        assert (frame.frame.to_ndarray(format="rgb24") == expected.to_ndarray()).all()
    (folder / "f5.png").unlink()
    info, notes, frames, _ = read(folder / "f%d.png")
    assert (len(frames), info.rate) == (10, 25)
    assert notes == ["numbers missing in the file names: 1; the images are treated as consecutive"]
    (folder / "f3.png").write_bytes(b"\x89PNG no more")
    _, notes, frames, _ = read(folder)
    assert len(frames) == 9
    assert notes[-1] == "damaged packets skipped: 1"
    with pytest.raises(VideoError, match=r"f3\.png in .* is damaged"):
        read(folder, strict=True)
    assert len(read(folder, start=Fraction(2, 25), end=Fraction(6, 25))[2]) == 5


@pytest.mark.parametrize("count", [0, 1])
def test_a_folder_with_too_few_images_is_refused(tmp_path, count):
    for _ in range(count):
        (tmp_path / "a.png").write_bytes(png())
    for path in (tmp_path, tmp_path / "%06d.png"):
        with pytest.raises(VideoError, match="at least two"):
            read(path)


@pytest.mark.parametrize("fmt", ["yuv420p", "yuv444p", "yuv420p10le"])
def test_y4m_is_read(tmp_path, fmt):
    path = write(
        tmp_path / "a.y4m", 5, codec="wrapped_avframe", fmt=fmt,
        container_options={"strict": "-1"}, rate=Fraction(30000, 1001),
    )  # fmt: skip

    class Pipe(io.RawIOBase):
        """A file that cannot seek."""

        def __init__(self):
            self._data = io.BytesIO(path.read_bytes())

        def readable(self):
            return True

        def read(self, size=-1):
            return self._data.read(size)

    info, _, frames, _ = read(Pipe())
    assert (info.rate, info.pixel_format, len(frames)) == (Fraction(30000, 1001), fmt, 5)
    for frame, expected in zip(frames, arrays_of(path), strict=True):
        assert (planes(frame.frame) == expected).all()
    assert len(read(Pipe(), start=Fraction(2 * 1001, 30000))[2]) == 4


def test_start_and_end_select_frames(tmp_path):
    path = write(tmp_path / "a.mkv", 100, audio="flac", subtitles="subrip", options={"g": "10"})
    start, end = Fraction(151, 100), Fraction(251, 100)
    info, _, frames, packets = read(path, start=start, end=end)
    shown = times(frames)
    assert shown == sorted(shown)
    assert shown[0] == Fraction(148, 100)  # the last frame before the start
    assert shown[1] == Fraction(152, 100)
    assert shown[-1] == Fraction(252, 100)  # the first frame at or after the end
    assert (info.origin, info.end, info.duration) == (start, end, 1)
    with open_source(path, start=start, end=end) as source:
        assert source.decoded_from == Fraction(120, 100)  # the key frame
    audio = [time for kind, time, _ in packets if kind == "audio"]
    assert start <= min(audio) < start + Fraction(1, 5)
    assert end - Fraction(1, 5) < max(audio) < end
    _, _, _, packets = read(path, start=Fraction(1, 10), end=Fraction(35, 100))
    words = [(1000 * t, 1000 * d) for kind, t, d in packets if kind == "subtitle"]
    assert words == [(100, 100), (300, 100)]  # a frame exactly at the start comes first
    _, _, frames, _ = read(path, start=Fraction(397, 100))
    assert len(frames) == 1  # one frame is a valid part, not a still image
    with pytest.raises(
        VideoError, match=r"lasts 4\.0\d\d s, but start is 60\.000 s: give an earlier start"
    ):
        read(path, start=Fraction(60), end=Fraction(61))


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.webm", "a.gif"])
def test_a_part_of_a_file_that_is_hard_to_seek_in(tmp_path, name):
    options = {"codec": "gif", "fmt": "rgb8"} if name == "a.gif" else {"options": {"g": "25"}}
    path = write(tmp_path / name, 60, **options)
    whole = times(read(path)[2])
    beginning = read(path)[0].origin
    _, _, frames, _ = read(path, start=Fraction(3, 2), end=Fraction(2))
    expected = [t for t in whole if t < beginning + Fraction(3, 2)][-1:]
    expected += [t for t in whole if beginning + Fraction(3, 2) <= t < beginning + 2]
    expected += [t for t in whole if t >= beginning + 2][:1]
    got = times(frames)
    assert got[-len(expected[1:]) :] == expected[1:]
    assert len(got) - len(expected[1:]) <= 1


@pytest.mark.parametrize(("start", "end"), [(2, 1), (-1, None), (None, 0), (1, 1)])
def test_invalid_parts_are_refused(tmp_path, start, end):
    with pytest.raises(VideoError, match=r"give a start of 0 or more|above 0"):
        read(tmp_path / "a.mkv", start=start, end=end)


def test_one_of_several_video_tracks_can_be_chosen(tmp_path):
    path = write(tmp_path / "a.mkv", video_tracks=2)
    best = read(path)[0].width
    assert best in (64, 80)
    info, notes, _, _ = read(path, video_stream=1)
    assert info.width == 80
    assert notes == ["not carried over: video track 0 (h264)"]
    with pytest.raises(VideoError, match=r"no video track 7: choose one of 0 \(64x48\), 1 \(80x48"):
        read(path, video_stream=7)


def test_a_cover_image_is_not_a_video_track(tmp_path):
    path = write(tmp_path / "a.mkv", cover=True)
    info, notes, _, _ = read(path)
    assert info.width == 64
    assert notes == ["not carried over: cover picture track 1 (png)"]
    with av.open(str(tmp_path / "b.mkv"), "w") as out:
        sound = out.add_stream("pcm_s16le", rate=48000)
        out.add_attachment("cover.png", "image/png", png())
        packet = av.Packet(bytes(4096))
        packet.pts = packet.dts = 0
        packet.stream, packet.time_base = sound, Fraction(1, 48000)
        sound.codec_context.open()
        out.mux(packet)
    with pytest.raises(VideoError, match="has no video track"):
        read(tmp_path / "b.mkv")


def test_a_damaged_packet_is_skipped_counted_and_refused_when_strict():
    path = DATA / "sample_with_invalid_nalu.mp4"
    with open_source(path) as source:
        assert len([i for i in source if isinstance(i, DecodedFrame)]) == 29
        assert source.damaged == 1
        assert source.notes[-1] == "damaged packets skipped: 1"
    with pytest.raises(VideoError, match=r"packet 28 of the video in .* is damaged"):
        read(path, strict=True)


def test_flipped_bytes_lose_few_frames(tmp_path):
    path = write(tmp_path / "a.mkv", 60, options={"g": "6"})
    data = bytearray(path.read_bytes())
    rng = random.Random(3)
    for _ in range(20):
        data[rng.randrange(len(data) // 4, len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    _, _, frames, _ = read(path)
    assert 40 <= len(frames) <= 60


def test_a_file_that_ends_early_is_read_up_to_its_end(tmp_path):
    path = write(tmp_path / "a.mkv", 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _, _, frames, _ = read(path)
    assert 10 < len(frames) < 60


def test_a_change_of_the_size_is_refused(tmp_path):
    parts = [write(tmp_path / f"{w}.ts", 8, size=(48, w)) for w in (64, 96)]
    joined = tmp_path / "a.ts"
    joined.write_bytes(b"".join(p.read_bytes() for p in parts))
    with pytest.raises(VideoError, match="changes from 64x48 to 96x48"):
        read(joined)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png"])
def test_a_still_image_is_refused(tmp_path, name):
    options = {"a.gif": {"codec": "gif", "fmt": "rgb8"}}.get(name, {})
    if name == "a.png":
        (tmp_path / name).write_bytes(png())
    else:
        write(tmp_path / name, 1, **options)
    with pytest.raises(VideoError, match=r"is a still image \(one frame\)"):
        read(tmp_path / name)


def test_a_video_with_one_frame_that_can_be_decoded_is_no_still_image(tmp_path):
    path = write(tmp_path / "a.mov", 5, codec="png", fmt="rgb24")
    with av.open(str(path)) as clip:
        packets = [bytes(packet) for packet in clip.demux(video=0) if packet.size]
    content = path.read_bytes()
    for packet in packets[1:]:
        content = content.replace(packet, bytes(len(packet)))
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"a\.mov has only one frame .* \(of 5 packets\): give a"):
        read(path)


def test_a_video_that_was_cut_off_after_the_first_frame_is_no_still_image(tmp_path):
    path = write(tmp_path / "a.mp4", 5, codec="mpeg4", container_options={"movflags": "faststart"})
    with av.open(str(path)) as clip:
        first, second = (entry.pos for entry in clip.streams.video[0].index_entries[:2])
    assert 0 < first < second
    path.write_bytes(path.read_bytes()[:second])
    with pytest.raises(
        VideoError, match=r"only one frame .* \(the file declares 5 frames .*\): give"
    ):
        read(path)


def test_a_folder_with_one_image_that_can_be_decoded_is_no_still_image(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"" if number else png())
    with pytest.raises(VideoError, match=r"has only one frame .* \(of 3 images\): give a whole"):
        read(tmp_path)


def test_an_encrypted_file_is_named_as_encrypted(tmp_path):
    key = "00112233445566778899aabbccddeeff"
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    path = write(tmp_path / "a.mp4", container_options=options)
    with pytest.raises(VideoError, match="is encrypted"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "cannot be read as a video"),
        (b"no video" * 100, "cannot be read as a video"),
        ((DATA / "invalid-bitstream.webm").read_bytes(), "no frame that can be decoded"),
    ],
)
def test_files_that_are_not_videos_are_refused(tmp_path, content, message):
    path = tmp_path / "a.webm"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("start", "cues"),
    [
        (Fraction(1, 30), [(34, 166), (300, 100)]),
        (Fraction(199, 1000), [(199, 1), (300, 100)]),
        (Fraction(1, 5), [(300, 100)]),
        (Fraction(3, 10), [(300, 100)]),
    ],
)
def test_a_subtitle_that_is_visible_at_the_start_of_a_part_begins_there(tmp_path, start, cues):
    """In the file one lasts from 0 to 0.2 s, and one from 0.3 to 0.4 s."""
    path = write(tmp_path / "a.mkv", 25, subtitles="subrip")
    _, _, _, packets = read(path, start=start)
    assert packets == [
        ("subtitle", Fraction(begin, 1000), Fraction(length, 1000)) for begin, length in cues
    ]


def test_a_codec_that_cannot_be_decoded_is_refused(tmp_path):
    path = write(tmp_path / "a.mkv", 5)
    content = path.read_bytes()
    assert content.count(b"V_MPEG4/ISO/AVC") == 1
    path.write_bytes(content.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ"))
    with pytest.raises(VideoError, match=r"a\.mkv has a video track of a codec that this FFmpeg"):
        read(path)


def test_frames_of_more_pixels_than_the_limit_are_refused(tmp_path):
    path = tmp_path / "a.y4m"
    path.write_bytes(b"YUV4MPEG2 W16384 H8193 F25:1 C420\nFRAME\n")
    with pytest.raises(VideoError, match="has frames of 16384x8193, the limit is 134217728 pixels"):
        read(path)
    path.write_bytes(b"YUV4MPEG2 W16384 H8192 F25:1 C420\nFRAME\n")
    with pytest.raises(VideoError, match="no frame that can be decoded, it is damaged or empty"):
        read(path)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({}, "has no frame that can be decoded, it is damaged or empty: give a whole file"),
        ({"start": Fraction(1, 5)}, "has no frame that can be decoded from 0.2 s on: start"),
        ({"end": Fraction(1, 5)}, "has no frame that can be decoded from 0 s on: start earlier"),
    ],
    ids=["whole", "start", "end"],
)
def test_a_video_of_damaged_packets_alone_is_refused(tmp_path, part, message):
    whole = write(tmp_path / "whole.mkv", 20, codec="ffv1")
    path = copied(whole, tmp_path / "a.mkv", lambda _, packet: noisy(packet))
    with pytest.raises(VideoError, match=message):
        read(path, **part)


def test_a_file_that_cannot_be_read_on_is_used_up_to_there_and_refused_when_strict(tmp_path):
    """In IVF each frame follows its size; after a wrong size the next frame is not found."""
    path = write(tmp_path / "a.ivf", 12, codec="libvpx")
    content, at = bytearray(path.read_bytes()), 32
    for _ in range(6):
        at += 12 + int.from_bytes(content[at : at + 4], "little")
    content[at : at + 4] = b"\xff" * 4
    path.write_bytes(content)
    _, notes, frames, _ = read(path)
    assert len(frames) == 6
    (note,) = notes
    assert note.startswith("damaged packets skipped: ")
    assert key_frames(path) == ([0], None)
    with pytest.raises(VideoError, match=r"a part of the data in .*a\.ivf is damaged \(.+\): rep"):
        read(path, strict=True)
    with pytest.raises(VideoError, match=r"a\.ivf cannot be read to its end \(.+\): copy or downl"):
        key_frames(path, strict=True)


class Entry(bytes):
    """An entry of a frame's side data, with PyAV's type."""

    type: SideDataType


class SideDataUpTo18:
    """PyAV's container of side data up to version 18: it iterates over the entries."""

    def __init__(self, *names):
        self.entries = []
        for name in names:
            entry = Entry(name.encode())
            entry.type = SideDataType[name]
            self.entries.append(entry)

    def __iter__(self):
        return iter(self.entries)

    def __getitem__(self, kind):
        return next(entry for entry in reversed(self.entries) if entry.type is kind)


class SideDataFrom19(SideDataUpTo18):
    """PyAV's container of side data from version 19 on: a mapping that iterates over the types."""

    def __iter__(self):
        return iter({entry.type: entry for entry in self.entries})


@pytest.mark.parametrize("container", [SideDataUpTo18, SideDataFrom19])
def test_dynamic_hdr_metadata_is_named(container):
    held = container(
        "CONTENT_LIGHT_LEVEL", "DYNAMIC_HDR_PLUS", "CONTENT_LIGHT_LEVEL", "DOVI_METADATA"
    )
    (note,) = frame_notes(SimpleNamespace(side_data=held))
    assert note == "not carried over: the dynamic metadata of HDR10+ and Dolby Vision"


def test_the_pixel_aspect_ratio_is_a_fraction_or_not_known(tmp_path):
    """PyAV 19 has its own rational, which is 0 if the file has no aspect ratio."""
    path = write(tmp_path / "a.mkv", 2, sar=Fraction(4, 3))
    ratio = read(path)[0].sample_aspect_ratio
    assert type(ratio) is Fraction
    assert ratio == Fraction(4, 3)
    assert read(WALK)[0].sample_aspect_ratio is None


def test_a_matrix_that_cannot_be_converted_is_named_when_the_source_is_opened(tmp_path):
    path = write(tmp_path / "a.mkv", 2, tags={"colorspace": 8})
    with pytest.raises(VideoError, match="the video's colour matrix is YCgCo"):
        read(path)


def test_clips_with_edit_lists_and_variable_rates_are_read():
    for name, count in (("sample_edit_list.mp4", 77), ("hdr10-video-with-sdr-container.mp4", 28)):
        path = CLIPS / name
        if not path.is_file():
            pytest.skip(f"{path} is not here")
        info, notes, frames, _ = read(path)
        assert len(frames) == count
        assert times(frames)[0] == info.origin == 0
        if name.startswith("sample"):
            assert info.rotation == -90
            assert "data track 2" in notes[0]
