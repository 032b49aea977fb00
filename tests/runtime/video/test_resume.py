"""A video that is rendered in segments: it continues after an early end, and equals one run."""

import json
import signal
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

import alpha_clips
from blend import Blend
from commands import run_module, signalled
from interlaced_clips import write_interlaced
from runtime import BackendError, Interpolator, VideoError, interpolate_video
from runtime.video.options import VideoOptions
from runtime.video.segments import resume
from runtime.video.segments.folder import SegmentFolder
from runtime.video.segments.resume import interpolate_video_resumable
from video_clips import write, write_changing_aspect
from video_parts import KEYS, times_and_hashes

OPTIONS = VideoOptions(codec="ffv1", cuts=None)
MASK = np.tri(48, 64, dtype=bool)


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    monkeypatch.setattr(resume, "SEGMENT_SECONDS", Fraction("0.4"))


@pytest.fixture
def clip(tmp_path):
    return write(tmp_path / "in.mkv", 45, options=KEYS, audio="aac")


@pytest.fixture
def vfi():
    return Interpolator(Blend())


def interrupted(clip, output, vfi, *, after, options=OPTIONS):
    """Runs until `after` frames are rendered, then is interrupted."""

    def stop(done, total):
        assert total == 90
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interpolate_video_resumable(clip, output, model=vfi, options=options, progress=stop)


def test_the_result_equals_that_of_one_run(tmp_path, clip, vfi):
    one, cut, seen = tmp_path / "one.mkv", tmp_path / "cut.mkv", []
    report = interpolate_video(clip, one, model=vfi, options=OPTIONS)
    resumable = interpolate_video_resumable(
        clip, cut, model=vfi, options=OPTIONS, progress=lambda *at: seen.append(at)
    )
    assert times_and_hashes(cut) == times_and_hashes(one)
    assert seen == [(done, 90) for done in range(1, 91)]
    assert not (tmp_path / "cut.mkv.segments").exists()
    assert 0 <= resumable.idle <= 1
    for name in ("seconds", "idle"):
        resumable = replace(resumable, **{name: getattr(report, name)})
    assert resumable == report


def test_a_run_continues_after_an_interruption(tmp_path, clip, vfi):
    one, cut = tmp_path / "one.mkv", tmp_path / "cut.mkv"
    interpolate_video(clip, one, model=vfi, options=OPTIONS)
    interrupted(clip, cut, vfi, after=50)
    assert not cut.exists()
    assert len(list((tmp_path / "cut.mkv.segments").glob("*.json"))) == 2
    again, seen = Blend(), []
    report = interpolate_video_resumable(
        clip,
        cut,
        model=Interpolator(again),
        options=OPTIONS,
        progress=lambda done, _: seen.append(done),
        on_note=seen.append,
    )
    note = "2 of 5 segments are of an earlier run"
    assert report.notes == [note]
    assert seen == [*range(41, 91), note]
    assert sum(again.calls) == 24
    assert (report.frames_in, report.frames_out, report.frames_new) == (45, 90, 44)
    assert times_and_hashes(cut) == times_and_hashes(one)


@pytest.mark.parametrize(
    "change",
    [
        {"options": replace(OPTIONS, codec="h264", lossless=True)},
        {"options": replace(OPTIONS, mask=MASK)},
        {"rate": 40},
        {"model": Interpolator(Blend(weights_sha256="1" * 64))},
        {},
    ],
    ids=["options", "mask", "rate", "model", "source"],
)
def test_segments_of_other_frames_are_not_used(tmp_path, clip, vfi, change):
    cut = tmp_path / "cut.mkv"
    interrupted(clip, cut, vfi, after=50)
    if not change:
        clip.touch()
    changed = {"model": vfi, "options": OPTIONS} | change
    report = interpolate_video_resumable(clip, cut, **changed)
    assert report.notes == []
    one = tmp_path / "one.mkv"
    interpolate_video(clip, one, **changed)
    assert times_and_hashes(cut) == times_and_hashes(one)


def gray_frame(luma):
    frame = av.VideoFrame(64, 48, "yuv420p")
    for plane, sample in zip(frame.planes, (luma, 128, 128), strict=True):
        plane.update(bytes([sample]) * plane.buffer_size)
    return frame


@pytest.mark.parametrize(
    ("write_source", "note"),
    [
        (lambda path: write_interlaced(path, 45, progressive=range(20, 45)),
         "20 of 45 frames are interlaced"),
        (lambda path: write_interlaced(path, 45, progressive=range(25)),
         "20 of 45 frames are interlaced"),
        (lambda path: write_changing_aspect(path, [Fraction(4, 3), 1, Fraction(4, 3)], 15),
         "the pixel aspect ratio changes at 0.600 s to 1, and 1 time after that"),
        (lambda path: alpha_clips.write(path, [gray_frame(250 - n % 3 * 25) for n in range(45)]),
         "15 of 45 frames have luma below black or above white"),
    ],
    ids=["interlaced at first", "interlaced later", "aspect", "luma"],
)  # fmt: skip
def test_notes_are_on_the_frames_of_all_segments(tmp_path, vfi, write_source, note):
    source = write_source(tmp_path / "in.mkv")
    one = interpolate_video(source, tmp_path / "one.mkv", model=vfi, options=OPTIONS)
    cut = interpolate_video_resumable(source, tmp_path / "cut.mkv", model=vfi, options=OPTIONS)
    assert cut.notes == one.notes
    assert cut.notes[0].startswith(note)


def test_a_folder_that_another_run_uses_is_refused_and_not_changed(tmp_path, clip, vfi):
    cut = tmp_path / "cut.mkv"
    interrupted(clip, cut, vfi, after=50)
    other = SegmentFolder(cut)
    other.claim(keep=True)
    before = {path.name: path.read_bytes() for path in other.path.iterdir()}
    assert len(before) >= 5
    message = r"^cut\.mkv\.segments is being written by another run: wait for it"
    with pytest.raises(VideoError, match=message):
        interpolate_video_resumable(clip, cut, model=vfi, options=OPTIONS)
    with pytest.raises(VideoError, match=message):
        SegmentFolder(cut).claim(keep=False)
    with pytest.raises(VideoError, match=message):
        SegmentFolder(cut).check_free()
    assert {path.name: path.read_bytes() for path in other.path.iterdir()} == before
    other.leave()
    report = interpolate_video_resumable(clip, cut, model=vfi, options=OPTIONS)
    assert report.notes == ["2 of 5 segments are of an earlier run"]


def test_a_note_that_several_segments_have_is_given_once(tmp_path, vfi):
    source = write(tmp_path / "in.mkv", 45, fmt="yuv420p10le", codec="ffv1", options={"g": "10"})
    told = []
    report = interpolate_video_resumable(
        source, tmp_path / "cut.mkv", model=vfi, options=OPTIONS, on_note=told.append
    )
    assert told == report.notes
    (note,) = report.notes
    assert note.startswith("the new frames have 8 of the 10 bits of the source")


def test_a_complete_output_is_kept(tmp_path, clip, vfi):
    cut = tmp_path / "cut.mkv"
    first = interpolate_video_resumable(clip, cut, model=vfi, options=OPTIONS)
    written = cut.stat()
    report = interpolate_video_resumable(clip, cut, model=vfi, options=OPTIONS)
    assert (report.frames_out, report.rate) == (0, first.rate)
    assert report.notes == ["the output was complete already"]
    assert (cut.stat().st_mtime_ns, cut.stat().st_ino) == (written.st_mtime_ns, written.st_ino)


def test_an_error_names_the_segments_that_are_kept(tmp_path, clip):
    backend, cut = Blend(), tmp_path / "cut.mkv"

    def fail(done, _):
        backend.broken = done > 40  # The first frame of the third segment is written.

    with pytest.raises(BackendError, match=r"are kept in cut\.mkv\.segments, and the same call"):
        interpolate_video_resumable(
            clip, cut, model=Interpolator(backend), options=OPTIONS, progress=fail
        )
    report = interpolate_video_resumable(clip, cut, model=Interpolator(Blend()), options=OPTIONS)
    assert report.notes == ["2 of 5 segments are of an earlier run"]


def test_a_video_that_cannot_be_divided_is_rendered_in_one_piece(tmp_path, vfi):
    source = write(tmp_path / "in.webm", 30, options={"g": "10", "auto-alt-ref": "0"})
    with av.open(str(source)) as made:
        packet = bytes([p for p in made.demux(video=0) if p.size][14])
    source.write_bytes(source.read_bytes().replace(packet, bytes(len(packet))))
    report = interpolate_video_resumable(source, tmp_path / "o.mkv", model=vfi, options=OPTIONS)
    assert report.notes[0] == "rendered in one piece, because it has damaged packets"
    one = interpolate_video(source, tmp_path / "one.mkv", model=vfi, options=OPTIONS)
    assert (report.damaged, report.frames_out) == (one.damaged, one.frames_out)
    assert times_and_hashes(tmp_path / "o.mkv") == times_and_hashes(tmp_path / "one.mkv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.webm", "o.mkv", "one.mkv"]


@pytest.mark.parametrize(
    ("source", "destination", "options", "message"),
    [
        ("in.mkv", "frames", {}, "frames is not a video file"),
        ("in.mkv", "-", {}, "- is not a video file"),
        ("in.mkv", "out.mkv", {"start": 1}, "leave start and end out"),
        ("in.mkv", "out.mkv", {"overwrite": True}, "or leave overwrite out"),
        (".", "out.mkv", {}, "is not a file, which a run with segments needs"),
        ("-", "out.mkv", {}, "is not a file, which a run with segments needs"),
    ],
)
def test_what_cannot_be_continued_is_refused(
    tmp_path, clip, vfi, monkeypatch, source, destination, options, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoError, match=message):
        interpolate_video_resumable(source, destination, model=vfi, options=VideoOptions(**options))
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_command_continues_after_a_kill(tmp_path, how):
    """Segments of the command last ten seconds."""
    write(tmp_path / "in.mkv", 80, rate=Fraction(2), options=KEYS)
    command = [
        "runtime", "in.mkv", "out.mkv", "--resume", "--json", "out.json", "--codec", "ffv1",
        "--cuts", "none",
    ]  # fmt: skip
    first = tmp_path / "out.mkv.segments" / "00000.json"
    run = signalled(how, *command, when=first.exists, cwd=tmp_path)
    assert run.returncode == (143 if how == signal.SIGTERM else -how)
    assert ("complete segments are kept" in run.stderr) == (how == signal.SIGTERM)
    assert not (tmp_path / "out.mkv").exists()
    done = run_module(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "out.mkv: 80 -> 160 frames" in done.stdout
    assert "of an earlier run" in done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["frames_out"] == 160
    again = run_module(*command, cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout.splitlines()[-1] == "note: the output was complete already"
