"""Clips and stills of `make demo`: a clip at half its rate, and new frames beside the true ones."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from bench.alternatives.clips import blend
from runtime.video.reading.tags import open_for_reading

Image = NDArray[np.uint8]
"""RGB, (H, W, 3)."""

PART = 3
"""Height and width of a frame, relative to those of the part of it that a still enlarges."""

_GAP = 6
_WHITE = 255


@dataclass(frozen=True)
class Comparison:
    """New frames against the true ones, which were dropped from the clip.

    Attributes:
        new_psnr: PSNR in dB of each new frame.
        blended_psnr: PSNR in dB of the average of its two neighbours.
        shown: Number of the new frame with the most motion, from 0.
        corner: Row and column of the part of that frame with the most motion.
        blended: The average of the neighbours of that frame.
        new: The new frame.
        true: The true frame.
    """

    new_psnr: list[float]
    blended_psnr: list[float]
    shown: int
    corner: tuple[int, int]
    blended: Image
    new: Image
    true: Image


def decode(path: Path) -> list[Image]:
    """Decodes all frames of a clip."""
    with open_for_reading(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def write_every_other_frame(clip: Path, out: Path, limit: int | None = None) -> list[Image]:
    """Writes a clip without its odd frames, at half its rate, and returns all its frames.

    Args:
        clip: A video of a constant rate.
        out: An MP4 file.
        limit: Number of frames of the clip to use; None for all.
    """
    images = []
    with open_for_reading(str(clip)) as source, av.open(str(out), "w") as container:
        video = source.streams.video[0]
        rate = Fraction(video.average_rate or 30).limit_denominator(1001) / 2
        # Nearly lossless: what is compared is the interpolation.
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        # What browsers play.
        stream.width, stream.height = video.width // 2 * 2, video.height // 2 * 2
        stream.pix_fmt = video.pix_fmt if video.pix_fmt == "yuvj420p" else "yuv420p"
        for number, frame in enumerate(itertools.islice(source.decode(video), limit)):
            if (frame.width, frame.height, frame.format.name) != (
                stream.width, stream.height, stream.pix_fmt
            ):  # fmt: skip
                frame = frame.reformat(stream.width, stream.height, stream.pix_fmt)
            images.append(frame.to_ndarray(format="rgb24"))
            if number % 2 == 0:
                frame.pts, frame.time_base = number // 2, 1 / rate
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return images


def write_side_by_side(left: list[Image], right: list[Image], rate: Fraction, out: Path) -> None:
    """Writes `right` at `rate`, and left of it `left`, each frame of which is shown twice."""
    height, width, _ = right[0].shape
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = 2 * width + 2 * _GAP, height, "yuv420p"
        gap = np.full((height, 2 * _GAP, 3), _WHITE, np.uint8)
        for number, image in enumerate(right):
            both = np.concatenate((left[number // 2], gap, image), axis=1)
            container.mux(stream.encode(VideoFrame.from_ndarray(both, format="rgb24")))
        container.mux(stream.encode())


def compare(true: list[Image], low: list[Image], high: list[Image]) -> Comparison:
    """Compares each new frame, and a blend of its neighbours, with the true frame.

    Args:
        true: All frames of the clip.
        low: Its frames of even number, as they were interpolated.
        high: The frames of `low` and the new ones between them, in turn.
    """
    pairs = list(itertools.pairwise(low))
    blends = [blend(*pair) for pair in pairs]
    shown = max(range(len(pairs)), key=lambda number: float(_motion(*pairs[number]).mean()))
    return Comparison(
        [psnr(high[2 * k + 1], true[2 * k + 1]) for k in range(len(pairs))],
        [psnr(blend, true[2 * k + 1]) for k, blend in enumerate(blends)],
        shown,
        _part_with_most_motion(*pairs[shown]),
        blends[shown],
        high[2 * shown + 1],
        true[2 * shown + 1],
    )


def psnr(image: Image, other: Image) -> float:
    """PSNR of two images in dB, over all pixels and channels; infinite for equal ones."""
    error = float(np.mean(np.square(image.astype(np.float32) - other)))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def still(compared: Comparison) -> Image:
    """Blend, new frame and true frame in a row, and below each its part with the most motion."""
    columns = []
    for image in (compared.blended, compared.new, compared.true):
        part = image[_part(compared)]
        enlarged = part.repeat(2, axis=0).repeat(2, axis=1)  # Its pixels as they are.
        height, width, _ = enlarged.shape
        gap = np.full((_GAP, width, 3), _WHITE, np.uint8)
        whole = _resized(_outlined(image, compared), (height, width))
        columns.append(np.concatenate((whole, gap, enlarged)))
    gap = np.full((len(columns[0]), _GAP, 3), _WHITE, np.uint8)
    return np.concatenate((columns[0], gap, columns[1], gap, columns[2]), axis=1)


def save_png(image: Image, path: Path) -> None:
    """Writes an image as PNG."""
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = image.shape[1], image.shape[0], "rgb24"
    codec.time_base = Fraction(1)
    codec.options = {"compression_level": "9", "pred": "mixed"}
    frame = VideoFrame.from_ndarray(image, format="rgb24")
    packets = [*codec.encode(frame), *codec.encode(None)]
    path.write_bytes(b"".join(map(bytes, packets)))


def _motion(image: Image, other: Image) -> NDArray[np.float64]:
    """Mean difference of the channels, (H, W)."""
    return np.abs(image.astype(np.float64) - other).mean(axis=2)


def _part_with_most_motion(image: Image, other: Image) -> tuple[int, int]:
    """Row and column of the part of the frame with the largest sum of differences."""
    height, width, _ = image.shape
    rows, columns = height // PART, width // PART
    sums = np.pad(_motion(image, other).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    parts = (
        sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns]
        + sums[:-rows, :-columns]
    )  # fmt: skip
    row, column = np.unravel_index(parts.argmax(), parts.shape)
    return int(row), int(column)


def _part(compared: Comparison) -> tuple[slice, slice]:
    (row, column), (height, width, _) = compared.corner, compared.new.shape
    return slice(row, row + height // PART), slice(column, column + width // PART)


def _outlined(image: Image, compared: Comparison) -> Image:
    """The image with a white frame around the part that is enlarged."""
    outlined = image.copy()
    outlined[_part(compared)] = _WHITE
    rows, columns = _part(compared)
    inside = slice(rows.start + 3, rows.stop - 3), slice(columns.start + 3, columns.stop - 3)
    outlined[inside] = image[inside]
    return outlined


def _resized(image: Image, size: tuple[int, int]) -> Image:
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    resized = frame.reformat(size[1], size[0], "rgb24", interpolation="LANCZOS")
    return resized.to_ndarray()
