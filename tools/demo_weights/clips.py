"""Finds clips and photographs in folders, and decodes their frames."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo_weights.errors import TrainingError

INDEX = "index.json"
CLIP_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
PHOTO_SUFFIXES = (".jpeg", ".jpg", ".png")

SHORTEST = 9
"""Minimum number of frames of a clip, for the longest triplets and the windows of validation."""


def require_av() -> None:
    """Checks that PyAV can be imported.

    Raises:
        TrainingError: If it cannot.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise TrainingError(
            f"PyAV cannot be imported ({error}) and clips are decoded with it: run "
            "`pip install av`, or without a network copy its wheel to this machine and install "
            "that; --pack names the wheel"
        ) from error


@dataclass(frozen=True)
class Clip:
    """A video file, before it is decoded.

    Attributes:
        path: The file.
        frames: Number of frames by the index; None without an index.
        cuts: Numbers of the frames that begin a new scene, by the index; None without an index.
    """

    path: Path
    frames: int | None = None
    cuts: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """The file name without its suffix."""
        return self.path.stem


def find_clips(folder: Path) -> list[Clip]:
    """Lists the clips of a folder, sorted by name.

    Args:
        folder: Holds video files, and may hold `index.json`: a list of {"file", "frames", "cuts"}.
            With an index only the files in it are listed.

    Raises:
        TrainingError: If the folder, a file of the index, or any clip at all is missing.
    """
    if not folder.is_dir():
        raise TrainingError(f"--clips {folder} is not a folder: name a folder with video files")
    index = folder / INDEX
    if index.exists():
        clips = [_indexed(folder, entry) for entry in _entries(index)]
    else:
        clips = [Clip(path) for path in folder.iterdir() if path.suffix.lower() in CLIP_SUFFIXES]
    if not clips:
        raise TrainingError(
            f"--clips {folder} holds no clip: put video files into it ({', '.join(CLIP_SUFFIXES)})"
        )
    clips.sort(key=lambda clip: clip.path.name)
    names = [clip.name for clip in clips]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TrainingError(f"two clips are named {twice[0]}: rename one of them")
    return clips


def _entries(index: Path) -> list[dict[str, Any]]:
    try:
        entries: list[dict[str, Any]] = json.loads(index.read_text())
        for entry in entries:
            entry["file"], entry["frames"], entry["cuts"]
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{index} is not an index of clips ({type(error).__name__}: {error}): remove it, then "
            "cuts are found while decoding"
        ) from error
    return entries


def _indexed(folder: Path, entry: dict[str, Any]) -> Clip:
    path = folder / entry["file"]
    if not path.is_file():
        raise TrainingError(f"{path} is in {INDEX} but missing: copy it, or remove the index")
    return Clip(path, int(entry["frames"]), tuple(map(int, entry["cuts"])))


def find_photos(folder: Path) -> list[Path]:
    """Lists the photographs of a folder, sorted by name.

    Raises:
        TrainingError: If the folder or any photograph is missing.
    """
    photos = []
    if folder.is_dir():
        photos = [path for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES]
    if not photos:
        raise TrainingError(
            f"--photos {folder} holds no photograph ({', '.join(PHOTO_SUFFIXES)}): name a folder "
            "of photographs, the synthetic motion is made of them"
        )
    return sorted(photos)


@dataclass(frozen=True)
class Size:
    """The size of a decoded clip or photograph.

    Attributes:
        frames: Number of frames; an upper bound before the clip is decoded.
        height: In pixels.
        width: In pixels.
    """

    frames: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Number of pixels of all frames."""
        return self.frames * self.height * self.width


def probe_clip(clip: Clip, short_side: int) -> Size:
    """Reads size and number of packets of a clip without decoding it.

    Args:
        clip: The clip.
        short_side: Limit of the shorter side of a decoded frame, in pixels.

    Raises:
        TrainingError: If the file is not a readable video or is shorter than `SHORTEST`.
    """
    with _opened(clip) as (container, stream):
        packets = sum(packet.size > 0 for packet in container.demux(stream))
        height, width = _scaled(stream.height, stream.width, short_side)
    frames = packets if clip.frames is None else clip.frames
    check_length(clip, frames)
    return Size(frames, height, width)


def is_larger(clip: Clip, short_side: int) -> bool:
    """Whether `decoded` scales the frames down to `short_side`.

    Raises:
        TrainingError: If the file is not a readable video.
    """
    with _opened(clip) as (_, stream):
        return bool(min(stream.height, stream.width) > short_side)


@contextmanager
def _opened(clip: Clip) -> Iterator[tuple[Any, Any]]:
    """Opens a clip; yields the container and its video stream.

    Raises:
        TrainingError: If the file cannot be decoded, or has no video.
    """
    import av

    from runtime.errors import first_line
    from runtime.video.reading.tags import open_for_reading

    try:
        with open_for_reading(str(clip.path)) as container:
            if not container.streams.video:
                raise TrainingError(f"{clip.path} has no video track: remove it")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.error.FFmpegError, OSError) as error:
        reason = first_line(error)
        raise TrainingError(
            f"{clip.path} cannot be decoded ({reason}): remove it or encode it again"
        ) from error


def check_length(clip: Clip, frames: int) -> None:
    """Checks that a clip is long enough.

    Raises:
        TrainingError: If it has fewer than `SHORTEST` frames.
    """
    if frames < SHORTEST:
        raise TrainingError(
            f"{clip.path} has {frames} frames and at least {SHORTEST} are needed: remove it"
        )


def decoded(clip: Clip, short_side: int) -> Iterator[tuple[NDArray[np.uint8], bool]]:
    """Decodes a clip.

    Args:
        clip: The clip.
        short_side: Limit of the shorter side in pixels, to which larger frames are scaled down.

    Yields:
        Frames, uint8 RGB (H, W, 3), and whether a scene begins with them, from the index or, if
        there is none, detected.

    Raises:
        TrainingError: If the file cannot be decoded to its end.
    """
    from av.video.reformatter import Interpolation, VideoReformatter

    from runtime.video.scenes import SceneDetector

    scaler = VideoReformatter()
    detector = SceneDetector() if clip.cuts is None else None
    size: tuple[int, int] | None = None
    with _opened(clip) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            size = size or _scaled(frame.height, frame.width, short_side)
            scaled = scaler.reformat(
                frame, size[1], size[0], "rgb24", interpolation=Interpolation.AREA
            )
            cut = number in (clip.cuts or ()) if detector is None else detector.flags(frame).cut
            yield scaled.to_ndarray(), cut


def _scaled(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) of decoded frames; even if they are scaled, as encoders need it."""
    shortest = min(height, width)
    if shortest <= short_side:
        return height, width
    return tuple(2 * round(side * short_side / shortest / 2) for side in (height, width))  # type: ignore[return-value]


def read_photo(path: Path) -> NDArray[np.uint8]:
    """Reads a photograph, uint8 RGB (H, W, 3).

    Raises:
        TrainingError: If it cannot be read.
    """
    try:
        with Image.open(path) as photo:
            return np.asarray(photo.convert("RGB"))
    except OSError as error:
        raise TrainingError(f"{path} is not a readable photograph ({error}): remove it") from error


def probe_photo(path: Path) -> Size:
    """Reads the size of a photograph without decoding it.

    Raises:
        TrainingError: If it cannot be read.
    """
    try:
        with Image.open(path) as photo:
            return Size(1, photo.height, photo.width)
    except OSError as error:
        raise TrainingError(f"{path} is not a readable photograph ({error}): remove it") from error
