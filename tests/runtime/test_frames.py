import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import FrameError
from runtime.frames import check_frame, check_pair, from_planes, padding, to_planes


@given(st.integers(1, 5000), st.sampled_from([8, 16, 20, 32, 64]))
def test_padding_is_centred_and_minimal(size, divisor):
    before, after = padding(size, divisor)
    assert (size + before + after) % divisor == 0
    assert 0 <= after - before <= 1
    assert before + after < divisor


@given(
    st.integers(16, 40), st.integers(16, 40), st.sampled_from([16, 20]),
    st.sampled_from(["u1", "<u2", ">u2", "<f4", ">f4"]).map(np.dtype),
)  # fmt: skip
def test_planes_and_back_is_exact(height, width, divisor, dtype):
    rng = np.random.default_rng(height * width)
    peak = 1 if dtype.kind == "f" else np.iinfo(dtype).max
    frame = (rng.random((height, width, 3)) * peak).astype(dtype)
    planes = to_planes(frame, divisor)
    assert planes.dtype == np.float32
    assert planes.shape[2] % divisor == 0
    assert planes.shape[3] % divisor == 0
    assert planes.max() <= 1
    np.testing.assert_array_equal(planes, to_planes(frame.astype(dtype.newbyteorder("=")), divisor))
    made = from_planes(planes[0], frame, divisor)
    assert made.dtype == dtype
    np.testing.assert_array_equal(made, frame)


def test_padding_repeats_the_border():
    frame = np.arange(17 * 18 * 3, dtype=np.uint16).reshape(17, 18, 3)
    planes = to_planes(frame, 16)[0] * 65535
    top, left = padding(17, 16)[0], padding(18, 16)[0]
    assert planes[0, 0, 0] == pytest.approx(frame[0, 0, 0], abs=0.01)
    assert planes[1, -1, left + 4] == pytest.approx(frame[-1, 4, 1], abs=0.01)
    assert planes[2, top + 3, -1] == pytest.approx(frame[3, -1, 2], abs=0.01)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ([[0]], "frame0 is a list: give a NumPy array"),
        (np.zeros((20, 20), np.uint8), r"shape \(20, 20\)"),
        (np.zeros((20, 20, 4), np.uint8), r"shape \(20, 20, 4\)"),
        (np.zeros((3, 20, 20), np.uint8), r"shape \(3, 20, 20\)"),
        (np.zeros((1, 20, 20, 3), np.uint8), "shape"),
        (np.zeros((0, 20, 3), np.uint8), "0x20"),
        (np.zeros((15, 20, 3), np.uint8), "15x20: frames are at least 16x16"),
        (np.zeros((20, 20, 3), np.float64), "float64: frames are uint8, uint16, float32"),
        (np.zeros((20, 20, 3), np.int16), "int16"),
        (np.zeros((20, 20, 3), bool), "bool"),
        (np.full((20, 20, 3), 1.5, np.float32), r"outside \[0, 1\]"),
        (np.full((20, 20, 3), -0.1, np.float32), r"outside \[0, 1\]"),
        (np.full((20, 20, 3), np.nan, np.float32), "or NaN"),
        (np.full((20, 20, 3), np.nan, ">f4"), "or NaN"),
        (np.full((20, 20, 3), 2, ">f4"), r"outside \[0, 1\]"),
    ],
)
def test_invalid_frames_are_refused_and_named(frame, message):
    with pytest.raises(FrameError, match=message):
        check_frame(frame, "frame0")


@pytest.mark.parametrize(
    "other", [np.zeros((20, 21, 3), np.uint8), np.zeros((20, 20, 3), np.uint16)]
)
def test_frames_that_do_not_match_are_refused(other):
    with pytest.raises(FrameError, match="both frames of a pair have one size and one type"):
        check_pair(np.zeros((20, 20, 3), np.uint8), other)


@pytest.mark.parametrize("value", [1.5, -0.1, np.nan])
@pytest.mark.parametrize("bad", [0, 1])
def test_each_frame_of_a_pair_is_checked_and_named(value, bad):
    frames = [np.full((20, 20, 3), 0.5, np.float32) for _ in range(2)]
    check_pair(*frames)
    frames[bad][7, 3, 1] = value
    with pytest.raises(FrameError, match=rf"^frame{bad} holds float32 values outside \[0, 1\]"):
        check_pair(*frames)


def test_the_frames_of_a_pair_may_have_different_byte_orders():
    check_pair(np.zeros((20, 20, 3), "<u2"), np.zeros((20, 20, 3), ">u2"))
