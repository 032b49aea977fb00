"""Tags in other encodings than UTF-8, as in many old files."""

from fractions import Fraction

import av
import pytest

from bench.data.protocols import Protocol
from bench.data.samples import samples_of_video, video_windows
from blend import Blend
from runtime import Interpolator, interpolate_video
from runtime.video.options import VideoOptions
from runtime.video.segments.plan import scan
from video_clips import write

BAD = "Caf\ufffd"
"""The text that is read from "Café" in Latin-1."""


@pytest.fixture
def vfi():
    return Interpolator(Blend())


def latin_1(path):
    """Writes Latin-1 into the tags: "Cafe" becomes "Café", with the same number of bytes."""
    content = path.read_bytes()
    assert b"Cafe" in content
    path.write_bytes(content.replace(b"Cafe", "Café".encode("latin-1")))
    return path


def clip(folder, suffix):
    return latin_1(
        write(
            folder / f"in{suffix}",
            6,
            codec="mpeg4" if suffix == ".avi" else None,
            audio="libmp3lame",
            metadata={"title": "Cafe", "artist": "Cafe 2"},
            chapters=() if suffix == ".avi" else ((0, 100, "Cafe"), (100, 240, "b")),
            languages=("deu",),
            titles=("Cafe of pictures", "Cafe of sound"),
        )
    )


def assert_tags(path, *, chapters, titles):
    with av.open(str(path)) as made:  # raises unless tags are UTF-8
        tags = {name.lower(): value for name, value in made.metadata.items()}
        assert (tags["title"], tags["artist"]) == (BAD, f"{BAD} 2")
        found = [chapter["metadata"]["title"] for chapter in made.chapters()]
        assert found == ([BAD, "b"] if chapters else [])
        if titles:
            assert made.streams.video[0].metadata["title"] == f"{BAD} of pictures"
            assert made.streams.audio[0].metadata["title"] == f"{BAD} of sound"


@pytest.mark.parametrize("out", [".mkv", ".mp4", ".mov"])
@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4"])
def test_tags_in_latin_1_are_copied(tmp_path, vfi, suffix, out):
    source = clip(tmp_path, suffix)
    made = tmp_path / f"out{out}"
    report = interpolate_video(source, made, model=vfi)
    assert report.frames_in == 6
    matroska = suffix == out == ".mkv"
    assert_tags(made, chapters=suffix != ".avi", titles=matroska)


def test_a_partial_result_with_such_tags_is_kept(tmp_path, vfi):
    source = clip(tmp_path, ".mkv")

    def stop(done, total):
        if done == 8:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interpolate_video(source, tmp_path / "out.mkv", model=vfi, progress=stop)
    assert_tags(tmp_path / "out.partial.mkv", chapters=True, titles=True)


def test_the_scan_of_a_cluster_and_the_benchmark_read_such_tags(tmp_path):
    source = clip(tmp_path, ".mkv")
    assert scan(source, VideoOptions(), Fraction(1)).info.metadata["title"] == BAD
    protocol = Protocol("any", "any", None, 2, None, "", "", "")
    assert video_windows(source, 2) is None
    assert len(list(samples_of_video(source, protocol))) == 2
