import struct
import wave
import zlib
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from bench.data import datasets
from bench.data.datasets import DataSet, select, sizes_on_disk
from bench.data.protocols import (
    ADOBE240_TEST,
    GOPRO_TEST,
    LATENCY_SETS,
    PROTOCOLS,
    Metric,
    protocol_lines,
    protocol_of,
)
from bench.data.samples import DamagedError, Sample, read_image, sample_of_files
from bench.environment import MeasurementError
from moving_clips import read_clip, write_clip
from paths import DATA, ROOT
from runtime.video.colour import rgb_from_frame

# The distributed lists have no licence, so that they are not in this repository.
LISTS = ROOT.parent / "shared" / "data" / "lists"
with_lists = pytest.mark.skipif(
    not LISTS.is_dir(), reason=f"{LISTS} with the lists of SNU-FILM and Adobe240 is not here"
)

NOISE = np.random.default_rng(0)


def find(name, root, *, factor=None):
    """Finds a data set on disk by its name; for "folder" with another factor."""
    protocol = PROTOCOLS[name]
    return datasets.find(
        replace(protocol, factor=protocol.factor if factor is None else factor), root
    )


def put(path, size=(6, 8)):
    """Writes an image of noise, each different, and returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = NOISE.integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(picture).save(path, compress_level=0)
    return picture


def touch(*paths):
    """Creates empty files, for images that are only counted."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(found):
    return [sample.name for sample in found.samples]


def assert_reads(sample, pictures):
    """Fails unless the frames of a sample are these, in order and unchanged."""
    frames = sample.read()
    read = [frames.img0, *frames.targets, frames.img1]
    assert len(read) == len(pictures)
    for got, wanted in zip(read, pictures, strict=True):
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_names_its_origin(name):
    protocol = PROTOCOLS[name]
    assert protocol.name == name
    assert all((protocol.title, protocol.layout, protocol.source, protocol.script))
    assert protocol.metrics[0] == "psnr"
    assert set(protocol.metrics) <= set(get_args(Metric))


@pytest.mark.parametrize(
    ("name", "rules"),
    {
        "vimeo90k": {"frame_size": (256, 448), "samples": 3782},
        "ucf101": {"frame_size": (256, 256), "samples": 379},
        **{
            f"snufilm-{level}": {
                "frame_size": (720, 1280), "samples": 310, "flow_scale": 0.8
            }
            for level in ("easy", "medium", "hard", "extreme")
        },
        "middlebury": {
            "frame_size": (480, 640), "samples": 12, "canvas": (480, 640),
            "metrics": ("psnr", "ssim_3d", "ie"),
        },
        "gopro": {"frame_size": (720, 1280), "factor": 8, "crop": (512, 512)},
        "adobe240": {"frame_size": (352, 640), "factor": 8, "crop": (512, 512)},
        "xtest-4k": {
            "frame_size": (2160, 4096), "factor": 8, "samples": 15, "rounded": True,
            "metrics": ("psnr",),
        },
        "xtest-2k": {
            "frame_size": (1080, 2048), "factor": 8, "samples": 15, "rounded": True,
            "metrics": ("psnr",), "downscale": 2,
        },
        "folder": {"frame_size": None},
    }.items(),
)  # fmt: skip
def test_rules_equal_those_of_the_papers(name, rules):
    none = {
        "factor": 2, "samples": None, "crop": None, "canvas": None, "downscale": 1,
        "flow_scale": 1.0, "rounded": False, "metrics": ("psnr", "ssim_3d"),
    }  # fmt: skip
    assert PROTOCOLS[name] == replace(PROTOCOLS[name], **{**none, **rules})


def test_the_list_has_every_data_set_with_rules_layout_and_source():
    lines = protocol_lines()
    heads = [line for line in lines if not line.startswith(" ")]
    mmagic = [f"{name} --protocol mmagic" for name in ("vimeo90k", "gopro", "adobe240")]
    assert [head.partition(":")[0] for head in heads] == [*PROTOCOLS, *mmagic]
    for protocol in PROTOCOLS.values():
        for detail in (protocol.layout, protocol.source, protocol.script):
            assert any(line.endswith(detail) for line in lines)
    rules = dict(head.split(": ", 1) for head in heads)
    assert "1280x720, 310 samples; 2x; flow scale 0.8; psnr, ssim_3d" in rules["snufilm-hard"]
    assert "8x; centre crop 512x512" in rules["gopro"]
    assert "black canvas 640x480; psnr, ssim_3d, ie" in rules["middlebury"]
    assert rules["xtest-2k"].endswith("half size by averaging; psnr of the rounded image")


def test_latency_is_measured_at_sizes_of_known_data_sets():
    for name in LATENCY_SETS.values():
        assert PROTOCOLS[name].frame_size is not None


@with_lists
def test_adobe240_has_the_videos_of_the_published_list():
    lines = (LISTS / "Adobe240" / "test_list.txt").read_text().split()
    assert tuple(line.rpartition(".")[0] for line in lines) == ADOBE240_TEST


@pytest.mark.parametrize("above", ["", "vimeo_triplet"])
def test_vimeo90k_has_the_triplets_and_order_of_its_list(tmp_path, above):
    base = tmp_path / above
    pictures = {
        name: [put(base / "sequences" / name / f"im{k}.png") for k in (1, 2, 3)]
        for name in ("00001/0001", "00001/0389", "00096/0002")
    }
    (base / "tri_testlist.txt").write_text("00096/0002\n00001/0389\n\n")
    found = find("vimeo90k", tmp_path)
    assert names(found) == ["00096/0002", "00001/0389"]
    assert found.count == 2
    assert found.notes == []
    for sample in found.samples:
        assert_reads(sample, pictures[sample.name])


def write_archive(base, name):
    return [
        put(base / folder / name / f"im{k}.png")
        for k, folder in ((1, "input"), (2, "target"), (3, "input"))
    ]


@pytest.mark.parametrize("above", ["", "vimeo_interp_test"])
def test_the_archive_of_vimeo90k_has_middle_frames_in_another_folder(tmp_path, above):
    pictures = {n: write_archive(tmp_path / above, n) for n in ("00002/0001", "00001/0389")}
    # Some copies have all three frames there.
    put(tmp_path / above / "target" / "00001/0389" / "im1.png")
    found = find("vimeo90k", tmp_path)
    assert names(found) == ["00001/0389", "00002/0001"]
    for sample in found.samples:
        assert_reads(sample, pictures[sample.name])


def test_the_archive_of_vimeo90k_can_contain_its_list(tmp_path):
    # The place in RIFE's benchmark/Vimeo90K.py.
    pictures = write_archive(tmp_path, "00001/0389")
    (tmp_path / "tri_testlist.txt").write_text("00001/0389\n\n")
    (sample,) = select(find("vimeo90k", tmp_path)).samples
    assert_reads(sample, pictures)


@pytest.mark.parametrize("above", ["", "ucf101_interp_ours"])
def test_ucf101_has_the_numbered_folders_and_ignores_others(tmp_path, above):
    files = ("frame_00.png", "frame_01_gt.png", "frame_02.png")
    base = tmp_path / above
    pictures = {n: [put(base / n / file) for file in files] for n in ("9", "1", "11")}
    put(base / "1" / "frame_01_ours.png")
    touch(base / ".DS_Store", base / "12.txt", base / "__MACOSX" / "1" / "frame_00.png")
    found = find("ucf101", tmp_path)
    assert names(found) == ["1", "11", "9"]
    assert found.notes == []
    for sample in found.samples:
        assert_reads(sample, pictures[sample.name])


LISTED = "data/SNU-FILM/test/GOPRO_test/GOPR0384_11_00"


def write_list(root, *triplets, level="hard"):
    lines = [" ".join(f"{LISTED}/{number:06}.png" for number in numbers) for numbers in triplets]
    (root / f"test-{level}.txt").write_text("\n".join(lines) + "\n\n")


@pytest.mark.parametrize(
    "folder",
    [LISTED, "test/GOPRO_test/GOPR0384_11_00", "GOPRO_test/GOPR0384_11_00"],
)
def test_the_listed_frames_of_snu_film_are_found_in_three_places(tmp_path, folder):
    pictures = {n: put(tmp_path / folder / f"{n:06}.png") for n in range(13, 26)}
    write_list(tmp_path, (17, 21, 25), (13, 17, 21))
    found = select(find("snufilm-hard", tmp_path))
    assert names(found) == ["GOPR0384_11_00/000021", "GOPR0384_11_00/000017"]
    assert found.notes == []
    later, earlier = found.samples
    assert_reads(later, [pictures[n] for n in (17, 21, 25)])
    assert_reads(earlier, [pictures[n] for n in (13, 17, 21)])


def test_paths_in_the_list_of_snu_film_are_tried_unchanged_first(tmp_path):
    short = "GOPRO_test/GOPR0384_11_00"
    pictures = []
    for n in (1, 2, 3):
        pictures.append(put(tmp_path / LISTED / f"{n:06}.png"))
        put(tmp_path / "test" / short / f"{n:06}.png")
    write_list(tmp_path, (1, 2, 3))
    (sample,) = find("snufilm-hard", tmp_path).samples
    assert_reads(sample, pictures)


def test_each_level_of_snu_film_has_its_own_list(tmp_path):
    lists = tmp_path / "eval_modes"
    lists.mkdir()
    for level, step in (("easy", 1), ("medium", 2), ("hard", 4), ("extreme", 8)):
        write_list(lists, (20 - step, 20, 20 + step), level=level)
        (sample,) = find(f"snufilm-{level}", tmp_path).samples
        assert [int(path.stem) for path in sample.paths] == [20 - step, 20, 20 + step]


def test_a_list_of_snu_film_is_searched_in_two_places(tmp_path):
    message = r"test-easy.txt or .*eval_modes/test-easy.txt does not exist: give --root a folder"
    with pytest.raises(MeasurementError, match=message):
        find("snufilm-easy", tmp_path)


@pytest.mark.parametrize("count", [2, 4])
def test_a_line_of_snu_film_without_three_paths_is_named(tmp_path, count):
    write_list(tmp_path, (1, 2, 3), range(count))
    message = rf"test-hard.txt, line 2, has {count} paths instead of 3"
    with pytest.raises(MeasurementError, match=message):
        find("snufilm-hard", tmp_path)


@with_lists
@pytest.mark.parametrize(
    ("level", "step"), [("easy", 1), ("medium", 2), ("hard", 4), ("extreme", 8)]
)
def test_the_real_lists_of_snu_film(tmp_path, level, step):
    listing = f"test-{level}.txt"
    (tmp_path / listing).write_bytes((LISTS / "SNU-FILM" / listing).read_bytes())
    found = find(f"snufilm-{level}", tmp_path)
    assert found.count == len(set(names(found))) == 310
    assert found.notes == []
    gopro = [s for s in found.samples if s.paths[0].parts[-3] == "GOPRO_test"]
    assert {sample.paths[0].parent.name for sample in gopro} == set(GOPRO_TEST)
    for sample in gopro:
        first, middle, last = (int(path.stem) for path in sample.paths)
        assert middle - first == last - middle == step
    with pytest.raises(MeasurementError, match=r"test/GOPRO_test/GOPR0384_11_00/\d+.png does"):
        select(found, limit=1)


def write_middlebury(root, name, size):
    return [
        put(root / "other-data" / name / "frame10.png", size),
        put(root / "other-gt-interp" / name / "frame10i11.png", size),
        put(root / "other-data" / name / "frame11.png", size),
    ]


def test_frames_of_middlebury_are_in_the_top_left_corner_of_a_black_canvas(tmp_path):
    first, target, last = write_middlebury(tmp_path, "Venus", (5, 7))
    write_middlebury(tmp_path, "Beanbags", (5, 7))
    # Other sequences have no true frame.
    put(tmp_path / "other-data" / "Army" / "frame10.png")
    found = find("middlebury", tmp_path)
    assert names(found) == ["Beanbags", "Venus"]
    assert found.notes == []
    frames = list(found.samples)[1].read()
    for canvas, picture in ((frames.img0, first), (frames.img1, last)):
        assert canvas.shape == (480, 640, 3)
        assert canvas.dtype == np.uint8
        np.testing.assert_array_equal(canvas[:5, :7], picture)
        assert canvas.sum(dtype=int) == picture.sum(dtype=int)
    (read,) = frames.targets
    np.testing.assert_array_equal(read, target)


@pytest.mark.parametrize("size", [(481, 4), (4, 641)])
def test_frames_larger_than_the_canvas_are_damaged(tmp_path, size):
    write_middlebury(tmp_path, "Venus", size)
    (sample,) = find("middlebury", tmp_path).samples
    message = f"Venus has frames of {size[0]}x{size[1]}, larger than 480x640: copy"
    with pytest.raises(DamagedError, match=message):
        sample.read()


def touch_frames(folder, count, first=1):
    paths = [folder / f"{number:06}.png" for number in range(first, first + count)]
    touch(*paths)
    return paths


@pytest.mark.parametrize(
    ("count", "starts"), [(9, [47]), (16, [47]), (17, [47, 55]), (33, [47, 55, 63, 71])]
)
@pytest.mark.parametrize(
    "above",
    ["", "test", "GOPRO_Large_all/test", "test/sharp", "test/full_sharp", "GOPRO/test/sharp"],
)
def test_windows_of_gopro_are_nine_frames_that_share_their_ends(tmp_path, above, count, starts):
    video = GOPRO_TEST[3]
    paths = touch_frames(tmp_path / above / video, count, first=47)
    found = find("gopro", tmp_path)
    assert names(found) == [f"{video}/{start:06}" for start in starts]
    assert found.count == len(starts)
    for k, sample in enumerate(found.samples):
        assert sample.paths == tuple(paths[8 * k : 8 * k + 9])


@pytest.mark.parametrize(
    "above", ["", "Adobe240", "test/full_sharp", "adobe240fps/test/full_sharp"]
)
def test_videos_of_adobe240_are_found_from_the_data_root(tmp_path, above):
    touch_frames(tmp_path / above / ADOBE240_TEST[0], 9)
    assert names(find("adobe240", tmp_path)) == [f"{ADOBE240_TEST[0]}/000001"]


def test_all_sharp_frames_are_preferred_to_those_between_blurred_ones(tmp_path):
    for folder, first in (("sharp", 100), ("full_sharp", 200)):
        touch_frames(tmp_path / "test" / folder / GOPRO_TEST[0], 9, first=first)
    assert names(find("gopro", tmp_path)) == [f"{GOPRO_TEST[0]}/000200"]


@pytest.mark.parametrize("above", ["", "test", "GOPRO_Large/test"])
def test_the_sharp_frames_of_gopro_large_are_found_and_noted(tmp_path, above):
    for video in GOPRO_TEST:
        for kind in ("blur", "sharp"):
            touch_frames(tmp_path / above / video / kind, 9)
    found = find("gopro", tmp_path)
    assert found.samples[0].paths[0].parent.name == "sharp"
    (note,) = found.notes
    assert "7 to 13 frames of the camera apart" in note


def test_a_folder_without_frames_does_not_hide_another(tmp_path):
    (tmp_path / GOPRO_TEST[0]).mkdir()
    touch_frames(tmp_path / "test" / GOPRO_TEST[0], 9)
    assert names(find("gopro", tmp_path)) == [f"{GOPRO_TEST[0]}/000001"]


def test_the_crop_of_gopro_equals_that_of_the_authors(tmp_path):
    # Odd sizes, for which definitions of the centre differ.
    height, width = 515, 521
    folder = tmp_path / GOPRO_TEST[0]
    pictures = [put(folder / f"{k:06}.png", (height, width)) for k in range(9)]
    (sample,) = find("gopro", tmp_path).samples
    rows = slice(height // 2 - 512 // 2, height // 2 + 512 // 2)
    columns = slice(width // 2 - 512 // 2, width // 2 + 512 // 2)
    assert_reads(sample, [picture[rows, columns] for picture in pictures])


@pytest.mark.parametrize(
    ("size", "columns"), [((352, 640), slice(64, 576)), ((512, 300), slice(None))]
)
def test_a_side_that_is_smaller_than_the_crop_is_kept(tmp_path, size, columns):
    folder = tmp_path / ADOBE240_TEST[0]
    pictures = [put(folder / f"{k:06}.png", size) for k in range(9)]
    (sample,) = find("adobe240", tmp_path).samples
    assert_reads(sample, [picture[:, columns] for picture in pictures])


@pytest.mark.parametrize(("name", "videos"), [("gopro", GOPRO_TEST), ("adobe240", ADOBE240_TEST)])
def test_only_official_videos_are_used_and_missing_ones_are_noted(tmp_path, name, videos):
    assert len(set(videos)) == {"gopro": 11, "adobe240": 8}[name]
    for video in (*videos[1:], "GOPR0372_07_00"):
        touch_frames(tmp_path / video, 9)
    found = find(name, tmp_path)
    assert [one.partition("/")[0] for one in names(found)] == list(videos[1:])
    total = len(videos)
    assert found.notes == [f"1 of the official {total} videos missing: {videos[0]}"]
    touch_frames(tmp_path / videos[0], 9)
    assert find(name, tmp_path).notes == []


def test_videos_that_are_all_too_short_are_refused(tmp_path):
    touch_frames(tmp_path / GOPRO_TEST[0], 8)
    with pytest.raises(MeasurementError, match="no sample of GoPro 8x: give --root a folder"):
        find("gopro", tmp_path)


def test_a_video_of_gopro_that_is_too_short_is_noted(tmp_path):
    for video in GOPRO_TEST:
        touch_frames(tmp_path / video, 8 if video == GOPRO_TEST[4] else 9)
    (note,) = find("gopro", tmp_path).notes
    assert GOPRO_TEST[4] in note


def test_hidden_files_are_not_frames_of_gopro(tmp_path):
    touch_frames(tmp_path / GOPRO_TEST[0], 9)
    touch(*(tmp_path / GOPRO_TEST[0] / f"._{k:06}.png" for k in range(1, 10)))
    assert find("gopro", tmp_path).count == 1


@pytest.fixture(params=["", "test"])
def scene(request, tmp_path):
    """Every fourth frame of a scene; the other files are empty."""
    folder = tmp_path / request.param / "Type2" / "TEST06_001_f0273"
    touch(*(folder / f"{k:04}.png" for k in range(33)))
    touch(tmp_path / request.param / "Type1" / "TEST01_003_f0433" / "0000.png")
    return [put(folder / f"{k:04}.png") for k in range(0, 33, 4)]


def test_x_test_4k_has_every_fourth_frame_unchanged(tmp_path, scene):
    found = find("xtest-4k", tmp_path)
    assert names(found) == ["Type1/TEST01_003_f0433", "Type2/TEST06_001_f0273"]
    assert found.notes == []
    assert_reads(list(found.samples)[1], scene)


def test_x_test_2k_is_the_mean_of_four_pixels_as_floats(tmp_path, scene):
    frames = list(find("xtest-2k", tmp_path).samples)[1].read()
    read = [frames.img0, *frames.targets, frames.img1]
    assert len(read) == 9
    for got, picture in zip(read, scene, strict=True):
        wide = picture.astype(np.float64)
        rows = wide[0::2] + wide[1::2]
        wanted = (rows[:, 0::2] + rows[:, 1::2]) / 4 / 255
        assert got.dtype == np.float32
        # One rounding to float32.
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-7)
    assert np.abs(frames.img0 * 255 - np.rint(frames.img0 * 255)).max() > 0.2


@pytest.mark.parametrize("size", [(6, 7), (5, 8)])
def test_x_test_2k_refuses_odd_sizes(tmp_path, size):
    folder = tmp_path / "Type1" / "TEST01"
    for k in range(0, 33, 4):
        put(folder / f"{k:04}.png", size)
    (small,), (large,) = (find(f"xtest-{k}", tmp_path).samples for k in ("2k", "4k"))
    message = f"TEST01 has frames of {size[0]}x{size[1]}, which are not multiples of 2: copy"
    with pytest.raises(DamagedError, match=message):
        small.read()
    assert large.read().img0.shape == (*size, 3)


def test_folders_of_three_are_triplets(tmp_path):
    pictures = {
        name: [put(tmp_path / name / f"im{k}.png") for k in (1, 2, 3)]
        for name in ("b", "a", "deep/er")
    }
    touch(tmp_path / "notes.txt", tmp_path / "a" / "im4.txt")
    found = find("folder", tmp_path)
    assert names(found) == ["a/im1", "b/im1", "deep/er/im1"]
    assert (found.count, found.notes) == (3, [])
    for sample in found.samples:
        assert_reads(sample, pictures[sample.name.rpartition("/")[0]])


@pytest.mark.parametrize(
    ("factor", "windows"),
    [(2, [(1, 2, 3), (3, 4, 5), (5, 6, 7), (7, 8, 9), (9, 10, 11)]), (8, [range(1, 10)])],
)
def test_a_sequence_is_cut_in_the_order_of_its_numbers(tmp_path, factor, windows):
    pictures = {k: put(tmp_path / f"frame{k}.png") for k in range(1, 13)}
    found = find("folder", tmp_path, factor=factor)
    assert found.count == len(set(names(found))) == len(windows)
    for sample, window in zip(found.samples, windows, strict=True):
        assert_reads(sample, [pictures[k] for k in window])


def test_images_are_recognised_by_their_suffix_in_any_case(tmp_path):
    files = ("1.PNG", "2.jpeg", "3.jpg", "4.BMP", "5.webp")
    touch(*(tmp_path / file for file in (*files, "6.gif", "7.mp4")))
    first, second = find("folder", tmp_path).samples
    assert [path.name for path in first.paths + second.paths[1:]] == list(files)


def test_folders_that_are_too_short_are_noted(tmp_path):
    touch(*(tmp_path / "long" / f"{k}.png" for k in range(9)))
    touch(*(tmp_path / "short" / f"{k}.png" for k in range(8)))
    found = find("folder", tmp_path, factor=8)
    assert names(found) == ["long/0"]
    assert found.notes == ["folders left out, with fewer than 9 images: 1"]


def test_folders_that_are_all_too_short_are_refused(tmp_path):
    touch(*(tmp_path / f"{k}.png" for k in range(8)))
    with pytest.raises(MeasurementError, match="no folder with 9 images: give a video"):
        find("folder", tmp_path, factor=8)


@pytest.mark.parametrize("factor", [1, 0, -2])
def test_a_factor_below_two_is_refused(tmp_path, factor):
    with pytest.raises(MeasurementError, match=f"--factor is {factor}: use 2 or more"):
        find("folder", tmp_path, factor=factor)


def test_a_superscript_is_not_a_number(tmp_path):
    touch(*(tmp_path / f"{k}.png" for k in ("²1", "²2", "²3")))
    assert find("folder", tmp_path).count == 1


@pytest.mark.parametrize(("suffix", "count"), [(".mp4", 2), (".mkv", None)])
def test_windows_of_a_video_have_its_frames(tmp_path, suffix, count):
    path = write_clip(tmp_path / f"clip{suffix}", 10)
    # Converted as by the video command.
    pictures = [rgb_from_frame(frame, 8) for frame in read_clip(path)[0]]
    found = find("folder", path, factor=4)
    # Matroska does not store the number of frames.
    assert (found.count, found.notes) == (count, [])
    # All samples are selected before the first is read.
    first, second = found.samples
    assert (first.name, second.name) == ("frame 0", "frame 4")
    assert_reads(first, pictures[:5])
    assert_reads(second, pictures[4:9])


LENGTHS = pytest.mark.parametrize(
    ("frames", "factor", "count"), [(3, 2, 1), (8, 2, 3), (9, 2, 4), (12, 4, 2), (13, 4, 3)]
)


@LENGTHS
def test_frames_of_a_video_after_its_last_window_are_left_out(tmp_path, frames, factor, count):
    found = find("folder", write_clip(tmp_path / "clip.mp4", frames), factor=factor)
    assert found.count == count
    assert names(found) == [f"frame {factor * k}" for k in range(count)]


@LENGTHS
def test_images_after_the_last_window_are_left_out(tmp_path, frames, factor, count):
    paths = [tmp_path / f"{k:02}.png" for k in range(frames)]
    touch(*paths)
    found = find("folder", tmp_path, factor=factor)
    assert found.count == count
    assert [sample.paths for sample in found.samples] == [
        tuple(paths[factor * k : factor * k + factor + 1]) for k in range(count)
    ]


def test_a_video_is_decoded_only_as_far_as_its_samples_are_read():
    # Only its last frames cannot be decoded.
    found = find("folder", DATA / "sample_with_invalid_nalu.mp4")
    samples = iter(found.samples)
    assert next(samples).read().img0.shape == (720, 1080, 3)
    message = r"sample_with_invalid_nalu.mp4 cannot be decoded after \d+ frames .*: cut the video"
    with pytest.raises(MeasurementError, match=message):
        list(samples)


def test_files_that_are_not_videos_are_refused(tmp_path):
    text = tmp_path / "clip.mp4"
    text.write_text("not a video")
    with pytest.raises(MeasurementError, match=r"clip.mp4 is not a readable video \(.*\)"):
        find("folder", text)


def test_a_file_with_only_sound_is_refused(tmp_path):
    sound = tmp_path / "sound.wav"
    with wave.open(str(sound), "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(bytes(1600))
    with pytest.raises(MeasurementError, match=r"sound.wav has no video track: give a video"):
        find("folder", sound)


def test_a_video_that_is_too_short_is_refused(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 2)
    with pytest.raises(MeasurementError, match=r"clip.mp4 has .* 3"):
        find("folder", path)


def test_a_single_image_is_refused(tmp_path):
    put(tmp_path / "one.png")
    with pytest.raises(MeasurementError, match=r"one.png"):
        find("folder", tmp_path / "one.png")


@pytest.fixture
def seven(tmp_path):
    touch(*(tmp_path / "triplets" / str(n) / f"im{k}.png" for n in range(7) for k in range(3)))
    return find("folder", tmp_path / "triplets")


@pytest.mark.parametrize(
    ("every", "limit", "chosen"),
    [(1, None, "0123456"), (3, None, "036"), (4, None, "04"), (1, 2, "01"), (3, 2, "03"),
     (3, 9, "036"), (1, 7, "0123456"), (9, None, "0")],
)  # fmt: skip
def test_every_kth_sample_up_to_the_limit_is_selected(seven, every, limit, chosen):
    found = select(seven, every=every, limit=limit)
    assert [name[0] for name in names(found)] == list(chosen)
    assert found.count == len(chosen)


def test_all_samples_of_a_set_need_no_note(seven):
    assert select(seven).notes == select(seven, limit=7).notes == []


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("name", ["every", "limit"])
def test_numbers_below_one_are_refused(seven, name, value):
    with pytest.raises(MeasurementError, match=f"^--{name} is {value}: use 1 or more"):
        select(seven, **{name: value})


def test_a_missing_file_of_a_selected_sample_is_named(seven, tmp_path):
    missing = tmp_path / "triplets" / "3" / "im1.png"
    missing.unlink()
    with pytest.raises(MeasurementError) as refused:
        select(seven)
    assert str(refused.value).startswith(f"{missing} does not exist: sample 3/im0 needs it, ")
    assert "copy the data set again" in str(refused.value)
    assert select(seven, limit=3).count == 3


@pytest.mark.parametrize(("name", "listing"), [("vimeo90k", "tri_testlist.txt"), ("ucf101", None)])
def test_a_list_is_named_only_if_the_set_has_one(tmp_path, name, listing):
    if listing:
        (tmp_path / listing).write_text("00001/0001\n")
    else:
        touch(tmp_path / "1" / "frame_00.png")
    with pytest.raises(MeasurementError) as refused:
        select(find(name, tmp_path))
    if listing:
        assert str(refused.value).endswith(f"or leave the sample out of {tmp_path / listing}")
    else:
        assert str(refused.value).endswith(": sample 1 needs it, copy the data set again")


def test_sizes_on_disk_are_those_of_the_headers(tmp_path):
    for number, size in enumerate(((6, 8), (6, 8), (10, 12)), 1):
        for name in ("frame_00.png", "frame_01_gt.png", "frame_02.png"):
            put(tmp_path / str(number) / name, size)
    touch(tmp_path / "4" / "frame_00.png")  # A damaged image is named when it is measured.
    assert sizes_on_disk(find("ucf101", tmp_path)) == {(6, 8): "1", (10, 12): "3"}


def test_sizes_of_a_large_set_are_those_of_samples_spread_over_it(tmp_path):
    samples = [Sample(str(k), None, (put_once(tmp_path, k == 128),)) for k in range(256)]
    assert len(sizes_on_disk(DataSet(samples, 256, []))) == 2


def put_once(folder, other):
    path = folder / f"{other}.png"
    if not path.exists():
        put(path, (6, 8) if other else (8, 6))
    return path


def test_the_size_on_disk_of_a_protocol():
    assert PROTOCOLS["xtest-2k"].stored_size == (2160, 4096)
    assert PROTOCOLS["gopro"].stored_size == (720, 1280)
    assert PROTOCOLS["middlebury"].stored_size is None  # Frames of several sizes on a canvas.
    assert PROTOCOLS["folder"].stored_size is None


@pytest.mark.parametrize("dataset", ["vimeo90k", "gopro", "adobe240"])
def test_mmagic_has_two_dimensional_ssim_and_the_frames_of_the_paper(dataset):
    paper, mmagic = protocol_of(dataset), protocol_of(dataset, "mmagic")
    assert mmagic.metrics == ("psnr", "ssim_2d")
    assert (mmagic.crop, mmagic.factor, mmagic.rounded) == (paper.crop, paper.factor, False)
    assert mmagic.script.endswith(
        {"vimeo90k": "in2out1_8xb4_vimeo", "gopro": "in2out7_8xb4_gopro",
         "adobe240": "in2out7_8xb4_adobe"}[dataset]
    )  # fmt: skip
    assert any(line.startswith(f"{dataset} --protocol mmagic: ") for line in protocol_lines())


def test_samples_of_a_video_are_selected_during_decoding(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 9)
    found = select(find("folder", path), every=2, limit=1)
    assert (names(found), found.count) == (["frame 0"], 1)
    assert names(select(find("folder", path), every=3)) == ["frame 0", "frame 6"]


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("there", [True, False])
def test_the_error_without_data_has_the_path_and_the_layout(tmp_path, name, there):
    root = tmp_path if there else tmp_path / "nowhere"
    with pytest.raises(MeasurementError) as refused:
        find(name, root)
    message = str(refused.value)
    assert message.startswith(str(root))
    assert ("does not exist: " in message) or (there and " has no " in message)
    if name == "folder":
        assert message.endswith(": give a video, a folder of frames, or a folder of such folders")
    else:
        assert message.endswith(f"{PROTOCOLS[name].layout} ({PROTOCOLS[name].source})")


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "folder"])
def test_a_file_is_refused_as_data_set(tmp_path, name):
    touch(tmp_path / "archive.zip")
    with pytest.raises(MeasurementError, match=r"archive.zip"):
        find(name, tmp_path / "archive.zip")


@pytest.mark.parametrize(
    ("name", "files", "missing"),
    [
        ("ucf101", ["1/frame_00.png", "1/frame_01_gt.png"], "1/frame_02.png"),
        ("middlebury", ["other-gt-interp/V/frame10i11.png"], "other-data/V/frame10.png"),
        ("vimeo90k", ["input/1/2/im1.png", "input/1/2/im3.png"], "target/1/2/im2.png"),
        ("xtest-4k", ["test/Type1/TEST1/0000.png"], "test/Type1/TEST1/0004.png"),
    ],
)  # fmt: skip
def test_a_frame_that_a_layout_lacks_is_named(tmp_path, name, files, missing):
    touch(*(tmp_path / file for file in files))
    with pytest.raises(MeasurementError) as refused:
        select(find(name, tmp_path))
    assert str(refused.value).startswith(f"{tmp_path / missing} does not exist: sample ")


def deep_png(path):
    """A PNG of 16 bits in each of three colours, which Pillow cannot write."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = (b"\0" + b"\x12\x34" * 3 * 8) * 6
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 6, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def three_files(tmp_path):
    paths = [tmp_path / f"im{k}.png" for k in (1, 2, 3)]
    for path in paths:
        put(path)
    return paths, sample_of_files("one", paths, PROTOCOLS["vimeo90k"])


def test_a_truncated_image_is_damaged(tmp_path):
    paths, sample = three_files(tmp_path)
    paths[1].write_bytes(paths[1].read_bytes()[:-60])
    with pytest.raises(DamagedError, match=r"im2.png cannot be read \(.*truncated.*\)"):
        sample.read()


def test_an_image_with_a_flipped_bit_is_damaged(tmp_path):
    paths, sample = three_files(tmp_path)
    data = bytearray(paths[2].read_bytes())
    data[18] ^= 4  # In the header: its checksum no longer matches.
    paths[2].write_bytes(data)
    with pytest.raises(DamagedError, match=r"im3.png cannot be read"):
        sample.read()


def test_a_text_file_with_the_name_of_an_image_is_damaged(tmp_path):
    paths, sample = three_files(tmp_path)
    paths[0].write_text("<html>404</html>")
    with pytest.raises(DamagedError, match=r"im1.png cannot be read \(cannot identify"):
        sample.read()


def test_an_image_that_was_deleted_is_damaged(tmp_path):
    paths, sample = three_files(tmp_path)
    paths[2].unlink()
    with pytest.raises(DamagedError, match=r"im3.png cannot be read \(.*No such file"):
        sample.read()


def test_sixteen_bits_of_grey_are_refused_as_damaged(tmp_path):
    paths, sample = three_files(tmp_path)
    Image.fromarray(np.full((6, 8), 4660, np.uint16)).save(paths[1])
    with pytest.raises(DamagedError, match=r"im2.png has mode I;16: convert it to 8-bit RGB"):
        sample.read()


def test_sixteen_bits_of_each_colour_are_refused_as_damaged(tmp_path):
    paths, sample = three_files(tmp_path)
    deep_png(paths[1])
    with pytest.raises(DamagedError, match=r"im2.png has 16 bits per colour: convert it"):
        sample.read()


def test_an_image_with_a_giant_size_in_its_header_is_damaged(tmp_path):
    path = tmp_path / "frame.bmp"
    Image.new("RGB", (8, 6)).save(path)
    data = bytearray(path.read_bytes())
    data[18:26] = struct.pack("<ii", 30000, 30000)
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=r"frame.bmp cannot be read"):
        read_image(path)


def test_frames_of_two_sizes_are_damaged(tmp_path):
    paths, sample = three_files(tmp_path)
    put(paths[1], (6, 9))
    message = r"im2.png is 6x9 and im1.png 6x8: give frames of one size"
    with pytest.raises(DamagedError, match=message):
        sample.read()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_other_images_of_eight_bits_are_read_as_rgb(tmp_path, mode):
    colour = (90, 90, 90) if mode == "L" else (10, 200, 90)
    picture = Image.new("RGB", (4, 3), colour)
    # Quantised, because convert() would use its own palette.
    (picture.quantize() if mode == "P" else picture.convert(mode)).save(tmp_path / "one.png")
    picture = read_image(tmp_path / "one.png")
    assert (picture.dtype, picture.shape) == (np.uint8, (3, 4, 3))
    assert (picture == colour).all()
