"""Audio and subtitle tracks that are read by a source and written by a sink."""

import av
import pytest

from runtime import VideoError
from runtime.video.reading.info import DecodedFrame
from runtime.video.reading.source import open_source
from runtime.video.writing.sink import open_sink
from video_clips import RATE, copied, frames_of, noisy, samples_of, write


def converted(source, destination, *, early=False, **options):
    """Writes the sound as AAC; gives (origin, notes). `early`: everything is demuxed first."""
    with open_source(source) as opened:
        info = opened.info
        with open_sink(destination, like=info, rate=RATE, audio="aac", **options) as sink:
            for item in list(opened) if early else opened:
                if isinstance(item, DecodedFrame):
                    sink.write(item.frame, item.pts * item.time_base - info.origin)
                else:
                    sink.write_packet(item)
    return info.origin, sink.notes


CODECS = [
    ("aac", ".mkv"),
    ("aac", ".mp4"),
    ("aac", ".ts"),
    ("libmp3lame", ".mkv"),
    ("libmp3lame", ".mp4"),
    ("mp2", ".ts"),
    ("ac3", ".mkv"),
    ("flac", ".mkv"),
    ("alac", ".mov"),
    ("libopus", ".mkv"),
    ("libopus", ".webm"),
    ("libvorbis", ".mkv"),
    ("vorbis", ".mkv"),
    ("pcm_s16le", ".mkv"),
    ("pcm_s16le", ".avi"),
    ("adpcm_ms", ".avi"),
    ("wmav2", ".wmv"),
]


def clip(tmp_path, audio, suffix, count, **options):
    """Writes a clip with this audio codec; skips if FFmpeg has no encoder for it."""
    if audio not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {audio}")
    return write(
        tmp_path / f"in{suffix}",
        count,
        audio=audio,
        codec="mpeg4" if suffix in (".avi", ".wmv") else None,
        format="asf" if suffix == ".wmv" else None,
        **options,
    )


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("audio_first", [False, True])
@pytest.mark.parametrize(("audio", "suffix"), CODECS)
def test_no_sample_of_sound_and_no_frame_is_lost(tmp_path, audio, suffix, audio_first, early):
    source = clip(tmp_path, audio, suffix, 50, audio_first=audio_first)
    out = tmp_path / "out.mkv"
    origin, notes = converted(source, out, early=early)
    assert notes == []
    start, expected = samples_of(source)
    first, sound = samples_of(out)
    assert first == 0
    wanted = len(expected) + round((start - origin) * 48000)
    # The last frame of AAC is padded with silence. Timestamps of ASF are whole milliseconds, so
    # that aresample may add or remove up to one millisecond.
    slack = 48 if suffix == ".wmv" else 0
    assert wanted - slack <= len(sound) < wanted + 1024 + slack
    assert len(frames_of(out)) == len(frames_of(source)) == 50


@pytest.mark.parametrize(("audio", "suffix"), CODECS)
def test_the_last_b_frames_after_a_track_of_sound_are_decoded(tmp_path, audio, suffix):
    """If the wrong decoder is flushed, the frames that are delayed by B-frames are lost."""
    path = clip(tmp_path, audio, suffix, 25, audio_first=True, options={"bf": "2"})
    with open_source(path) as source:
        assert sum(isinstance(item, DecodedFrame) for item in source) == 25


def test_damaged_sound_is_counted_and_silent_and_refused_when_strict(tmp_path):
    whole = write(tmp_path / "whole.mkv", 50, audio="flac")
    source = copied(
        whole, tmp_path / "in.mkv", lambda n, p: noisy(p) if n in (5, 6) else p, kind="audio"
    )
    _, notes = converted(source, tmp_path / "out.mkv")
    assert notes == ["audio track 1 (flac): 2 damaged packets, replaced by silence"]
    _, expected = samples_of(whole)
    _, sound = samples_of(tmp_path / "out.mkv")
    assert len(expected) <= len(sound) < len(expected) + 1024
    with pytest.raises(VideoError, match=r"packet 5 of audio track 1 \(flac\) is damaged \(.*\)"):
        converted(source, tmp_path / "no.mkv", strict=True)
    assert not (tmp_path / "no.mkv").exists()
