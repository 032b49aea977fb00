"""Calibration frames: their size, their places in a clip, and the number of decoded frames."""

import hashlib
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

import video_clips
from export.errors import ExportError
from export.gate.windows import DECODED_WHOLE, WINDOWS, cover
from export.int8.calibration import read_calibration_frames
from export.source import source_from_onnx
from image_folders import image_folder
from paths import WALK
from runtime.video.reading.decoder import Decoder
from runtime.video.reading.images import ImageReader

LENGTH = 3
"""Number of frames of a window, for a model with one time step per call."""
CODE_BITS = 12


@pytest.fixture(scope="module")
def info(models):
    """Metadata of a model of free size."""
    return source_from_onnx(models / "dynamic.onnx").info


@pytest.fixture(scope="module")
def fixed(info):
    """Metadata of a model of 50x70."""
    return replace(info, height=50, width=70)


def numbered(number):
    """A frame of 64x96 with its number encoded as a row of light and dark blocks."""
    frame = np.full((64, 96, 3), 130, np.uint8)
    for bit in range(CODE_BITS):
        frame[:8, 8 * bit : 8 * bit + 8] = 160 if number >> bit & 1 else 100
    return frame


def number_of(frame):
    blocks = frame[2:6].reshape(4, CODE_BITS, 8, 3).mean((0, 2, 3))
    return sum(int(block > 130) << bit for bit, block in enumerate(blocks))


def numbers_of(windows):
    return [[number_of(frame) for frame in window] for window in windows]


def numbered_video(path, count, key_frames):
    with av.open(str(path), "w") as out:
        options = {"g": str(key_frames), "sc_threshold": "0", "preset": "ultrafast", "crf": "10"}
        stream = out.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(number), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.fixture
def decoded(monkeypatch):
    """A list that grows by one with each decoded frame of a video."""
    counted = []
    honest = Decoder.decode

    def decode(self, packet):
        frames = honest(self, packet)
        counted.extend(frames)
        return frames

    monkeypatch.setattr(Decoder, "decode", decode)
    return counted


def check_spread(frames, count):
    """Checks windows of numbered frames: spread over a clip, consecutive, disjoint."""
    assert (len(frames.calibration), len(frames.held_out)) == (WINDOWS - 4, 4)
    windows = sorted(numbers_of([*frames.calibration, *frames.held_out]))
    held = numbers_of(frames.held_out)
    assert len({number for window in windows for number in window}) == LENGTH * WINDOWS
    assert all(window == list(range(window[0], window[0] + LENGTH)) for window in windows)
    spacing = count / WINDOWS
    places = [(number + 0.5) * spacing for number in range(WINDOWS)]
    np.testing.assert_allclose([window[0] for window in windows], places, atol=1.5)
    # The windows of the gate: one in each quarter of the clip.
    assert [int(4 * window[0] / count) for window in held] == [0, 1, 2, 3]


def test_a_long_video_is_decoded_only_near_the_windows(tmp_path, info, decoded):
    path = numbered_video(tmp_path / "long.mp4", 3000, 40)
    check_spread(read_calibration_frames(path, info), 3000)
    # From a key frame to the window, and the frames decoded when a file is opened.
    assert LENGTH * WINDOWS < len(decoded) <= WINDOWS * (40 + LENGTH + 2)


def test_a_long_video_with_one_key_frame_is_decoded_about_once(tmp_path, info, decoded):
    path = numbered_video(tmp_path / "long.mkv", 1000, 10_000)
    frames = read_calibration_frames(path, info)
    assert 1000 <= len(decoded) < 1200
    first = sorted(window[0] for window in numbers_of([*frames.calibration, *frames.held_out]))
    assert len(first) == WINDOWS
    assert first[0] == 0
    assert first[-1] >= 950
    gaps = np.diff(first)
    assert gaps.max() <= 2 * gaps.min()


def test_a_long_folder_is_read_only_near_the_windows(tmp_path, info, monkeypatch):
    read = []
    honest = ImageReader.decode
    monkeypatch.setattr(
        ImageReader, "decode", lambda self, packet: read.append(1) or honest(self, packet)
    )
    count = DECODED_WHOLE + 100
    path = image_folder(tmp_path / "long", map(numbered, range(count)))
    check_spread(read_calibration_frames(path, info), count)
    assert len(read) <= LENGTH * WINDOWS + 2


def test_windows_are_spread_over_the_frames_of_a_video_with_longer_sound(tmp_path, info):
    path = video_clips.write(tmp_path / "sound.mkv", 100, audio="aac", audio_seconds=60)
    frames = read_calibration_frames(path, info)
    assert len(frames.calibration) + len(frames.held_out) == WINDOWS


def test_windows_of_a_short_clip_are_repeatable_and_some_are_held_out(clip, info, walk):
    frames = read_calibration_frames(clip, info)
    assert len(frames.calibration) + len(frames.held_out) == 10 <= WINDOWS
    assert frames.count == 14
    held = {window[1].tobytes() for window in frames.held_out}
    assert held == {walk[n].tobytes() for n in (4, 16, 28)}
    assert not held & {frame.tobytes() for window in frames.calibration for frame in window}
    assert read_calibration_frames(clip, info).sha256 == frames.sha256
    ends = b"".join(window[n].tobytes() for window in frames.calibration for n in (0, 2))
    assert frames.sha256 == hashlib.sha256(ends).hexdigest()
    two = read_calibration_frames(clip, replace(info, steps_per_call=3))
    assert {len(window) for window in two.calibration} == {5}


def test_windows_of_a_fully_decoded_clip_reach_its_end(tmp_path, info):
    frames = [np.full((16, 16, 3), n, np.uint8) for n in range(200)]
    found = read_calibration_frames(image_folder(tmp_path / "long", frames), info)
    windows = [*found.calibration, *found.held_out]
    assert len(windows) == WINDOWS
    first = sorted(int(window[0][0, 0, 0]) for window in windows)
    assert first[0] == 0
    assert first[-1] > 180
    gaps = np.diff(first)
    assert gaps.max() <= 2 * gaps.min()


def test_no_window_has_a_scene_cut(tmp_path, info):
    frames = [numbered(n) // (1 if n < 4 else 4) for n in range(11)]
    frames = read_calibration_frames(image_folder(tmp_path / "cut", frames), info)
    starts = [frame[20, 0, 0] for window in frames.calibration for frame in window]
    assert starts == [130] * 3 + [32] * 3
    assert [frame[20, 0, 0] for window in frames.held_out for frame in window] == [32] * 3


def test_no_window_has_a_damaged_frame(tmp_path, info):
    path = image_folder(tmp_path / "gap", map(numbered, range(12)))
    (path / "4.png").write_bytes(b"no image")
    frames = read_calibration_frames(path, info)
    windows = sorted(numbers_of([*frames.calibration, *frames.held_out]))
    assert windows == [[0, 1, 2], [5, 6, 7], [8, 9, 10]]


@pytest.mark.parametrize("kind", ["video", "folder"])
def test_frames_of_another_size_are_scaled_and_cropped(kind, clip, fixed, walk):
    frames = read_calibration_frames(WALK if kind == "video" else clip, fixed)
    first = frames.calibration[0][0]
    assert {frame.shape for window in frames.calibration for frame in window} == {(50, 70, 3)}
    assert {frame.shape for window in frames.held_out for frame in window} == {(50, 70, 3)}
    if kind == "video":
        with av.open(str(WALK)) as container:
            original = next(container.decode(video=0)).to_image()
        size, left, top = (70, 52), 0, 1  # From 480x640: the width fits, two rows are cropped.
    else:
        original = Image.fromarray(walk[0])
        size, left, top = (75, 50), 2, 0  # From 64x96: five columns are cropped.
    expected = np.asarray(original.resize(size, Image.Resampling.BICUBIC))
    expected = expected[top : top + 50, left : left + 70].astype(int)
    nearest = np.asarray(original.resize(size, Image.Resampling.NEAREST))
    nearest = nearest[top : top + 50, left : left + 70].astype(int)
    assert np.abs(first - expected).mean() < np.abs(nearest - expected).mean() / 3


def test_frames_keep_their_size_if_the_models_size_is_free_or_the_padded_one(clip, info):
    padded = replace(info, io="float", height=64, width=96)
    assert read_calibration_frames(clip, info).size == (64, 96)
    assert read_calibration_frames(clip, padded).size == (64, 96)


def test_fine_patterns_do_not_alias_when_an_image_shrinks():
    stripes = np.zeros((90, 240, 3), np.uint8)
    stripes[:, ::2] = 200
    small = cover(stripes, (40, 70))
    assert small.shape == (40, 70, 3)
    assert small.dtype == np.uint8
    assert abs(small.mean() - 100) < 1
    assert small[:, 2:-2].std() < 5


def test_an_image_keeps_its_aspect_ratio_colours_and_centre():
    image = np.zeros((100, 300, 3), np.uint8)
    image[40:60, 140:160] = 250, 20, 90
    for size in ((50, 60), (50, 150), (300, 70)):
        made = cover(image, size)
        assert made.shape == (*size, 3)
        rows, columns = np.nonzero(made[..., 0] > 125)
        assert abs((rows.min() + rows.max() + 1) / 2 - size[0] / 2) <= 0.5
        assert abs((columns.min() + columns.max() + 1) / 2 - size[1] / 2) <= 0.5
        side = 20 * size[0] / 100
        assert abs(rows.max() - rows.min() + 1 - side) <= 1
        assert abs(columns.max() - columns.min() + 1 - side) <= 1
        assert made[size[0] // 2, size[1] // 2].tolist() == pytest.approx([250, 20, 90], abs=2)


@pytest.mark.parametrize(
    ("shades", "runs"), [([0, 2, 4, 6], 1), ([0, 0, 90, 90, 250, 250, 30, 30, 180, 180], 0)]
)
def test_the_error_for_a_short_clip_has_found_and_needed_windows(tmp_path, info, shades, runs):
    frames = [np.full((64, 96, 3), shade, np.uint8) for shade in shades]
    path = image_folder(tmp_path / "short", frames)
    with pytest.raises(ExportError) as error:
        read_calibration_frames(path, info)
    assert str(error.value) == (
        f"{path} has {len(shades)} frames and only {runs} of the 2 runs of 3 frames without a "
        "scene cut that are needed: give a longer clip"
    )
