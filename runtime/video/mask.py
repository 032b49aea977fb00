"""Static masks: where new frames show the nearest real frame in place of the model's result.

Logos, subtitles and the elements of user interfaces stand still in front of moving pictures. A
model may bend them; under a mask they are those of a real frame, sample for sample.
"""

from __future__ import annotations

import hashlib
import os
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from runtime.errors import VideoError, kind_of
from runtime.video.colour import ColourConverter, rgb_from_frame
from runtime.video.planes import (
    alpha_of,
    has_alpha,
    has_whole_samples,
    is_coarse,
    sample_views,
    set_alpha,
)
from runtime.video.reading.images import ImageReader
from runtime.video.reading.info import SourceInfo, reason
from runtime.video.transparency import AlphaConverter

MaskSource: TypeAlias = "str | Path | NDArray[Any] | Mask"
"""A PNG or JPEG file, or an array (H, W): uint8 with 255 for a real frame, or bool with True."""

_WHOLE = 65535
"""The weight of a real frame that is shown alone."""

_BLOCK = 4
"""Largest number of rows or columns that share a chroma sample."""


class Mask:
    """The weight of the nearest real frame in each pixel of a new frame.

    Masks with equal weights are equal. The repr depends on nothing else.

    Attributes:
        weights: uint8 (H, W), of the size at which the video is shown, after its rotation: 255 for
            the real frame alone, 0 for the new frame alone.
        name: The path of the file, for messages.
    """

    def __init__(self, given: str | Path | NDArray[Any]) -> None:
        """Reads a file, or takes an array.

        In a file, the brightness of a pixel is its weight. Where an image has transparent pixels,
        opacity is the weight, since such an image is an overlay that was made for the video.

        Args:
            given: A PNG or JPEG image; or an array (H, W), uint8 or bool.

        Raises:
            VideoError: If the file cannot be read, the array is of another kind, or all is 0.
        """
        if isinstance(given, str | os.PathLike):
            self.name = str(given)
            self.weights = _weights_of(_decoded(Path(given)))
        else:
            self.name = "mask"
            self.weights = _checked(given)
        self.weights.setflags(write=False)
        if not self.weights.any():
            raise VideoError(
                f"{self.name} covers no pixel: paint white where real frames are to be shown"
            )

    @property
    def _identity(self) -> str:
        return hashlib.sha256(self.weights.tobytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and np.array_equal(self.weights, other.weights)

    def __hash__(self) -> int:
        return hash(self._identity)

    def __repr__(self) -> str:
        height, width = self.weights.shape
        return f"Mask({width}x{height}, {self._identity})"


def as_mask(given: MaskSource) -> Mask:
    """Makes a mask of a file or an array; returns a `Mask` unchanged.

    Raises:
        VideoError: As `Mask` raises it.
    """
    return given if isinstance(given, Mask) else Mask(given)


def check_mask(mask: Mask, info: SourceInfo) -> None:
    """Checks that a mask fits the frames of a source.

    Raises:
        VideoError: If it has another size, or the samples of the source's format cannot be mixed.
    """
    height, width = mask.weights.shape
    shown = (info.height, info.width) if info.rotation % 180 == 0 else (info.width, info.height)
    if not is_coarse(info.pixel_format):  # Otherwise the frames are converted to RGB.
        _check_format(info.pixel_format)
    if (height, width) != shown:
        raise VideoError(
            f"{mask.name} is {width}x{height} and {info.name} is shown at {shown[1]}x{shown[0]}: "
            "give a mask of that size"
        )


def _check_format(pixel_format: str) -> None:
    """Checks that the samples of a pixel format can be mixed.

    Raises:
        VideoError: If they cannot.
    """
    if not has_whole_samples(pixel_format):
        raise VideoError(
            f"frames of the pixel format {pixel_format} cannot be mixed under a mask: convert the "
            "video to another format, or leave the mask out"
        )


class MaskedFrames:
    """Puts real frames over the new frames of one stream, where its mask says so.

    The samples of the frames are mixed, not RGB: under white a new frame equals the real one bit
    for bit, except at chroma samples that the mask covers in part.
    One thread at a time may call a method.
    """

    def __init__(self, mask: Mask, rotation: int) -> None:
        """Prepares the mask.

        Args:
            mask: The mask, of the size at which the frames are shown.
            rotation: Degrees counter-clockwise by which a frame is rotated for display.
        """
        stored = np.rot90(mask.weights, -(rotation // 90))
        self._rows, self._columns = _bounds(stored, 1), _bounds(stored, 0)
        self._weights = stored[self._rows, self._columns].astype(np.uint32) * (_WHOLE // 255)
        self._shared: dict[tuple[int, int], NDArray[np.uint32]] = {}
        self._alpha, self._colour = AlphaConverter(), ColourConverter()

    def cover(self, new: VideoFrame, real: VideoFrame) -> None:
        """Mixes a real frame into a new one, which is changed in place.

        Args:
            new: The new frame.
            real: The nearest real frame; it is converted if its format is another one.

        Raises:
            VideoError: If the samples of the format cannot be mixed.
        """
        name = new.format.name
        _check_format(name)
        if not has_alpha(name):
            if real.format.name != name:
                real = self._colour.reformatted(real, name, real)
            self._mix(new, real, None)
            return
        real = self._alpha.fitted(real, name)
        bits = min(new.format.components[-1].bits, 16)
        box = self._rows, self._columns
        above, below = (alpha_of(frame, bits)[box].astype(np.uint32) for frame in (real, new))
        alpha = alpha_of(new, bits).copy()
        alpha[box] = _mixed(below, above, self._weights)
        self._mix(new, real, _colour_weights(self._weights, above, below))
        set_alpha(new, alpha, bits)

    def _mix(self, new: VideoFrame, real: VideoFrame, weights: NDArray[np.uint32] | None) -> None:
        """Mixes all samples; with the weights of the mask if none are given."""
        for target, source in zip(sample_views(new), sample_views(real), strict=True):
            rows = slice(self._rows.start // target.rows, -(-self._rows.stop // target.rows))
            columns = slice(
                self._columns.start // target.columns, -(-self._columns.stop // target.columns)
            )
            if weights is None:
                share = (target.rows, target.columns)
                if share not in self._shared:
                    self._shared[share] = _block_means(self._weights, *share)
                plane = self._shared[share]
            else:
                plane = _block_means(weights, target.rows, target.columns)
            part = target.samples[rows, columns]
            part[:] = _mixed(
                part.astype(np.uint32),
                source.samples[rows, columns].astype(np.uint32),
                plane[..., None],
            )


def _decoded(path: Path) -> VideoFrame:
    """The image of a file.

    Raises:
        VideoError: If there is none.
    """
    reader = ImageReader([path], Fraction(1))
    try:
        return reader.decode(next(reader.packets()))[0]
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{path} cannot be read as a mask ({reason(error)}): give a PNG or JPEG image"
        ) from error


def _weights_of(image: VideoFrame) -> NDArray[np.uint8]:
    """The opacity of an image with transparent pixels, otherwise its brightness."""
    opacity = alpha_of(image, 8)
    if (opacity < 255).any():
        return np.array(opacity, np.uint8)
    colour = rgb_from_frame(image, 8).astype(np.uint16)
    brightness: NDArray[np.uint8] = ((colour.sum(2) + 1) // 3).astype(np.uint8)
    return brightness


def _checked(given: object) -> NDArray[np.uint8]:
    """The weights of an array.

    Raises:
        VideoError: If it is no array (H, W) of uint8 or bool.
    """
    if not isinstance(given, np.ndarray):
        raise VideoError(f"mask is {kind_of(given)}: give an image file, or an array (H, W)")
    if given.ndim != 2 or given.dtype not in (np.uint8, np.bool_):
        raise VideoError(
            f"mask is an array {given.shape} of {given.dtype}: give (H, W) of uint8 or bool"
        )
    return given.astype(np.uint8) * np.uint8(255 if given.dtype == np.bool_ else 1)


def _bounds(weights: NDArray[np.uint8], other: int) -> slice:
    """The range from the first to the last row or column in which a weight is not 0.

    It is widened to whole blocks of pixels that share chroma samples.

    Args:
        weights: (H, W).
        other: The axis across: 1 for the range of rows, 0 for that of columns.
    """
    places = np.flatnonzero(weights.max(other))
    start, stop = int(places[0]), int(places[-1]) + 1
    return slice(
        start // _BLOCK * _BLOCK, min(-(-stop // _BLOCK) * _BLOCK, weights.shape[1 - other])
    )


def _mixed(
    new: NDArray[np.uint32], real: NDArray[np.uint32], weights: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    """The mean of samples up to 65535, rounded to nearest; `_WHOLE` is the weight of `real`."""
    mean: NDArray[np.uint32] = (new * (_WHOLE - weights) + real * weights + _WHOLE // 2) // _WHOLE
    return mean


def _colour_weights(
    weights: NDArray[np.uint32], above: NDArray[np.uint32], below: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    """The weights for colour that is not multiplied by alpha: those of the mask times alpha.

    Args:
        weights: The weights of the mask.
        above: The alpha of the real frame.
        below: The alpha of the new frame.
    """
    real, new = weights.astype(np.float64) * above, (_WHOLE - weights).astype(np.float64) * below
    both = real + new
    share = np.divide(real, both, out=weights / _WHOLE, where=both > 0)
    of_real: NDArray[np.uint32] = np.rint(share * _WHOLE).astype(np.uint32)
    return of_real


def _block_means(weights: NDArray[np.uint32], rows: int, columns: int) -> NDArray[np.uint32]:
    """The means of blocks; those at the far edges may be smaller."""
    height, width = weights.shape
    padded = np.pad(weights, ((0, -height % rows), (0, -width % columns)), "edge")
    blocks = padded.reshape(-(-height // rows), rows, -(-width // columns), columns)
    count = rows * columns
    means: NDArray[np.uint32] = blocks.sum((1, 3), dtype=np.uint32)
    means += count // 2
    means //= count
    return means
