"""Fixtures: a small data set, and the command `bench.parity`."""

from dataclasses import replace

import pytest

from bench import parity
from bench.data.protocols import PROTOCOLS
from bench.quality.record import read_lines
from parity_runs import SIZE, save_image, triplet


@pytest.fixture(autouse=True)
def small_frames(monkeypatch):
    """Gives UCF101 the frame size of the small data set `ucf101`, in this process."""
    monkeypatch.setitem(PROTOCOLS, "ucf101", replace(PROTOCOLS["ucf101"], frame_size=SIZE))


@pytest.fixture(scope="module")
def ucf101(tmp_path_factory):
    root = tmp_path_factory.mktemp("ucf101")
    for number, motion in enumerate((2, 4, 6), 1):
        names = ("frame_00.png", "frame_01_gt.png", "frame_02.png")
        for name, frame in zip(names, triplet(motion), strict=True):
            save_image(frame, root / "ucf101_interp_ours" / str(number) / name)
    return root


@pytest.fixture
def run(capsys, tmp_path):
    """Runs the command in this process; returns (lines of its file, printed text)."""

    def run(*arguments, code=0, output=None):
        output = output or tmp_path / "parity.jsonl"
        with pytest.raises(SystemExit) as left:
            parity.main([*map(str, arguments), "--output", str(output)])
        printed = capsys.readouterr()
        assert left.value.code == code, printed
        lines = read_lines(output) if output.is_file() else []
        return lines, printed.out + printed.err

    return run
