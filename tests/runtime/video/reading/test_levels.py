"""Levels of luma beyond black and white."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from runtime.video.reading.levels import is_beyond_limits
from runtime.video.reading.source import open_source

FULL = 2


def flat(fmt, level, *, share=0.0, other=0, size=(64, 96), color_range=1):
    """A frame of one luma level, with another level in a share of its columns, both of 255."""
    frame = VideoFrame(size[1], size[0], fmt)
    frame.color_range = color_range
    wide = 2 if frame.format.components[0].bits > 8 else 1
    unit = 1 << (frame.format.components[0].bits - 8)
    for number, plane in enumerate(frame.planes):
        dtype = np.uint16 if wide == 2 else np.uint8
        view = np.frombuffer(plane, dtype).reshape(plane.height, plane.line_size // wide)
        view[:] = (128 if number else level) * unit
        if number == 0:
            view[:, : round(share * size[1])] = other * unit
    return frame


@pytest.mark.parametrize("fmt", ["yuv420p", "yuv422p10le", "yuv444p12le", "gray", "nv12"])
@pytest.mark.parametrize(
    ("level", "share", "other", "beyond"),
    [
        (16, 0.5, 235, False),
        (14, 0.5, 237, False),
        (120, 0.05, 250, True),
        (120, 0.05, 5, True),
        (120, 0.005, 255, False),
        (245, 0, 0, True),
    ],
)
def test_luma_below_black_and_above_white_is_found(fmt, level, share, other, beyond):
    assert is_beyond_limits(flat(fmt, level, share=share, other=other)) == beyond
    assert not is_beyond_limits(flat(fmt, level, share=share, other=other, color_range=FULL))


def test_other_formats_and_small_frames():
    assert not is_beyond_limits(flat("yuvj420p", 250))
    assert is_beyond_limits(flat("yuv420p", 250, size=(2, 2)))
    rgb = VideoFrame.from_ndarray(np.full((16, 16, 3), 255, np.uint8), format="rgb24")
    assert not is_beyond_limits(rgb)


def test_the_note_gives_the_number_of_frames(tmp_path):
    with av.open(str(tmp_path / "in.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for k in range(70):
            frame = flat("yuv420p", 120, share=0.2, other=250 if k in (3, 4, 8) else 230)
            frame.pts, frame.time_base = k, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))

    def notes(**part):
        with open_source(tmp_path / "in.mkv", **part) as source:
            assert source.notes == []
            list(source)
            return source.notes

    (note,) = notes(end=Fraction(9, 25))
    assert note.startswith("3 of 10 frames have luma below black or above white, which new frames")
    (note,) = notes(start=Fraction(5, 25), end=Fraction(9, 25))
    assert note.startswith("2 of 6 frames")  # With frame 4, the one before the start.
    assert notes(end=Fraction(2, 25)) == []
    (note,) = notes(end=Fraction(29, 25))
    assert note.startswith("3 of 30 frames")
    assert notes(end=Fraction(30, 25)) == []
    assert notes() == []  # Three frames of 70 are few.
