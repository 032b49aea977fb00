"""The frames that `bench.latency` times and compares: those of a data set, or frames that are made.

A time does not depend on what frames show, so that a data set need not be there. Whether an
artefact equals PyTorch does depend on it: frames that are made for this have motion.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.datasets import find
from bench.data.protocols import Protocol
from bench.data.samples import Sample
from bench.environment import MeasurementError

Size = tuple[int, int]
"""(height, width)."""
FramePair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Two frames, (H, W, 3) RGB."""

_SAMPLES = 4
"""Samples of a data set that are used: more would not change a time, and fill the memory at 4K."""


@dataclass(frozen=True)
class SampleFrames:
    """First and last frames of some samples of a data set, all of one size.

    Attributes:
        root_name: Name of the folder of the data set.
        names: Names of the samples.
        pairs: The first and the last frame of each sample.
    """

    root_name: str
    names: tuple[str, ...]
    pairs: tuple[FramePair, ...] = field(repr=False, compare=False)

    @property
    def size(self) -> Size:
        """(height, width) of the frames."""
        height, width = self.pairs[0][0].shape[:2]
        return height, width


def sample_frames(protocol: Protocol, root: Path) -> SampleFrames:
    """Reads frames of samples that are spread evenly over a data set.

    Frames are taken whole: the crop of a protocol and its reduced size belong to the comparison of
    quality, not to the use of a model.

    Args:
        protocol: Protocol of the data set.
        root: Folder of the data set.

    Raises:
        MeasurementError: If the data set is not there, a frame cannot be read, or frames have
            different sizes.
    """
    data_set = find(replace(protocol, crop=None, downscale=1), root)
    samples: list[Sample] = list(data_set.samples)
    count = min(_SAMPLES, len(samples))
    chosen = [samples[k * len(samples) // count] for k in range(count)]
    pairs = []
    for sample in chosen:
        frames = sample.read()
        pairs.append((frames.img0, frames.img1))
        if frames.img0.shape != pairs[0][0].shape:
            first, other = (f"{one.shape[0]}x{one.shape[1]}" for one in (pairs[0][0], frames.img0))
            raise MeasurementError(
                f"sample {chosen[0].name} of {root} has frames of {first} and sample "
                f"{sample.name} of {other}: give frames of one size, or copy the data set again"
            )
    return SampleFrames(root.resolve().name, tuple(s.name for s in chosen), tuple(pairs))


def noise_frames(size: Size) -> FramePair:
    """Two uint8 frames (H, W, 3) of noise, for timing: the time does not depend on the content.

    Args:
        size: (height, width) of the frames.
    """
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return frame, np.roll(frame, 4, axis=1)


def moving_frames(size: Size) -> FramePair:
    """Two uint8 frames (H, W, 3) of waves that move by up to 8 pixels, for comparing images.

    Frames of noise are unsuitable for that: they have no motion that a network could estimate.

    Args:
        size: (height, width) of the frames.
    """
    rng = np.random.default_rng(0)
    y, x = (axis.astype(np.float32) for axis in np.mgrid[: size[0], : size[1]])
    frames = [np.full((*size, 3), 127.5, np.float32) for _ in range(2)]
    for length in (97.0, 53.0, 31.0, 17.0, 9.0):
        angle, colour = rng.uniform(0, np.pi), rng.uniform(8, 24, 3)
        across = (x * np.cos(angle) + y * np.sin(angle)).astype(np.float32)
        for frame, shift in zip(frames, (0.0, rng.uniform(-8, 8)), strict=True):
            frame += np.sin((across + shift) * (2 * np.pi / length))[..., None] * colour
    first, second = (np.rint(frame.clip(0, 255)).astype(np.uint8) for frame in frames)
    return first, second
