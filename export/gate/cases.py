"""The frames on which artefacts are compared: generated ones with motion, and real ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.gate.compare import compare
from runtime.frames import MINIMUM_SIDE, to_planes
from runtime.model_info import ModelInfo


@dataclass(frozen=True)
class GateCase:
    """A comparison on two generated frames.

    Attributes:
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        motion: Motion of the background between the frames in pixels.
        timesteps: Time steps inside (0, 1).
    """

    height: int
    width: int
    motion: float
    timesteps: tuple[float, ...]

    def frames(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The two frames, uint8 (H, W, 3)."""
        return moving_frames(self.height, self.width, self.motion)

    def __str__(self) -> str:
        return f"{self.height}x{self.width} with motion of {self.motion:.0f} px"

    def as_record(self) -> dict[str, object]:
        """The case as a dictionary for JSON."""
        return {"size": f"{self.height}x{self.width}", "motion_px": self.motion}


@dataclass(frozen=True, eq=False)
class GroundTruthCase:
    """A comparison on two real frames, between which the true frames are known.

    Attributes:
        name: Name of the frames, for messages.
        window: Consecutive uint8 frames (H, W, 3): the pair, and between them the true frames for
            the first of the time steps.
        timesteps: Time steps inside (0, 1).
    """

    name: str
    window: Sequence[NDArray[np.uint8]]
    timesteps: tuple[float, ...]

    def frames(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The two frames, uint8 (H, W, 3)."""
        return self.window[0], self.window[-1]

    def __str__(self) -> str:
        return f"{self._size} of {self.name}"

    def as_record(self) -> dict[str, object]:
        """The case as a dictionary for JSON."""
        return {"size": self._size, "motion_px": None, "frames": self.name}

    def loss_db(self, expected: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
        """PSNR to the true frames that `actual` loses against `expected`, in dB.

        Args:
            expected: Images of the reference, (B, 3, H', W') in [0, 1].
            actual: Images of the candidate, of the same shape.
        """
        truth = np.concatenate([to_planes(frame, 1) for frame in self.window[1:-1]])
        height, width = truth.shape[-2:]
        top, left = ((n - m) // 2 for n, m in zip(actual.shape[-2:], (height, width), strict=True))
        part = np.s_[: len(truth), :, top : top + height, left : left + width]
        # Limited, because the PSNR of an image equal to the truth is infinite.
        before, after = (
            min(compare(truth, planes[part])[0], 100.0) for planes in (expected, actual)
        )
        return before - after

    @property
    def _size(self) -> str:
        height, width, _ = self.window[0].shape
        return f"{height}x{width}"


def ground_truth_cases(
    windows: Sequence[Sequence[NDArray[np.uint8]]], source: str, info: ModelInfo
) -> list[GroundTruthCase]:
    """A case for each window of real frames.

    Args:
        windows: Windows as those of `GroundTruthCase`.
        source: Name of the clip that they are from.
        info: Description of the model.
    """
    evenly = spread_steps(info.steps_per_call) * info.pairs_per_call
    return [
        GroundTruthCase(f"{source}, window {number} of {len(windows)}", window, evenly)
        for number, window in enumerate(windows, 1)
    ]


def gate_cases(sizes: Iterable[tuple[int, int]], info: ModelInfo) -> list[GateCase]:
    """Two cases for each size: motion of 2 pixels, and of a tenth of the longer side up to 128.

    The second case has time steps off the midpoint if the weights were trained for any. If the
    number of pairs is free, the first case has one pair, the second the maximum.

    Args:
        sizes: (height, width) in pixels.
        info: Description of the model.
    """
    few, many = (
        spread_steps(info.frames_per_call),
        spread_steps(info.max_pairs or info.frames_per_call),
    )
    early = tuple(t / 2 for t in many) if info.time_steps == "arbitrary" else many
    return [
        case
        for height, width in sizes
        for case in (
            GateCase(height, width, 2.0, few),
            GateCase(height, width, min(128.0, max(height, width) / 10), early),
        )
    ]


def gate_sizes(info: ModelInfo, traced: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes (height, width) in pixels at which a model is compared.

    Args:
        info: Description of the model.
        traced: The size at which the graph was traced.

    Returns:
        The size of the model; if that is free, `traced`, and a smaller and a larger size.
    """
    if info.size is not None:
        return [info.size]
    multiple = info.divisor
    odd = 3 if info.io != "float" else 0  # The other kinds pad in the graph.
    smaller = [max(n // 2 // multiple * multiple - odd, MINIMUM_SIDE) for n in traced]
    if info.io == "float":
        smaller = [max(n, multiple) for n in smaller]
    larger = [n + n // 4 // multiple * multiple + 2 * multiple - odd for n in traced]
    return [traced, (smaller[0], smaller[1]), (larger[0], larger[1])]


def spread_steps(count: int) -> tuple[float, ...]:
    """`count` evenly spaced time steps inside (0, 1)."""
    return tuple(k / (count + 1) for k in range(1, count + 1))


def moving_frames(
    height: int, width: int, motion: float, *, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Generates two frames of a textured background and a box, which move in opposite directions.

    Args:
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        motion: Motion of the background between the frames in pixels; that of the box is equal.
        seed: Seed of the textures.

    Returns:
        Two uint8 frames (height, width, 3).
    """
    rng = np.random.default_rng(seed)
    margin = math.ceil(motion) + 1
    background = _texture(height + 2 * margin, width + 2 * margin, rng)
    box_height, box_width = max(4, height // 3), max(4, width // 4)
    box = 255 - _texture(box_height, box_width, rng)
    step_x, step_y = round(motion * 0.45), round(motion * 0.2)  # Half of the motion to either side.

    def frame(direction: int) -> NDArray[np.uint8]:
        top, left = margin + direction * step_y, margin + direction * step_x
        image = background[top : top + height, left : left + width].copy()
        top = min(max(0, (height - box_height) // 2 + direction * step_y), height - box_height)
        left = min(max(0, (width - box_width) // 2 + direction * step_x), width - box_width)
        image[top : top + box_height, left : left + box_width] = box
        return np.rint(image).astype(np.uint8)

    return frame(-1), frame(1)


def _texture(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise of several octaves, (height, width, 3) in [0, 255]: detail at every scale."""
    total = np.zeros((height, width, 3))
    for cell, weight in ((64, 8), (32, 6), (16, 4), (8, 3), (4, 2), (2, 1)):
        lattice = rng.random((height // cell + 2, width // cell + 2, 3)) - 0.5
        rows = _interpolate(lattice, np.arange(height) / cell)
        plane = _interpolate(rows.swapaxes(0, 1), np.arange(width) / cell).swapaxes(0, 1)
        total += weight * plane
    low, high = total.min(), total.max()
    stretched: NDArray[np.float64] = (total - low) / (high - low) * 255
    return stretched


def _interpolate(lattice: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolates linearly along the first axis at the fractional positions `at`."""
    below = at.astype(np.int64)
    share = (at - below)[:, None, None]
    lower, upper = lattice[below], lattice[below + 1]
    blended: NDArray[np.float64] = lower + share * (upper - lower)
    return blended
