"""The checks of a run before Ray is started."""

import pytest

from runtime import VideoError, VideoOptions
from runtime.cluster.__main__ import main
from runtime.cluster.checks import check_run
from runtime.cluster.pool import TRIES, ClusterError, Pool
from video_clips import write


@pytest.fixture
def sources(tmp_path):
    """Three videos, of which two have an output already."""
    (tmp_path / "made").mkdir()
    pairs = [
        (write(tmp_path / f"{name}.mkv", 2), tmp_path / "made" / f"{name}.mkv") for name in "abc"
    ]
    for _, destination in pairs[1:]:
        destination.write_bytes(b"an older result")
    return pairs


def test_outputs_that_exist_are_kept_or_replaced_only_on_demand(sources):
    with pytest.raises(VideoError) as refused:
        check_run(sources, VideoOptions(), resume=False)
    assert str(refused.value) == (
        f"{sources[1][1]} exists already, as do 1 more: keep results with --resume, replace them "
        "with --overwrite, or write to another folder"
    )
    check_run(sources[:1], VideoOptions(), resume=False)
    check_run(sources, VideoOptions(overwrite=True), resume=False)
    check_run(sources, VideoOptions(), resume=True)


def test_animated_images_have_no_segments(sources):
    pair = sources[0][0], sources[0][1].with_suffix(".gif")
    with pytest.raises(VideoError, match=r"a\.gif is not a video file, which a run with segments"):
        check_run([pair], VideoOptions(), resume=False)


def test_the_command_refuses_before_it_starts_ray_or_writes(tmp_path, sources, monkeypatch, capsys):
    monkeypatch.setattr("runtime.cluster.pool.connected", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "deep").mkdir()
    write(tmp_path / "more" / "deep" / "d.mkv", 2)
    inputs = ["a.mkv", "b.mkv", "c.mkv", "more"]
    before = sorted(tmp_path.rglob("*"))
    for arguments, message in (
        ([], "b.mkv exists already, as do 1 more: keep results with --resume"),
        (["--onnx", "a.mkv"], "--onnx is for engines, but the model is "),
        (["--build-options=--portable"], "--build-options was given without --onnx: give"),
        (["--overwrite", "--factor", "2.5"], "factor is 2.5: give a whole number, 2 or more, or a"),
    ):
        with pytest.raises(SystemExit) as left:
            main([*inputs, "--output", "made", "--model", "demo", *arguments])
        assert left.value.code == 1
        assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_workers_that_die_at_their_start_end_the_run():
    pool = object.__new__(Pool)  # Its constructor requests workers of a cluster.
    pool.size, pool._lost_at_start = 2, 0
    lost = OSError("no memory\nmore lines")
    for _ in range(2 * TRIES - 1):
        assert pool._handle_death(None, lost) is None
    with pytest.raises(ClusterError) as error:
        pool._handle_death(None, lost)
    assert str(error.value) == (
        f"{2 * TRIES} workers died at their start (no memory): see Ray's logs"
    )
