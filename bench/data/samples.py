"""Samples of data sets: two frames and the true frames between them, read when needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.protocols import Protocol
from bench.environment import MeasurementError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
"""Suffixes of image files."""


class DamagedError(MeasurementError):
    """A sample whose frames cannot be read or do not fit each other."""


class Frames(NamedTuple):
    """The frames of one sample.

    Attributes:
        img0: The first frame, (H, W, 3) RGB: uint8, or float32 in [0, 1] if it was resampled.
        img1: The last frame, like `img0`.
        targets: The true frames between them. With a canvas in the protocol they are smaller than
            `img0` and correspond to its top left corner.
    """

    img0: NDArray[Any]
    img1: NDArray[Any]
    targets: list[NDArray[Any]]


@dataclass(frozen=True)
class Sample:
    """Two frames and the true ones between them.

    Attributes:
        name: Unique name in the data set.
        read: Reads the frames and processes them by the protocol; raises DamagedError.
        paths: The image files in order of time; empty for frames of a video.
    """

    name: str
    read: Callable[[], Frames]
    paths: tuple[Path, ...] = ()


def read_image(path: Path) -> NDArray[np.uint8]:
    """Reads an image file as uint8 (H, W, 3) RGB.

    Raises:
        DamagedError: If it cannot be read, or is not an image of 8 bits per colour.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode not in ("RGB", "RGBA", "L", "P"):
                raise DamagedError(f"{path} has mode {image.mode}: convert it to 8-bit RGB")
            if image.format == "PNG" and _png_depth(path) == 16:
                raise DamagedError(f"{path} has 16 bits per colour: convert it to 8-bit RGB")
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow raises SyntaxError for a broken PNG chunk.
        raise DamagedError(f"{path} cannot be read ({error}): copy it again") from error


def image_size(path: Path) -> tuple[int, int] | None:
    """(height, width) from the header of an image file; None if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None  # `read_image` gives the reason when the sample is measured.


def _png_depth(path: Path) -> int:
    """Bits per colour in the header: Pillow reads 16 bits as mode RGB with 8 and does not warn."""
    with path.open("rb") as file:
        return file.read(25)[24]


def sample_of_files(name: str, paths: Sequence[Path], protocol: Protocol) -> Sample:
    """A sample whose frames are image files in order of time."""

    def read() -> Frames:
        images = [read_image(path) for path in paths]
        for path, image in zip(paths, images, strict=True):
            if image.shape != images[0].shape:
                raise DamagedError(
                    f"{path} is {_size(image)} and {paths[0].name} {_size(images[0])}: give "
                    "frames of one size, or copy the data set again"
                )
        return _by_protocol(images, protocol, str(paths[0].parent))

    return Sample(name, read, tuple(paths))


def _by_protocol(images: Sequence[NDArray[Any]], protocol: Protocol, where: str) -> Frames:
    """Applies crop, downscaling and canvas of a protocol."""
    if protocol.crop:
        images = [_centre(image, protocol.crop) for image in images]
    if protocol.downscale > 1:
        images = [_by_area(image, protocol.downscale, where) for image in images]
    first, *targets, last = images
    if protocol.canvas:
        first, last = (_on_canvas(image, protocol.canvas, where) for image in (first, last))
    return Frames(first, last, targets)


def _centre(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Crops the centre as `center_crop_8x` of the authors' datasets.py; a smaller side stays."""
    rows, columns = (
        slice(max(n // 2 - wanted // 2, 0), n // 2 + wanted // 2 if n > wanted else n)
        for n, wanted in zip(image.shape[:2], size, strict=True)
    )
    return np.ascontiguousarray(image[rows, columns])


def _by_area(image: NDArray[Any], factor: int, where: str) -> NDArray[np.float32]:
    """Averages squares of factor x factor pixels without rounding, as cv2.INTER_AREA on floats."""
    height, width = image.shape[:2]
    if height % factor or width % factor:
        raise DamagedError(
            f"{where} has frames of {height}x{width}, which are not multiples of {factor}: copy "
            "the data set again"
        )
    squares = image.reshape(height // factor, factor, width // factor, factor, 3)
    smaller: NDArray[np.float32] = squares.mean((1, 3), dtype=np.float32) / np.float32(255)
    return smaller


def _on_canvas(image: NDArray[Any], size: tuple[int, int], where: str) -> NDArray[Any]:
    height, width = image.shape[:2]
    if height > size[0] or width > size[1]:
        raise DamagedError(
            f"{where} has frames of {height}x{width}, larger than {size[0]}x{size[1]}: copy the "
            "data set again"
        )
    canvas = np.zeros((*size, 3), image.dtype)
    canvas[:height, :width] = image
    return canvas


def _size(image: NDArray[Any]) -> str:
    return f"{image.shape[0]}x{image.shape[1]}"


def windows(frames: Sequence[Path], factor: int) -> Iterator[Sequence[Path]]:
    """Yields windows of factor + 1 frames; the last frame of one is the first of the next."""
    for start in range(0, len(frames) - factor, factor):
        yield frames[start : start + factor + 1]


def is_hidden(path: Path) -> bool:
    """Whether the name begins with a dot, as the files that macOS adds to archives."""
    return path.name.startswith(".")


def video_windows(path: Path, factor: int) -> int | None:
    """The number of windows of factor + 1 frames in a video.

    Returns:
        The number; None if the container does not give its number of frames.

    Raises:
        MeasurementError: If the file is not a video, or has too few frames for a window.
    """
    import av

    from runtime.video.reading.tags import open_for_reading

    if path.suffix.lower() in IMAGES:
        raise MeasurementError(f"{path} is a single image: give a video or a folder of frames")
    try:
        with open_for_reading(str(path)) as container:
            if not container.streams.video:
                raise MeasurementError(
                    f"{path} has no video track: give a video or a folder of frames"
                )
            frames = container.streams.video[0].frames
    except av.FFmpegError as error:
        raise MeasurementError(
            f"{path} is not a readable video ({error}): give a video or a folder of frames"
        ) from error
    if 0 < frames <= factor:
        raise MeasurementError(
            f"{path} has {frames} frames: give a video with {factor + 1} or more"
        )
    return (frames - 1) // factor if frames else None


def samples_of_video(path: Path, protocol: Protocol) -> Iterator[Sample]:
    """Yields windows of consecutive frames, decoded on demand; one window is in memory.

    Frames are converted to RGB as by `python -m runtime`: with the matrix, the range and the chroma
    siting of the video.

    Raises:
        MeasurementError: If a frame cannot be decoded.
        VideoError: If its matrix cannot be converted.
    """
    import av

    from runtime.video.colour import ColourConverter
    from runtime.video.reading.tags import open_for_reading

    converter = ColourConverter()
    window: list[NDArray[Any]] = []
    decoded = 0
    try:
        with open_for_reading(str(path)) as container:
            for frame in container.decode(video=0):
                window.append(converter.rgb_from_frame(frame, 8))
                decoded += 1
                if len(window) > protocol.factor:
                    name = f"frame {decoded - len(window)}"
                    frames = _by_protocol(window, protocol, str(path))
                    yield Sample(name, partial(lambda frames: frames, frames))
                    window = window[-1:]
    except av.FFmpegError as error:
        raise MeasurementError(
            f"{path} cannot be decoded after {decoded} frames ({error}): cut the video there"
        ) from error
