"""VP8 and VP9 with alpha: decoded completely, in parts, with damage, and without libvpx."""

from fractions import Fraction

import av
import numpy as np
import pytest

import alpha_clips
from alpha_clips import VP9, samples, write_noise, write_vp9
from runtime import VideoError
from runtime.video.reading import decoder
from runtime.video.reading.info import DecodedFrame
from runtime.video.reading.source import open_source

HIDDEN = {"auto-alt-ref": "0", "lag-in-frames": "12", "g": "10", "cpu-used": "8"}


def read(path, **options):
    """Reads a video; returns its properties, frames as (time, samples), and notes."""
    with open_source(path, **options) as source:
        frames = [
            (item.pts * item.time_base, samples(item.frame))
            for item in source
            if isinstance(item, DecodedFrame)
        ]
    return source.info, frames, source.notes


def same(one, two):
    return one[0] == two[0] and all(map(np.array_equal, one[1], two[1]))


@pytest.mark.parametrize(
    ("codec", "options"),
    [("libvpx-vp9", VP9), ("libvpx-vp9", HIDDEN), ("libvpx", {"auto-alt-ref": "0", "g": "10"})],
)
@pytest.mark.parametrize("suffix", [".webm", ".mkv"])
@pytest.mark.parametrize("size", [(48, 64), (35, 51)])
def test_alpha_is_decoded(tmp_path, codec, options, suffix, size):
    path = write_vp9(tmp_path / f"in{suffix}", 12, codec=codec, options=options, size=size)
    info, frames, notes = read(path)
    assert (info.pixel_format, info.height, info.width) == ("yuva420p", *size)
    assert notes == []
    expected = alpha_clips.frames_of(path)
    assert len(frames) == len(expected) == 12
    for number, (frame, other) in enumerate(zip(frames, expected, strict=True)):
        assert abs(frame[0] - Fraction(number, 25)) < Fraction(1, 1000)
        assert all(map(np.array_equal, frame[1], samples(other)))
    assert all(frame[1][3].std() > 10 for frame in frames)


@pytest.mark.parametrize("start", [Fraction(k, 100) for k in (1, 4, 30, 39, 40, 41, 90, 100)])
def test_a_part_has_the_frames_of_the_whole(tmp_path, start):
    path = write_vp9(tmp_path / "in.webm", 30)
    whole = read(path)[1]
    part = read(path, start=start)[1]
    # The last frame before the start is read too, unless a key frame is at the start.
    assert part[0][0] <= start <= part[1][0]
    assert all(map(same, whole[-len(part) :], part))


def spoil(path, number):
    """Overwrites one packet of a file with zeros."""
    with av.open(str(path)) as clip:
        packet = bytes([p for p in clip.demux(video=0) if p.size][number])
    path.write_bytes(path.read_bytes().replace(packet, bytes(len(packet))))


def test_damage_is_counted_and_the_other_frames_have_alpha(tmp_path):
    path = write_vp9(tmp_path / "in.webm", 30)
    whole = read(path)[1]
    spoil(path, 15)
    _, frames, notes = read(path)
    # libvpx decodes nothing between a damaged packet and the next key frame.
    assert notes == ["damaged packets skipped: 5"]
    assert len(frames) == 25
    assert all(map(same, [*whole[:15], *whole[20:]], frames))
    with pytest.raises(VideoError, match=r"packet 15 of the video in .*is damaged"):
        read(path, strict=True)


def test_without_libvpx_a_note_says_that_alpha_is_lost(tmp_path, monkeypatch):
    monkeypatch.setitem(decoder._WITH_ALPHA, "vp9", "libvpx-of-the-future")
    info, frames, notes = read(write_vp9(tmp_path / "in.webm"))
    assert info.pixel_format == "yuv420p"
    assert len(frames) == 4
    assert notes == [
        "the alpha channel is not carried over: this FFmpeg has no libvpx-of-the-future to decode "
        "it"
    ]


def test_what_the_container_declares_is_read(tmp_path):
    colours = {"color_primaries": 9, "color_trc": 16, "colorspace": 9}
    path = write_vp9(tmp_path / "in.mkv", rotation=90, **colours)
    with open_source(path) as source:
        info = source.info
        frame = next(item.frame for item in source if isinstance(item, DecodedFrame))
    assert (info.color_primaries, info.color_trc, info.colorspace) == (9, 16, 9)
    assert info.rotation == 90
    assert info.display_matrix is not None
    assert (frame.color_primaries, frame.color_trc, frame.colorspace) == (9, 16, 9)


def test_other_codecs_are_decoded_by_ffmpeg(tmp_path):
    path = write_noise(tmp_path / "in.mkv", "yuva420p", tags={"alpha_mode": "1"})
    info, frames, notes = read(path)
    assert info.pixel_format == "yuva420p"
    assert len(frames) == 4
    assert notes == []
