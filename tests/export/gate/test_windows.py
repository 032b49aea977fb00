"""Which of the ways to read a clip `export.gate.windows` takes."""

import pytest

from export.gate import windows
from export.gate.windows import DECODED_WHOLE, WINDOWS, spread_windows
from video_clips import write


@pytest.mark.parametrize(
    ("count", "found", "whole"),
    [
        (DECODED_WHOLE + 1, WINDOWS // 2, False),
        (DECODED_WHOLE + 1, WINDOWS // 2 - 1, True),
        (DECODED_WHOLE, WINDOWS, True),
    ],
)
def test_a_long_clip_is_decoded_whole_if_seeking_finds_too_few_windows(
    tmp_path, monkeypatch, count, found, whole
):
    clip = write(tmp_path / "in.mkv", count, size=(16, 16))
    monkeypatch.setattr(windows, "_in_video", lambda *_: ["near a position"] * found)
    monkeypatch.setattr(windows, "_in_all_frames", lambda *_: ["of all frames"])
    expected = ["of all frames"] if whole else ["near a position"] * found
    assert spread_windows(clip, 3, lambda frame: frame) == expected
