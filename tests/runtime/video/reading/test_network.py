"""Network streams, from servers on the loopback interface."""

import itertools
import socket
from fractions import Fraction

import av
import pytest

from blend import Blend
from network_servers import free_port, http_server, rtsp_server, udp_sender
from runtime import Interpolator, VideoError, VideoOptions, interpolate_video, plan_video
from runtime.video.reading import opening
from runtime.video.reading import source as source_module
from runtime.video.reading.demux import READ_ATTEMPTS, Demuxer
from runtime.video.reading.opening import name_of
from runtime.video.reading.source import open_source
from runtime.video.segments.resume import interpolate_video_resumable
from video_clips import write
from video_parts import times_and_hashes

OPTIONS = VideoOptions(codec="ffv1", cuts=None)


@pytest.fixture
def vfi():
    return Interpolator(Blend())


@pytest.mark.parametrize("start", [None, "0.5"])
def test_a_file_from_a_web_server_equals_the_file(tmp_path, vfi, start):
    source = write(tmp_path / "in.mkv", 30, options={"g": "10"}, audio="aac")
    options = VideoOptions(codec="ffv1", cuts=None, start=start)
    with http_server(tmp_path) as server:
        planned = plan_video(f"{server}/in.mkv", tmp_path / "web.mkv", options=options)
        report = interpolate_video(
            f"{server}/in.mkv", tmp_path / "web.mkv", model=vfi, options=options
        )
    there = interpolate_video(source, tmp_path / "file.mkv", model=vfi, options=options)
    assert times_and_hashes(tmp_path / "web.mkv") == times_and_hashes(tmp_path / "file.mkv")
    assert (report.frames_in, report.notes) == (there.frames_in, there.notes)
    assert planned.source.name == f"{server}/in.mkv"


def test_a_stream_that_fails_is_not_read_again_and_a_file_is(tmp_path, monkeypatch):
    attempts = []

    class Counting(Demuxer):
        def __init__(self, *arguments, **options):
            attempts.append(options["attempts"])
            super().__init__(*arguments, **options)

    monkeypatch.setattr(source_module, "Demuxer", Counting)
    path = write(tmp_path / "in.mkv", 5)
    with http_server(tmp_path) as server:
        for name in (path, f"{server}/in.mkv"):
            with open_source(name):
                pass
    assert attempts == [READ_ATTEMPTS, 1]


def received(out):
    """Times of the frames of a file; every second one is a real frame of the stream."""
    with av.open(str(out)) as clip:
        return [frame.pts * frame.time_base for frame in clip.decode(video=0)]


@pytest.mark.parametrize("serve", [udp_sender, rtsp_server])
def test_a_live_stream_is_written_until_it_ends(tmp_path, vfi, monkeypatch, serve):
    monkeypatch.setattr(opening, "_TIMEOUT_S", (10.0, 2.0))
    with serve(100) as address:
        report = interpolate_video(address, tmp_path / "o.mkv", model=vfi, options=OPTIONS)
    # What comes before the first key frame, or while the buffer of the socket is full, is lost.
    assert 60 <= report.frames_in <= 100
    times = received(tmp_path / "o.mkv")
    assert len(times) == report.frames_out == 2 * report.frames_in
    # FFmpeg gives the first frame of RTP no stamp, so that the gap after it is estimated.
    steps = {round((b - a) * 1000) for a, b in itertools.pairwise(times[4:])}
    assert steps == {20}


def test_the_end_of_a_part_ends_the_reading(tmp_path, vfi):
    """The sender still sends when the output is complete."""
    options = VideoOptions(codec="ffv1", cuts=None, end=1)
    with udp_sender(150) as address:
        interpolate_video(address, tmp_path / "o.mkv", model=vfi, options=options)
    times = received(tmp_path / "o.mkv")
    assert times == [Fraction(k, 50) for k in range(50)]


def test_a_server_that_is_not_there_is_named_without_its_password(tmp_path, vfi):
    address = f"rtsp://user:secret@127.0.0.1:{free_port()}/camera?key=1"
    with pytest.raises(
        VideoError, match=r"cannot be read as a video .*: check the address"
    ) as raised:
        interpolate_video(address, tmp_path / "o.mkv", model=vfi)
    assert "secret" not in str(raised.value)
    assert "key" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_answer_is_an_error(monkeypatch, tmp_path, vfi):
    monkeypatch.setattr(opening, "_TIMEOUT_S", (0.3, 0.3))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/in.mkv"
        with pytest.raises(VideoError, match="check the address, and whether the server runs"):
            interpolate_video(address, tmp_path / "o.mkv", model=vfi)


@pytest.mark.parametrize("address", ["ftp://host/in.mkv", "concat://a", "file:///etc/passwd"])
def test_other_protocols_are_refused(tmp_path, vfi, address):
    with pytest.raises(VideoError, match=":// is not a supported protocol: give a file, or one of"):
        interpolate_video(address, tmp_path / "o.mkv", model=vfi)


def test_names_have_no_secrets():
    assert name_of("rtsp://me:pass@camera:554/a/b?token=1#x") == "rtsp://camera:554/a/b"


def test_segments_need_a_file(tmp_path, vfi):
    with pytest.raises(VideoError, match="is not a file, which a run with segments needs"):
        interpolate_video_resumable("http://host/in.mkv", tmp_path / "o.mkv", model=vfi)


def test_a_strict_run_fails_when_a_stream_breaks_off(tmp_path, vfi, monkeypatch):
    monkeypatch.setattr(opening, "_TIMEOUT_S", (10.0, 1.0))
    with udp_sender(60) as address, open_source(address, strict=True) as source:
        assert source.info.rate == Fraction(25)
        with pytest.raises(VideoError, match="is damaged"):
            for _ in source:
                pass
