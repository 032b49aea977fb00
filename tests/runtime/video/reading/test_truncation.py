"""Files that end before their declared end, and many complete files that must not be reported."""

import io
import re
from dataclasses import replace
from fractions import Fraction

import av
import pytest

from paths import DATA, ROOT
from runtime import VideoError
from runtime.video.options import VideoOptions
from runtime.video.reading.info import DecodedFrame
from runtime.video.reading.source import key_frames, open_source
from runtime.video.segments.plan import scan
from video_clips import pictures, write

CLIPS = ROOT.parent / "shared" / "data" / "clips"

SUFFIXES = [
    ".mkv", ".webm", ".mp4", ".mov", ".m4v", ".3gp", ".avi", ".flv", ".ts", ".mpg", ".wmv", ".nut",
    ".gif", ".h264", ".y4m", ".mjpeg", ".ivf",
]  # fmt: skip
ALONE = (".gif", ".h264", ".y4m", ".mjpeg", ".ivf")
CODECS = {
    ".avi": "mpeg4", ".mpg": "mpeg2video", ".wmv": "wmv2", ".nut": "mpeg4", ".gif": "gif",
    ".y4m": "wrapped_avframe", ".mjpeg": "mjpeg", ".ivf": "libvpx-vp9",
}  # fmt: skip
SOUNDS = {".webm": "libopus", ".mpg": "mp2", ".wmv": "wmav2"}
FAST = {"libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"}}


def clip(folder, suffix, count=50, *, sound=False, **options):
    codec = CODECS.get(suffix, "libvpx-vp9" if suffix == ".webm" else None)
    return write(
        folder / f"in{suffix}",
        count,
        codec=codec,
        fmt={".gif": "rgb8", ".mjpeg": "yuvj420p"}.get(suffix, "yuv420p"),
        format="asf" if suffix == ".wmv" else None,
        audio=SOUNDS.get(suffix, "aac") if sound else None,
        options={**FAST.get(codec, {}), **options.pop("options", {})},
        **options,
    )


def read(path, **options):
    """Reads a file; returns (frames, notes)."""
    with open_source(path, **options) as source:
        frames = sum(isinstance(item, DecodedFrame) for item in source)
    return frames, source.notes


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def assert_whole(path):
    _, notes = read(path)
    assert not [note for note in notes if "truncated" in note]
    assert key_frames(path)[1] is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_complete_file_is_not_truncated(tmp_path, suffix):
    assert_whole(clip(tmp_path, suffix))


@pytest.mark.parametrize("seconds", [1, 5])
@pytest.mark.parametrize("audio_first", [False, True])
@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s not in ALONE])
def test_sound_of_another_length_is_not_truncation(tmp_path, suffix, audio_first, seconds):
    assert_whole(clip(tmp_path, suffix, sound=True, audio_first=audio_first, audio_seconds=seconds))


VARIABLE = [0, 40, 80, 400, 440, 1000, 1040, 1080, 1500, 2000, 2100, 2140, 2180, 2220, 2260, 9000]


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s not in (*ALONE, ".mpg")])
def test_a_variable_rate_is_not_truncation(tmp_path, suffix):
    assert_whole(clip(tmp_path, suffix, len(VARIABLE), stamps=VARIABLE))


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mp4", ".mov", ".avi", ".flv", ".wmv"])
def test_a_long_last_frame_is_not_truncation(tmp_path, suffix):
    whole = clip(tmp_path, suffix)
    path = tmp_path / f"long{suffix}"
    form = "asf" if suffix == ".wmv" else None
    with av.open(str(whole)) as before, av.open(str(path), "w", format=form) as out:
        stream = out.add_stream_from_template(before.streams.video[0])
        packets = [packet for packet in before.demux(video=0) if packet.size]
        last = max(packets, key=lambda packet: packet.dts if packet.pts is None else packet.pts)
        last.duration = round(8 / last.time_base)
        for packet in packets:
            packet.stream = stream
            out.mux(packet)
    assert_whole(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.mp4", {"movflags": "frag_keyframe"}),
        ("a.mp4", {"movflags": "dash+frag_keyframe+delay_moov+global_sidx"}),
        ("a.mp4", {"movflags": "faststart"}),
        ("a.mp4", {"use_editlist": "0"}),
        ("a.webm", {"live": "1"}),
        ("a.mkv", {"cues_to_front": "1", "reserve_index_space": "2000"}),
    ],
)
@pytest.mark.parametrize("sound", [False, True])
def test_files_of_many_muxer_options_are_complete(tmp_path, name, options, sound):
    suffix = name[1:]
    assert_whole(
        clip(tmp_path, suffix, sound=sound, container_options=options, options={"g": "10"})
    )


def test_tracks_that_last_longer_than_the_video_are_not_truncation(tmp_path):
    assert_whole(write(tmp_path / "a.mkv", 5, subtitles="subrip", audio="aac"))
    assert_whole(write(tmp_path / "b.mkv", 20, cover=True))
    assert_whole(write(tmp_path / "c.mkv", 20, video_tracks=2, audio="aac", audio_seconds=3))
    chapters = ((0, 500, "a"), (500, 20000, "b"))
    assert_whole(write(tmp_path / "d.mkv", 20, chapters=chapters))
    assert_whole(write(tmp_path / "e.mp4", 20, chapters=chapters))
    assert_whole(write(tmp_path / "f.mp4", audio="aac", stamps=[500 + 40 * k for k in range(12)]))


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".flv", ".avi", ".ts"])
def test_a_file_written_to_a_pipe_is_not_truncated(tmp_path, suffix):
    """In a pipe the header is not completed."""

    class Pipe(io.RawIOBase):
        def __init__(self):
            self.content = b""

        def writable(self):
            return True

        def write(self, content):
            self.content += bytes(content)
            return len(content)

    pipe = Pipe()
    form = {".mkv": "matroska", ".ts": "mpegts"}.get(suffix, suffix[1:])
    with av.open(pipe, "w", format=form) as out:
        stream = out.add_stream(CODECS.get(suffix, "libx264"), rate=25) if suffix != ".webm" else (
            out.add_stream("libvpx-vp9", rate=25, options=FAST["libvpx-vp9"])
        )  # fmt: skip
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k, frame in enumerate(pictures(25)):
            frame.pts, frame.time_base = k, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    path = tmp_path / f"in{suffix}"
    path.write_bytes(pipe.content)
    assert_whole(path)


@pytest.mark.parametrize(
    "path",
    [p for p in sorted([*DATA.iterdir(), *(CLIPS.iterdir() if CLIPS.is_dir() else [])])
     if p.suffix in (".mp4", ".webm", ".mkv") and p.name != "invalid-bitstream.webm"],
    ids=lambda path: f"{path.parent.name}-{path.name}",
)  # fmt: skip
def test_real_clips_are_not_truncated(path):
    assert key_frames(path)[1] is None
    if path.stat().st_size < 10**6:
        assert_whole(path)


SECONDS = r"declares 2\.000 s of video, but contains [01]\.\d+ s \(\d+ frames\)"
FRAMES = r"declares \d+ frames \([12]\.\d+ s\), but contains \d+ \([01]\.\d+ s\)"
CUT = [
    (".mkv", 0.55, {}, SECONDS),
    (".webm", 0.55, {}, SECONDS),
    (".avi", 0.55, {}, SECONDS),
    (".flv", 0.55, {}, r"declares 2\.0\d+ s, but contains [01]\.\d+ s \(\d+ frames\)"),
    (".wmv", 0.55, {}, "ends in the middle of its data"),
    (".mp4", 0.55, {"movflags": "faststart"}, FRAMES),
    (".mov", 0.55, {"movflags": "faststart"}, FRAMES),
    (".mp4", 0.8, {"movflags": "frag_keyframe+empty_moov"}, FRAMES),
]


@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize(("suffix", "share", "options", "message"), CUT)
def test_a_truncated_file_is_named_and_refused_when_strict(
    tmp_path, suffix, share, options, message, sound
):
    path = clip(
        tmp_path, suffix, sound=sound, size=(144, 192), container_options=options,
        options={"g": "20"},
    )  # fmt: skip
    frames, notes = read(cut(path, share))
    assert 10 < frames <= 50
    (note,) = [note for note in notes if "truncated" in note]
    assert note.startswith("the file ")
    assert note.endswith(": it is truncated")
    if not sound:  # or the track is named of which less came
        assert frames < 50
        assert re.search(message, note)
    assert key_frames(path)[1] == note
    with pytest.raises(VideoError, match=r"truncated; get the complete file|is damaged"):
        read(path, strict=True)
    quick = VideoOptions()
    assert scan(path, quick, Fraction(1)).notes == (note,)
    with pytest.raises(VideoError, match=r"truncated; get the complete|cannot be read to its end"):
        scan(path, replace(quick, strict=True), Fraction(1))


def test_missing_fragments_are_named(tmp_path):
    """The index lists only the existing fragments."""
    flags = {"movflags": "dash+frag_keyframe+delay_moov+global_sidx"}
    path = clip(tmp_path, ".mp4", container_options=flags, options={"g": "10"})
    content = path.read_bytes()
    last = content.rindex(b"moof")
    path.write_bytes(content[: last + 20])
    assert read(path)[1] == [
        "the file declares 2.000 s of video, but contains 1.600 s (40 frames): it is truncated"
    ]


def test_a_cut_after_the_last_frame_is_not_named(tmp_path):
    """Data after the last frame only helps in seeking."""
    for suffix in (".mkv", ".avi"):
        path = clip(tmp_path, suffix)
        path.write_bytes(path.read_bytes()[:-20])
        assert read(path) == (50, [])


def test_a_part_is_not_checked_for_truncation(tmp_path):
    path = cut(clip(tmp_path, ".mkv"))
    for part in ({"start": Fraction(1, 10)}, {"end": Fraction(1, 10)}):
        assert read(path, **part)[1] == []
