"""Detects scene cuts, and frames that repeat the previous one.

The detector receives each frame once, in order, does not look ahead, and does not change frames.
"""

from __future__ import annotations

import csv
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

from runtime.errors import VideoError
from runtime.timesteps import as_float
from runtime.video.planes import alpha_of, bits_of, is_transparent, plane_views
from runtime.video.rates import as_seconds

CUT_THRESHOLD = 6.0
"""Percent of full scale. On eight real clips the score within a shot is at most 3.9, or 5.1 with
the clips played at two to eight times the speed; between frames of different clips it is 8.2 or
more."""

REPEAT_BLOCK = 8.0
"""Largest mean absolute difference of an 8x8 block in a repeat, in levels of 255.

On four real clips with each frame doubled, the blocks of repeats reach 4.6 after x264 at crf 18; at
crf 23, 19 in 20 repeats stay below 6.2; at crf 28 most are below the limit. Frames with motion have
10 and more, except for the slowest."""

REPEAT_MEAN = 0.75
"""Largest mean absolute difference of a plane in a repeat, in levels of 255.

At crf 23 repeats reach 0.64."""

_START = "Start Time (seconds)"
"""Column of PySceneDetect's list of scenes."""

_LONG_SIDE = 320
"""Pixels. Long side of the image in which cuts are detected: cheap, and noise averages out."""

_TINY_SIDE = 80
_TINY_BLOCK = 8
_REACH = 10
"""Range of the motion search between two frames, in pixels: an eighth of `_TINY_SIDE`."""

_BLOCK = 8
_SLAB = 8 * _BLOCK
_PLANAR = re.compile(r"(yuvj?4\d\dp|gray)(9|10|12|14|16)?(le)?")
"""Formats with one sample of whole bytes in each array element; others are converted."""


class SceneFlags(NamedTuple):
    """How a frame differs from the previous one.

    Attributes:
        cut: Whether a new scene begins with this frame: no frame is interpolated between the two.
        repeat: Whether it is equal to the previous one, up to coding noise.
        score: 0 to 100, percent of full scale, the unit of FFmpeg's scdet; a score at or above the
            threshold is a cut. Below the threshold it may be an upper bound.
    """

    cut: bool
    repeat: bool
    score: float


def check_threshold(threshold: float | None) -> None:
    """Checks the smallest score of a cut; None, for no cuts, is valid.

    Raises:
        VideoError: If it is out of range.
    """
    if threshold is not None and not 0 < threshold <= 100:
        raise VideoError(
            f"the cut threshold is {as_float(threshold):g}: give one above 0 and up to 100"
        )


def read_cut_list(path: Path) -> tuple[Fraction, ...]:
    """Reads the times of scene cuts, in seconds after the first frame of the video.

    Args:
        path: The CSV of PySceneDetect's `list-scenes`, or a text with one time in each line, in
            seconds as 90.5, or as a clock time as 1:30.5.

    Raises:
        VideoError: If the file cannot be read, or has something else.
    """
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise VideoError(f"{path} cannot be read as a list of cuts: give a text file") from error
    column = 0
    for number, row in enumerate(rows):
        if _START in row:
            # The first scene begins with the video, which is no cut.
            column, rows = row.index(_START), rows[number + 2 :]
            break
    times = []
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        try:
            times.append(as_seconds(row[column].strip()))
        except (VideoError, IndexError) as error:
            raise VideoError(
                f"{path} has the line {','.join(row)!r}: give the CSV of PySceneDetect's "
                "list-scenes, or a time in each line"
            ) from error
    return tuple(sorted(times))


class SceneDetector:
    """Detects cuts and repeats in the frames of one stream, in order.

    There is a cut where the luma, at about 320 pixels, changes much more than before and motion
    does not explain the change. The score is the smaller of two numbers, both in the unit of
    FFmpeg's scdet:

    - the mean absolute difference (scdet's `mafd`) minus the smaller of the two before it. scdet's
      own score compares with the last one alone, and counts a decrease as a change too: it misses
      the second cut of a flash, and finds a cut where fast motion stops. (The formula is repeated
      here as PyAV 17 does not return the results of scdet.)
    - the mean absolute difference after each block is moved to its best match. Without it the
      sudden start of a pan has the score of a cut.

    Frames with alpha are compared over black, as under transparent pixels colour is arbitrary.

    A flash of one frame is two cuts; a fade over ten frames or more is none. A change of size or
    pixel format is a cut.

    A frame is a repeat if its planes differ little from the last frame that was not one: on average
    (`REPEAT_MEAN`), and in each 8x8 block (`REPEAT_BLOCK`). So a small moving object is not missed,
    and slow motion adds up until it is detected.
    """

    def __init__(self, *, threshold: float | None = CUT_THRESHOLD, dedupe: bool = False) -> None:
        """Starts before the first frame.

        Args:
            threshold: Smallest score of a cut, above 0 and up to 100; None: cuts are not detected.
            dedupe: Whether repeats are detected.

        Raises:
            VideoError: If the threshold is out of range.
        """
        check_threshold(threshold)
        self._threshold = threshold
        self._dedupe = dedupe
        self._kind: tuple[int, int, str] | None = None
        self._scaler, self._alpha_scaler = VideoReformatter(), VideoReformatter()
        self._luma: NDArray[np.int16] | None = None
        self._mafds = 0.0, 0.0
        self._reference: list[NDArray[Any]] = []

    def flags(self, frame: VideoFrame) -> SceneFlags:
        """Compares the next frame with the ones before.

        With `dedupe` the detector keeps a reference to the frame: do not write to it.
        """
        kind = frame.width, frame.height, frame.format.name
        changed = kind != self._kind
        first = self._kind is None
        if changed:
            self._kind, self._luma, self._mafds, self._reference = kind, None, (0.0, 0.0), []
        repeat = self._dedupe and self._repeats(frame)
        if self._threshold is None:
            return SceneFlags(False, repeat, 0.0)
        score = self._score(frame, self._threshold)
        if changed and not first:
            score = 100.0
        return SceneFlags(score >= self._threshold, repeat, score)

    def _score(self, frame: VideoFrame, threshold: float) -> float:
        before, self._luma = self._luma, self._small(frame)
        if before is None:
            return 0.0
        mafd = _difference(before, self._luma)
        score = max(0.0, mafd - min(self._mafds))
        self._mafds = self._mafds[1], mafd
        if score >= threshold:
            score = min(score, _unexplained(_tiny(before), _tiny(self._luma)))
        return score

    def _small(self, frame: VideoFrame) -> NDArray[np.int16]:
        """The luma over black, scaled to a long side of `_LONG_SIDE`; coded values, 0 to 255."""
        luma = self._scaled(frame, self._scaler)
        if not is_transparent(frame):
            return luma
        alpha = VideoFrame.from_ndarray(np.ascontiguousarray(alpha_of(frame, 8)), format="gray")
        visible = luma * self._scaled(alpha, self._alpha_scaler).astype(np.int32) // 255
        return visible.astype(np.int16)

    @staticmethod
    def _scaled(frame: VideoFrame, scaler: VideoReformatter) -> NDArray[np.int16]:
        """The luma of a frame, scaled to a long side of at most `_LONG_SIDE`."""
        shrink = min(1.0, _LONG_SIDE / max(frame.width, frame.height))
        width, height = (max(1, round(side * shrink)) for side in (frame.width, frame.height))
        small = scaler.reformat(
            frame,
            width,
            height,
            "gray",
            src_color_range=ColorRange.JPEG,  # The same range on both sides keeps coded values.
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.AREA,
        )
        return plane_views(small)[0].astype(np.int16)

    def _repeats(self, frame: VideoFrame) -> bool:
        planes, peak = planes_of(frame)
        if self._reference and all(
            _alike(before, plane, peak)
            for before, plane in zip(self._reference, planes, strict=True)
        ):
            return True
        self._reference = planes
        return False


def _difference(before: NDArray[np.int16], after: NDArray[np.int16]) -> float:
    """The mean absolute difference (scdet's mafd), in percent of full scale."""
    return float(np.abs(after - before).mean()) * 100 / 256


def _tiny(luma: NDArray[np.int16]) -> NDArray[np.int16]:
    """Scales luma to a long side of about 80, but to at least one block in height and width."""
    k = max(1, min(round(max(luma.shape) / _TINY_SIDE), min(luma.shape) // _TINY_BLOCK))
    height, width = (side // k for side in luma.shape)
    means: Any = luma[: height * k, : width * k].reshape(height, k, width, k).mean((1, 3))
    tiny: NDArray[np.int16] = np.rint(means).astype(np.int16)
    return tiny


def _unexplained(before: NDArray[np.int16], after: NDArray[np.int16]) -> float:
    """Mean absolute difference, percent of full scale, with each block at its best match."""
    block = min(_TINY_BLOCK, *after.shape)
    reach = min(_REACH, max(after.shape) // 8)
    height, width = (side // block * block for side in after.shape)
    after = after[:height, :width]
    wide = np.pad(before, reach, mode="edge")
    best: Any = np.inf
    for top in range(2 * reach + 1):
        for left in range(2 * reach + 1):
            moved = wide[top : top + height, left : left + width]
            sums = np.abs(moved - after).reshape(height // block, block, width // block, block)
            best = np.minimum(best, sums.sum((1, 3)))
    difference: float = best.mean() / block**2 * 100 / 256
    return difference


def planes_of(frame: VideoFrame) -> tuple[list[NDArray[Any]], int]:
    """Planes of a frame as YUV or gray, then alpha if it has it, and their largest value.

    Planar formats without alpha are not copied.
    """
    if _PLANAR.fullmatch(frame.format.name):
        return plane_views(frame), (1 << bits_of(frame)) - 1
    planes = plane_views(frame.reformat(format="yuv444p"))
    return [*planes, alpha_of(frame, 8)] if is_transparent(frame) else planes, 255


def _alike(plane0: NDArray[Any], plane1: NDArray[Any], peak: int) -> bool:
    """Whether two planes differ by coding noise only."""
    unit = peak / 255
    height, width = plane0.shape
    widths = np.diff(np.arange(0, width, _BLOCK), append=width)
    left = REPEAT_MEAN * unit * plane0.size
    # A few rows of blocks at a time: they fit into the cache, and motion ends the loop early.
    whole = height // _BLOCK * _BLOCK
    slabs = [slice(top, min(top + _SLAB, whole)) for top in range(0, whole, _SLAB)]
    for slab in [*slabs, slice(whole, height)]:
        rows = min(_BLOCK, slab.stop - slab.start)
        if rows == 0:
            continue
        sums = _block_sums(plane0[slab], plane1[slab], rows)
        left -= int(sums.sum())
        if left < 0 or (sums > REPEAT_BLOCK * unit * rows * widths).any():
            return False
    return True


def _block_sums(plane0: NDArray[Any], plane1: NDArray[Any], rows: int) -> NDArray[np.uint32]:
    """Sums of absolute differences of blocks `rows` high; the last in a row may be narrower."""
    difference = np.maximum(plane0, plane1) - np.minimum(plane0, plane1)
    blocks = difference.reshape(-1, rows, difference.shape[1])
    columns = blocks[:, 0].astype(np.uint32)
    for row in range(1, rows):  # Several times faster than a sum over this axis.
        columns += blocks[:, row]
    starts = np.arange(0, difference.shape[1], _BLOCK)
    sums: NDArray[np.uint32] = np.add.reduceat(columns, starts, axis=1)
    return sums
