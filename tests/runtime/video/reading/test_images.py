"""Folders of images, some of which cannot be read or decoded."""

import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import pytest

from runtime import VideoError
from runtime.video.reading.info import DecodedFrame
from runtime.video.reading.source import open_source
from video_clips import pictures


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "in"
    made.mkdir()
    for k, frame in enumerate(pictures(20, fmt="rgb24"), 1):
        frame.save(str(made / f"f{k}.png"))
    return made


def read(path, **options):
    """Reads a folder; returns (numbers of the frames, notes, number of damaged images)."""
    with open_source(path, **options) as source:
        frames = [item.pts for item in source if isinstance(item, DecodedFrame)]
    return frames, source.notes, source.damaged


def dangle(file):
    file.unlink()
    file.symlink_to(file.parent / "nowhere")


def make_a_folder(file):
    file.unlink()
    file.mkdir()


def make_a_pipe(file):
    file.unlink()
    os.mkfifo(file)


def link_to_a_device(file):
    file.unlink()
    file.symlink_to("/dev/zero")


def declare(width, height):
    """Writes a small PNG file that declares a size."""

    def chunk(kind, content):
        end = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + end

    def write(file):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
        file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))

    return write


def huge_file(file):
    with file.open("r+b") as opened:
        opened.truncate(1 << 31)


SPOILT = {
    "a dangling link": (dangle, "No such file or directory"),
    "a folder": (make_a_folder, "Is a directory"),
    "a pipe": (make_a_pipe, "it is not a regular file"),
    "a device": (link_to_a_device, "it is not a regular file"),
    "a picture of 900 megapixels": (declare(30_000, 30_000), ""),
    "a picture of 2^62 pixels": (declare(2**31 - 1, 2**31 - 1), ""),
    "a file of 2 GiB": (huge_file, "it has more than 2147483647 bytes"),
    "an empty file": (lambda file: file.write_bytes(b""), "the file contains no image"),
    "no picture": (lambda file: file.write_bytes(b"text" * 50), ""),
    "a damaged picture": (lambda file: file.write_bytes(b"\x89PNG no more"), "Invalid data"),
    "half a picture": (
        lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]), "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILT)
def test_a_bad_image_is_skipped_and_noted(folder, kind):
    spoil, why = SPOILT[kind]
    spoil(folder / "f4.png")
    expected = [number for number in range(20) if number != 3]
    for path in (folder, folder / "f%d.png"):
        frames, notes, damaged = read(path)
        assert frames == expected  # the others keep their times
        assert notes == [
            "images that cannot be read or decoded: f4.png",
            "damaged packets skipped: 1",
        ]
        assert damaged == 1
    with pytest.raises(VideoError, match=rf"f4\.png in .*in is damaged \({why}.*\): repair it"):
        read(folder, strict=True)
    with open_source(folder) as source:
        shown = {item.pts: item.frame for item in source if isinstance(item, DecodedFrame)}
    for number, wanted in enumerate(pictures(20, fmt="rgb24")):
        if number in shown:
            assert (shown[number].to_ndarray() == wanted.to_ndarray()).all()
    part = read(folder, start=Fraction(3, 25), end=Fraction(6, 25))
    assert part[0] == [2, 4, 5, 6]


def test_an_image_of_another_size_is_named(folder):
    other = next(pictures(1, size=(64, 64), fmt="rgb24"))
    other.save(str(folder / "f5.png"))
    with pytest.raises(VideoError) as error:
        read(folder)
    assert str(error.value) == (
        "f5.png is 64x64, the images before it are 64x48: give images of one size"
    )


def test_an_image_that_is_deleted_during_reading_is_skipped(folder):
    with open_source(folder) as source:
        (folder / "f15.png").unlink()
        frames = [item.pts for item in source if isinstance(item, DecodedFrame)]
    assert frames == [number for number in range(20) if number != 14]
    assert source.notes[0] == "images that cannot be read or decoded: f15.png"


def test_many_consecutive_bad_images_are_skipped(folder):
    for number in range(1, 19):
        dangle(folder / f"f{number}.png")
    frames, notes, damaged = read(folder)
    assert (frames, damaged) == ([18, 19], 18)
    assert notes[0] == (
        "images that cannot be read or decoded: f1.png, f2.png, f3.png, f4.png, f5.png and 13 more"
    )
    dangle(folder / "f19.png")
    dangle(folder / "f20.png")
    with pytest.raises(VideoError, match="no frame that can be decoded"):
        read(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_images_without_read_permission_are_skipped(folder):
    (folder / "f4.png").chmod(0)
    assert read(folder)[1][0] == "images that cannot be read or decoded: f4.png"
    folder.chmod(0)
    try:
        with pytest.raises(VideoError, match="cannot be read"):
            read(folder)
    finally:
        folder.chmod(0o700)


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(VideoError, match="no does not exist: give a folder of images"):
        read(tmp_path / "no" / "%06d.png")


def test_a_folder_that_cannot_be_listed_is_an_error(folder, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(VideoError, match=r"in cannot be read \(Permission denied\)"):
        read(folder)


def test_a_superscript_in_a_name_is_not_a_number(folder):
    for file in list(folder.iterdir()):
        file.rename(folder / f"²{file.name}")
    frames, notes, damaged = read(folder)
    assert (frames, notes, damaged) == (list(range(20)), [], 0)
