"""Scene cuts that are known: lists of times, and the frames that begin the scenes."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from blend import Blend
from runtime import Interpolator, VideoError, interpolate_video
from runtime.__main__ import make_parser
from runtime.video.arguments import options_from
from runtime.video.options import VideoOptions
from runtime.video.scenes import read_cut_list
from video_clips import pictures, write
from video_parts import KEYS, interpolate_in_segments

HEADER = (
    "Scene Number,Start Frame,Start Timecode,Start Time (seconds),End Frame,End Timecode,"
    "End Time (seconds),Length (frames),Length (timecode),Length (seconds)\n"
)
SCENES = (
    "1,1,00:00:00.000,0.000,5,00:00:00.200,0.200,5,00:00:00.200,0.200\n"
    "2,6,00:00:00.200,0.200,9,00:00:00.360,0.360,4,00:00:00.160,0.160\n"
    "3,10,00:00:00.360,0.360,12,00:00:00.480,0.480,3,00:00:00.120,0.120\n"
)
TIMES = (Fraction(1, 5), Fraction(9, 25))


@pytest.fixture
def vfi():
    return Interpolator(Blend())


@pytest.mark.parametrize(
    "text",
    [
        "Timecode List:,00:00:00.200,00:00:00.360\n" + HEADER + SCENES,
        HEADER + SCENES,
        "\ufeff" + HEADER + SCENES,
        "0.36\n\n0:00.2\n",
        "0.2\r\n0:00:00.36",
    ],
    ids=["pyscenedetect", "without the list", "with a mark", "times", "times of Windows"],
)
def test_lists_are_read(tmp_path, text):
    path = tmp_path / "cuts.csv"
    path.write_text(text)
    assert read_cut_list(path) == TIMES


@pytest.mark.parametrize(
    "content", [b"first\n", b"-1\n", HEADER.encode() + b"1,1\n2,6\n", b"\xff\xfe"]
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "cuts.csv"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"cuts\.csv (has the line|cannot be read)"):
        VideoOptions(cut_list=path)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(VideoError, match=r"none\.csv cannot be read as a list of cuts"):
        VideoOptions(cut_list=tmp_path / "none.csv")
    with pytest.raises(VideoError, match="cut_list is an int"):
        VideoOptions(cut_list=3)
    with pytest.raises(VideoError, match="a time of cut_list is 'soon'"):
        VideoOptions(cut_list=["soon"])


def held(path):
    """Numbers of the source frames after which the output frame is not a new one."""
    real = {frame.to_ndarray().tobytes() for frame in pictures(12)}
    with av.open(str(path)) as clip:
        frames = [frame.to_ndarray().tobytes() for frame in clip.decode(video=0)]
    return [n for n, frame in enumerate(frames[1::2]) if frame in real]


@pytest.mark.parametrize("late", [0, 100])
@pytest.mark.parametrize("off", [0, "0.018", "-0.018"])
def test_the_nearest_frame_begins_the_scene(tmp_path, vfi, late, off):
    """The times count from the first frame, also where it comes after the sound."""
    stamps = [late + 40 * k for k in range(12)]
    source = write(tmp_path / "in.mkv", 12, codec="ffv1", stamps=stamps, audio="pcm_s16le")
    options = VideoOptions(codec="ffv1", cut_list=[time + Fraction(off) for time in TIMES])
    report = interpolate_video(source, tmp_path / "out.mkv", model=vfi, options=options)
    assert held(tmp_path / "out.mkv") == [4, 8, 11]
    assert report.cuts == [time + Fraction(late, 1000) for time in TIMES]


def test_the_list_takes_the_place_of_detection(tmp_path, vfi):
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(12):
            grey = np.full((48, 64, 3), 40 if number < 6 else 200, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    found = interpolate_video(source, tmp_path / "a.mkv", model=vfi)
    assert found.cuts == [Fraction(6, 25)]
    known = interpolate_video(
        source, tmp_path / "b.mkv", model=vfi, options=VideoOptions(cut_list=TIMES)
    )
    assert known.cuts == list(TIMES)


def test_a_part_has_the_cuts_of_the_whole_video(tmp_path, vfi):
    source = write(tmp_path / "in.mkv", 12, codec="ffv1")
    options = VideoOptions(codec="ffv1", cut_list=TIMES, start="0.24")
    interpolate_video(source, tmp_path / "out.mkv", model=vfi, options=options)
    assert held(tmp_path / "out.mkv") == [2, 5]


def test_segments_have_the_known_cuts(tmp_path, vfi):
    source = write(tmp_path / "in.mkv", 45, options=KEYS)
    options = VideoOptions(codec="ffv1", cut_list=["0.4", 1])
    planned = interpolate_in_segments(source, tmp_path / "cut.mkv", vfi, options)
    assert len(planned.segments) > 2
    assert planned.cuts == [Fraction(2, 5), 1]


def test_the_command_takes_a_list_or_a_score(tmp_path, capsys):
    (tmp_path / "cuts.txt").write_text("0.2\n0.36\n")
    parser = make_parser()
    args = parser.parse_args(["a.mkv", "b.mkv", "--cut-list", str(tmp_path / "cuts.txt")])
    assert args.cut_list == Path(tmp_path / "cuts.txt")
    assert options_from(args).cut_list == TIMES
    with pytest.raises(SystemExit):
        parser.parse_args(["a.mkv", "b.mkv", "--cut-list", "cuts.txt", "--cuts", "7"])
    assert "not allowed with argument" in capsys.readouterr().err
