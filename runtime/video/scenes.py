"""Where a new scene begins, and which frames only repeat the one before.

Both are judged as frames come, each once and without looking ahead; the frames themselves are only
read.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

from runtime.errors import VideoError
from runtime.video.planes import bits_of, plane_views

CUT_THRESHOLD = 6.0
"""Percent of full scale. Measured on eight real clips: in one shot the score is 3.9 at most, at
two to eight times the speed 5.1; between frames of different clips it is 8.2 or more."""

REPEAT_BLOCK = 8.0
"""Most that an 8x8 block may change on average in a repeat, of 255. Measured on four real clips
with each frame doubled: after x264 at crf 18 repeats reach 4.6, at crf 23 19 in 20 of them 6.2, at
crf 28 most; frames that move have 10 and more, all but the slowest."""

REPEAT_MEAN = 0.75
"""Most that a plane may change on average in a repeat, of 255: 0.64 was the most at crf 23."""

_LONG_SIDE = 320
"""Of the picture that is looked at for cuts: cheap, and noise averages out."""

_TINY_SIDE = 80
_TINY_BLOCK = 8
_REACH = 10
"""Motion that is looked for: an eighth of the picture's long side between two frames."""

_BLOCK = 8
_SLAB = 8 * _BLOCK
_PLANAR = re.compile(r"(yuvj?4\d\dp|gray)(9|10|12|14|16)?(le)?")
"""Formats whose planes are arrays of whole samples; others are converted to one of them."""


class SceneFlags(NamedTuple):
    """What a frame is to the one before it.

    Attributes:
        cut: A new scene begins with this frame: nothing is to be made between the two.
        repeat: It shows the same picture, up to coding noise.
        score: 0 to 100, in scdet's unit, percent of full scale; a cut is at the threshold or
            above. Below the threshold it may be an upper bound.
    """

    cut: bool
    repeat: bool
    score: float


class SceneDetector:
    """Looks at the frames of one stream, in order.

    A cut is where the luma, at about 320 pixels, changes much more than it did before, and motion
    does not explain the change. The smaller of two numbers counts, both in the unit of
    libavfilter's scdet:

    - its `mafd`, the mean absolute difference, less the smaller of the last two. scdet's own score
      is like it, but compares with the last alone and calls a drop a change too: it misses the
      second cut of a flash, and sees one where fast motion stops. (PyAV 17 does not tell what scdet
      found, so its formula stands here.)
    - what is left of the difference after each block is moved to where it fits best. Without it
      the sudden start of a pan counts as much as many cuts do.

    A flash of one frame is two cuts. A fade over ten frames or more is none. Where size
    or pixel format change there is a cut.

    A repeat is a frame whose planes differ from the last frame that was no repeat by little on
    average (`REPEAT_MEAN`) and in each 8x8 block (`REPEAT_BLOCK`), so that a small thing that
    moves, and slow motion after some frames, are seen.
    """

    def __init__(self, *, threshold: float | None = CUT_THRESHOLD, dedupe: bool = False) -> None:
        """Starts before the first frame.

        Args:
            threshold: Score from which on there is a cut, above 0 and up to 100; lower finds
                more. None: cuts are not looked for.
            dedupe: Whether repeats are looked for.

        Raises:
            VideoError: If the threshold is out of range.
        """
        if threshold is not None and not 0 < threshold <= 100:
            raise VideoError(f"the cut threshold is {threshold:g}: it is above 0 and up to 100")
        self._threshold = threshold
        self._dedupe = dedupe
        self._kind: tuple[int, int, str] | None = None
        self._scaler = VideoReformatter()
        self._picture: NDArray[np.int16] | None = None
        self._mafds = 0.0, 0.0
        self._kept: list[NDArray[Any]] = []

    def flags(self, frame: VideoFrame) -> SceneFlags:
        """Judges the next frame; with `dedupe` it must not be written to before a later one."""
        kind = frame.width, frame.height, frame.format.name
        changed = kind != self._kind
        first = self._kind is None
        if changed:
            self._kind, self._picture, self._mafds, self._kept = kind, None, (0.0, 0.0), []
        repeat = self._dedupe and self._repeats(frame)
        if self._threshold is None:
            return SceneFlags(False, repeat, 0.0)
        score = self._score(frame, self._threshold)
        if changed and not first:
            score = 100.0
        return SceneFlags(score >= self._threshold, repeat, score)

    def _score(self, frame: VideoFrame, threshold: float) -> float:
        before, self._picture = self._picture, self._small(frame)
        if before is None:
            return 0.0
        mafd = _difference(before, self._picture)
        score = max(0.0, mafd - min(self._mafds))
        self._mafds = self._mafds[1], mafd
        if score >= threshold:
            score = min(score, _unexplained(_tiny(before), _tiny(self._picture)))
        return score

    def _small(self, frame: VideoFrame) -> NDArray[np.int16]:
        """The luma, at most `_LONG_SIDE` pixels long, in 8 bit as it is coded."""
        shrink = min(1.0, _LONG_SIDE / max(frame.width, frame.height))
        width, height = (max(1, round(side * shrink)) for side in (frame.width, frame.height))
        small = self._scaler.reformat(
            frame,
            width,
            height,
            "gray",
            src_color_range=ColorRange.JPEG,  # range to range: the numbers stay as they are
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.AREA,
        )
        return plane_views(small)[0].astype(np.int16)

    def _repeats(self, frame: VideoFrame) -> bool:
        planes, peak = planes_of(frame)
        if self._kept and all(
            _alike(kept, plane, peak) for kept, plane in zip(self._kept, planes, strict=True)
        ):
            return True
        self._kept = planes
        return False


def _difference(before: NDArray[np.int16], after: NDArray[np.int16]) -> float:
    """The mafd of scdet: the mean absolute difference, in percent of full scale."""
    return float(np.abs(after - before).mean()) * 100 / 256


def _tiny(luma: NDArray[np.int16]) -> NDArray[np.int16]:
    """The picture at about 80 pixels, but not less high or wide than a block where it can be."""
    k = max(1, min(round(max(luma.shape) / _TINY_SIDE), min(luma.shape) // _TINY_BLOCK))
    height, width = (side // k for side in luma.shape)
    means: Any = luma[: height * k, : width * k].reshape(height, k, width, k).mean((1, 3))
    tiny: NDArray[np.int16] = np.rint(means).astype(np.int16)
    return tiny


def _unexplained(before: NDArray[np.int16], after: NDArray[np.int16]) -> float:
    """Mean difference, in percent of full scale, after each block is moved to its best match."""
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
    """The planes of a frame, without a copy where its format is planar YUV; and full scale."""
    if not _PLANAR.fullmatch(frame.format.name):
        frame = frame.reformat(format="yuv444p")
    return plane_views(frame), (1 << bits_of(frame)) - 1


def _alike(plane0: NDArray[Any], plane1: NDArray[Any], peak: int) -> bool:
    """Whether two planes differ by coding noise only."""
    unit = peak / 255
    height, width = plane0.shape
    widths = np.diff(np.arange(0, width, _BLOCK), append=width)
    left = REPEAT_MEAN * unit * plane0.size
    # Some rows of blocks at a time: they stay in the cache, and most that moves is soon seen.
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
    """Sums of absolute differences over blocks `rows` high; the last in a row may be narrower."""
    difference = np.maximum(plane0, plane1) - np.minimum(plane0, plane1)
    blocks = difference.reshape(-1, rows, difference.shape[1])
    columns = blocks[:, 0].astype(np.uint32)
    for row in range(1, rows):  # several times faster than a sum over this axis
        columns += blocks[:, row]
    starts = np.arange(0, difference.shape[1], _BLOCK)
    sums: NDArray[np.uint32] = np.add.reduceat(columns, starts, axis=1)
    return sums
