"""Audio and subtitle tracks that are read by a source and written by a sink."""

import itertools
from fractions import Fraction

import av
import pytest

from runtime import VideoError
from runtime.video.reading.info import DecodedFrame
from runtime.video.reading.source import open_source
from runtime.video.writing.sink import open_sink
from runtime.video.writing.tracks import _AAC_RATES
from video_clips import RATE, copied, frames_of, noisy, packets_of, samples_of, write


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


def carried(source, destination, change=lambda packet: packet, **part):
    """Copies frames and tracks, whose packets `change` may change; returns the notes."""
    with open_source(source, **part) as opened:
        info = opened.info
        with open_sink(destination, like=info, rate=info.rate) as sink:
            for item in opened:
                if isinstance(item, DecodedFrame):
                    sink.write(item.frame, item.pts * item.time_base - info.origin)
                else:
                    sink.write_packet(change(item))
    return sink.notes


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


def test_sound_keeps_every_rate_that_the_encoder_has():
    rates = set(av.Codec("aac", "w").audio_rates)
    assert set(_AAC_RATES) == rates - {7350}  # The lowest of MPEG-4, which few players know.


def test_cues_with_one_start_are_all_copied(tmp_path):
    cues = ((0, 400, "one"), (0, 200, "two"), (300, 400, "three"))
    source = write(tmp_path / "in.mkv", 25, subtitles="subrip", cues=cues)
    assert carried(source, tmp_path / "out.mkv") == []
    assert packets_of(tmp_path / "out.mkv", 1) == [
        (0, b"one"), (0, b"two"), (Fraction(3, 10), b"three")
    ]  # fmt: skip


def test_packets_without_a_decoding_stamp_are_copied(tmp_path):
    def without(packet):
        packet.dts = None
        return packet

    source = write(tmp_path / "in.mkv", 25, audio="flac")
    assert carried(source, tmp_path / "out.mkv", without) == []
    assert packets_of(tmp_path / "out.mkv", 1) == packets_of(source, 1)


def test_packets_without_any_stamp_or_out_of_order_are_counted(tmp_path):
    numbers = itertools.count()

    def changed(packet):
        number = next(numbers)
        if number == 3:
            packet.pts = packet.dts = None
        if number == 5:
            packet.pts = packet.dts = 0
        return packet

    source = write(tmp_path / "in.mkv", 25, audio="flac")
    notes = carried(source, tmp_path / "out.mkv", changed)
    assert notes == ["audio track 1 (flac): 2 packets out of order, dropped"]
    before = packets_of(source, 1)
    kept = [packet for number, packet in enumerate(before) if number not in (3, 5)]
    assert len(before) == 11
    assert packets_of(tmp_path / "out.mkv", 1) == kept


def test_sound_that_comes_seconds_after_the_video_is_in_the_part(tmp_path):
    """The file has 4 s of video before the first packet of sound."""
    source = write(
        tmp_path / "in.mkv", 25, rate=Fraction(5), codec="mpeg4", audio="flac",
        container_options={"max_interleave_delta": "1"},
    )  # fmt: skip
    with open_source(source) as opened:
        kinds = [isinstance(item, DecodedFrame) for item in opened]
    assert kinds[:21] == [True] * 21
    assert carried(source, tmp_path / "out.mkv", end=Fraction(1)) == []
    # Of 4608 samples each; packet 10 begins at 0.96 s.
    assert packets_of(tmp_path / "out.mkv", 1) == packets_of(source, 1)[:11]
