import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.filter import Graph
from av.video.frame import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from alpha_clips import layered
from paths import DATA, ROOT, WALK
from runtime import VideoError
from runtime.video.scenes import CUT_THRESHOLD, SceneDetector

CLIPS = ROOT.parent / "shared" / "data" / "clips"
FORMATS = ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "nv12", "p010le"]
FORMATS += ["gray", "gray10le", "gray16le", "rgb24", "bgra", "gbrp", "rgb48le", "yuv420p16le"]


def scene(seed, size=(96, 160)):
    """Patches of random level and tint, with a margin to move in; RGB float 0..255."""
    side = max(4, max(size) // 20)
    rng = np.random.default_rng(seed)
    rows, columns = ((length + 64) // side + 1 for length in size)
    patches = rng.uniform(0, 235, (rows, columns, 1)) + rng.uniform(0, 20, (rows, columns, 3))
    return np.kron(patches, np.ones((side, side, 1)))


def view(ground, offset=0, size=(96, 160)):
    return ground[: size[0], offset : offset + size[1]]


def frame(picture, pixel_format="yuv420p"):
    array = np.ascontiguousarray(np.rint(picture).clip(0, 255).astype(np.uint8))
    return VideoFrame.from_ndarray(array, format="rgb24").reformat(format=pixel_format)


def judged(frames, **options):
    detector = SceneDetector(**options)
    return [detector.flags(f) for f in frames]


def cuts(frames, **options):
    return [k for k, flags in enumerate(judged(frames, **options)) if flags.cut]


def repeats(frames):
    return [k for k, flags in enumerate(judged(frames, dedupe=True)) if flags.repeat]


def panned(seed, count, speed=2, **kwargs):
    ground = scene(seed, **kwargs)
    return [view(ground, speed * k, **kwargs) for k in range(count)]


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("size", [(96, 160), (91, 61)])
def test_cuts_are_found_exactly_in_every_format(pixel_format, size):
    if size[0] % 2 and pixel_format in ("nv12", "p010le"):
        pytest.skip("swscale makes no odd pictures of interleaved chroma")
    pictures = [*panned(1, 5, size=size), *panned(2, 5, size=size), *panned(3, 2, size=size)]
    found = judged([frame(p, pixel_format) for p in pictures])
    assert [k for k, flags in enumerate(found) if flags.cut] == [5, 10]
    assert all((flags.score >= CUT_THRESHOLD) == flags.cut for flags in found)
    assert not any(flags.repeat for flags in found)


@pytest.mark.parametrize("size", [(16, 16), (720, 16), (17, 1000), (1080, 1920), (400, 320)])
def test_frames_of_any_size_are_judged(size):
    grounds = [scene(seed, size) for seed in (1, 2)]
    frames = [frame(view(grounds[k // 3], 2 * k, size)) for k in range(6)]
    assert cuts(frames) == [3]


def test_a_cut_right_after_the_first_frame_is_found():
    assert cuts([frame(p) for p in [*panned(1, 1), *panned(2, 4)]]) == [1]


def test_the_first_frame_is_neither_cut_nor_repeat():
    assert judged([frame(scene(1))], dedupe=True) == [(False, False, 0.0)]


@pytest.mark.parametrize("level", [0, 255])
def test_a_flash_is_two_cuts(level):
    pictures = panned(1, 9)
    pictures[4] = np.full_like(pictures[4], level)
    assert cuts([frame(p) for p in pictures]) == [4, 5]


@pytest.mark.parametrize("count", [10, 24, 60])
@pytest.mark.parametrize("to", ["black", "white", "another"])
def test_a_fade_is_not_a_cut(count, to):
    end = {"black": 0.0, "white": 255.0, "another": view(scene(2))}[to]
    start = view(scene(1))
    ramp = np.clip(np.arange(-3, count + 3) / count, 0, 1)
    assert cuts([frame(start * (1 - a) + end * a) for a in ramp]) == []


def test_a_pan_that_starts_and_stops_suddenly_is_not_a_cut():
    ground = scene(1)
    offsets = [0, 0, 0, 12, 24, 36, 48, 60, 60, 60]
    frames = [frame(view(ground, k)) for k in offsets]
    assert cuts(frames) == []
    # The difference of the frames alone would be that of a cut.
    luma = [f.reformat(format="gray").to_ndarray().astype(float) for f in frames]
    assert np.abs(luma[3] - luma[2]).mean() * 100 / 256 > 1.3 * CUT_THRESHOLD


def test_a_pan_by_an_eighth_of_the_long_side_a_frame_is_not_a_cut():
    ground = scene(1)
    assert cuts([frame(view(ground, k)) for k in (0, 0, 0, 20, 40, 60, 60)]) == []
    assert cuts([frame(view(ground, k)) for k in (0, 0, 0, 32, 64, 64)]) != []


def test_continuous_noise_gives_cuts_only_where_it_starts():
    rng = np.random.default_rng(0)
    frames = [frame(view(scene(1)))] * 3
    frames += [
        frame(np.kron(rng.uniform(0, 255, (24, 40, 3)), np.ones((4, 4, 1)))) for _ in range(9)
    ]
    found = cuts(frames)
    assert found[0] == 3
    assert max(found) <= 4


@pytest.mark.parametrize("dedupe", [False, True])
def test_a_change_of_size_or_format_is_a_cut(dedupe):
    picture = view(scene(1))
    frames = [frame(picture)] * 2 + [frame(picture, "yuv420p10le")] * 2
    frames += [frame(picture[:48], "yuv420p10le")] * 2
    found = judged(frames, dedupe=dedupe)
    assert [flags.cut for flags in found] == [False, False, True, False, True, False]
    assert [flags.repeat for flags in found] == [dedupe and k % 2 == 1 for k in range(6)]


def test_a_change_of_format_is_a_cut_at_the_highest_threshold():
    picture = view(scene(1))
    found = judged([frame(picture), frame(picture, "yuv444p")], threshold=100)
    assert found == [(False, False, 0.0), (True, False, 100.0)]


def test_without_a_threshold_there_are_no_cuts():
    frames = [frame(p) for p in [*panned(1, 2), *panned(2, 1)]]
    assert judged(frames, threshold=None) == [(False, False, 0.0)] * 3


def test_a_higher_threshold_finds_fewer_cuts():
    frames = [frame(p) for p in [*panned(1, 5), *panned(2, 5)]]
    assert cuts(frames, threshold=100) == []
    assert len(cuts(frames, threshold=0.1)) > 1


@pytest.mark.parametrize("threshold", [0, -1, 100.5, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(VideoError, match="above 0 and up to 100"):
        SceneDetector(threshold=threshold)


@pytest.fixture(scope="module")
def shots():
    return [[frame(p) for p in panned(10 + k, 5)] for k in range(5)]


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(2, 5), min_size=1, max_size=5))
def test_exactly_the_cuts_are_found(shots, lengths):
    frames = [f for shot, length in zip(shots, lengths, strict=False) for f in shot[:length]]
    assert cuts(frames) == list(itertools.accumulate(lengths))[:-1]


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("size", [(96, 160), (91, 61)])
def test_repeats_are_found_through_noise_in_every_format(pixel_format, size):
    if size[0] % 2 and pixel_format in ("nv12", "p010le"):
        pytest.skip("swscale makes no odd pictures of interleaved chroma")
    rng = np.random.default_rng(0)
    pictures = [p for p in panned(1, 3, size=size) for _ in range(3)]
    noisy = [p * 0.9 + 12 + rng.normal(0, 0.5, p.shape) for p in pictures]
    assert repeats([frame(p, pixel_format) for p in noisy]) == [1, 2, 4, 5, 7, 8]


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le", "rgb24"])
@pytest.mark.parametrize("where", [(0, 0), (37, 75), (37, 76), (40, 80), (90, 144)])
def test_a_frame_with_a_small_moving_ball_is_not_a_repeat(pixel_format, where):
    frames = []
    for k in range(6):
        picture = np.full((96, 160, 3), 100.0)
        picture[where[0] : where[0] + 6, where[1] + 2 * k : where[1] + 2 * k + 6] = 200
        frames.append(frame(picture, pixel_format))
    assert repeats(frames) == []


@pytest.mark.parametrize(("change", "found"), [(8, [1]), (9, [])])
def test_a_block_may_change_by_eight_levels_in_a_repeat(change, found):
    luma = np.full((2, 96, 160), 100, np.uint8)
    luma[1, 40:48, 80:88] += change
    assert repeats([VideoFrame.from_ndarray(one, "gray") for one in luma]) == found


def test_a_change_of_colour_is_not_a_repeat():
    frames = [VideoFrame.from_ndarray(np.full((96, 64), 128, np.uint8), "yuv420p")]
    planes = np.full((96, 64), 128, np.uint8)
    planes[80:] = 140
    frames.append(VideoFrame.from_ndarray(planes, "yuv420p"))
    assert repeats(frames) == []


def test_slow_motion_is_not_one_long_repeat():
    ground = scene(1)
    frames = []
    for k in range(24):
        at = 0.05 * k
        low = int(at)
        picture = view(ground, low) * (1 - at + low) + view(ground, low + 1) * (at - low)
        frames.append(frame(picture))
    assert len(frames) - len(repeats(frames)) >= 4


def test_repeats_can_be_found_without_cuts():
    pictures = [view(scene(1))] * 2 + [view(scene(2))] * 2
    found = judged([frame(p) for p in pictures], threshold=None, dedupe=True)
    assert found == [(False, False, 0), (False, True, 0), (False, False, 0), (False, True, 0)]


@pytest.mark.parametrize(("codec", "crf"), [("libx264", 18), ("libx264", 28), ("libvpx-vp9", 32)])
def test_repeats_are_found_after_coding(tmp_path, codec, crf):
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=24, options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for k, picture in enumerate(panned(1, 8)):
            for number in (2 * k, 2 * k + 1):
                shown = frame(picture)
                shown.pts, shown.time_base = number, Fraction(1, 24)
                out.mux(stream.encode(shown))
        out.mux(stream.encode(None))
    assert repeats(decoded(path)) == [1, 3, 5, 7, 9, 11, 13, 15]


def test_frames_are_not_changed():
    frames = [frame(p) for p in panned(1, 3)]
    kept = [(f.to_ndarray(), f.pts, f.time_base) for f in frames]
    judged(frames, dedupe=True)
    for f, (picture, pts, base) in zip(frames, kept, strict=True):
        np.testing.assert_array_equal(f.to_ndarray(), picture)
        assert (f.pts, f.time_base) == (pts, base)


@pytest.mark.skipif(not hasattr(VideoFrame, "metadata"), reason="PyAV 17 reads no metadata")
def test_scores_equal_those_of_scdet():
    """Below the threshold, after three still frames, the score equals that of FFmpeg's scdet."""
    pictures = [view(scene(1))] * 3 + [view(scene(1)) * 0.9 + view(scene(2)) * 0.1]
    frames = [frame(p, "gray") for p in pictures]
    graph = Graph()
    source = graph.add("buffer", "video_size=160x96:pix_fmt=gray:time_base=1/1:pixel_aspect=1/1")
    detect, sink = graph.add("scdet"), graph.add("buffersink")
    graph.link_nodes(source, detect, sink).configure()
    for f in frames:
        source.push(f)
        score = float(sink.pull().metadata["lavfi.scd.score"])
    assert 1 < score < CUT_THRESHOLD
    assert judged(frames)[-1].score == pytest.approx(score, abs=0.002)


def decoded(path, step=1):
    """Every `step`-th frame that can be decoded."""
    with av.open(str(path)) as clip:
        yield from itertools.islice(clip.decode(video=0), 0, None, step)


def shared(name):
    path = CLIPS / name
    if not path.exists():
        pytest.skip(f"{path} is missing: it comes with the development data")
    return path


def test_the_cut_of_a_real_clip_is_found_at_its_frame():
    assert cuts(decoded(DATA / "bbb_642x642_768kbps_30fps_vp9.webm")) == [6]


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize(
    "path",
    [
        Path("05_default_juggle.mp4"),
        Path("sample_with_increasing_timestamps_320w_240h_5s.mp4"),
        WALK,
        DATA / "bear-vp9-odd-dimensions.webm",
    ],
    ids=lambda path: path.stem,
)
def test_fast_motion_of_real_clips_is_not_a_cut(path, step):
    """Also at four times the speed. In the second clip a pan starts suddenly at frame 283."""
    path = path if path.is_absolute() else shared(path.name)
    assert cuts(decoded(path, step)) == []


def opaque_and_hidden(alphas, hidden):
    """Frames of one picture with several alpha channels and hidden colours."""
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    for alpha, seed in zip(alphas, hidden, strict=True):
        other = np.random.default_rng(seed).integers(0, 256, (64, 64, 3))
        yield layered(np.where(alpha[..., None] > 0, picture, other), alpha, "yuva444p")


def test_a_frame_whose_alpha_alone_changes_is_no_repeat():
    alphas = [np.full((64, 64), value) for value in (255, 255, 128, 128, 0)]
    detector = SceneDetector(dedupe=True)
    frames = opaque_and_hidden(alphas, [0] * 5)
    assert [detector.flags(f).repeat for f in frames] == [False, True, False, True, False]


def test_hidden_colours_are_no_cut():
    alpha = np.zeros((64, 64), np.uint8)
    alpha[:, :8] = 255
    frames = list(opaque_and_hidden([alpha] * 6, range(1, 7)))
    detector = SceneDetector()
    assert not any(detector.flags(frame).cut for frame in frames)
    detector = SceneDetector()
    assert any(detector.flags(frame.reformat(format="yuv444p")).score > 1 for frame in frames)


def test_a_picture_that_appears_by_its_alpha_is_a_cut():
    alphas = [np.full((64, 64), value) for value in (0, 0, 0, 0, 255, 255)]
    detector = SceneDetector()
    frames = opaque_and_hidden(alphas, [0] * 6)
    assert [detector.flags(f).cut for f in frames] == [False] * 4 + [True, False]
