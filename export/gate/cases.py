"""What artefacts are compared on: generated frames that move, and real frames with known truth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.gate.compare import compare
from runtime.frames import to_planes
from runtime.model_info import ModelInfo


@dataclass(frozen=True)
class GateCase:
    """One comparison: a size, a motion between the two frames in pixels, time steps."""

    height: int
    width: int
    motion: float
    timesteps: tuple[float, ...]

    def frames(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The pair."""
        return moving_frames(self.height, self.width, self.motion)

    def __str__(self) -> str:
        return f"{self.height}x{self.width} with motion of {self.motion:.0f} px"

    def as_record(self) -> dict[str, object]:
        """For JSON."""
        return {"size": f"{self.height}x{self.width}", "motion_px": self.motion}


@dataclass(frozen=True, eq=False)
class GroundTruthCase:
    """One comparison on real frames between which the truth is known.

    Attributes:
        name: Where they are from.
        window: Consecutive frames (H, W, 3); all but the first and the last are the truth, at the
            first of the time steps.
        timesteps: As of `GateCase`.
    """

    name: str
    window: Sequence[NDArray[np.uint8]]
    timesteps: tuple[float, ...]

    def frames(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The pair."""
        return self.window[0], self.window[-1]

    def __str__(self) -> str:
        return f"{self._size} of {self.name}"

    def as_record(self) -> dict[str, object]:
        """For JSON."""
        return {"size": self._size, "motion_px": None, "frames": self.name}

    def loss_db(self, expected: NDArray[np.float32], made: NDArray[np.float32]) -> float:
        """By how much `made` is further from the truth than `expected`, both (B, 3, H', W')."""
        truth = np.concatenate([to_planes(frame, 1) for frame in self.window[1:-1]])
        height, width = truth.shape[-2:]
        top, left = ((n - m) // 2 for n, m in zip(made.shape[-2:], (height, width), strict=True))
        part = np.s_[: len(truth), :, top : top + height, left : left + width]
        # An image that is the truth would be infinitely better than any other.
        best, found = (min(compare(truth, planes[part])[0], 100.0) for planes in (expected, made))
        return best - found

    @property
    def _size(self) -> str:
        height, width, _ = self.window[0].shape
        return f"{height}x{width}"


def gate_cases(sizes: Iterable[tuple[int, int]], info: ModelInfo) -> list[GateCase]:
    """Small and large motion at each (height, width): 2 pixels, and a tenth of the longer side.

    That is 45 pixels at 448x256; at most 128, from 1280 pixels on. Weights that know any time
    step are tried off the middle too. Where the number of pairs is free the first case has one
    and the second as many as a call may have.
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


def spread_steps(count: int) -> tuple[float, ...]:
    """So many time steps, evenly inside (0, 1)."""
    return tuple(k / (count + 1) for k in range(1, count + 1))


def moving_frames(
    height: int, width: int, motion: float, *, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two frames of a generated scene: a textured ground and a textured box that pass each other.

    Args:
        height: Of the frames.
        width: Of the frames.
        motion: Pixels that the ground moves between the frames; the box moves as far against it.
        seed: Of the texture.

    Returns:
        Two uint8 frames (height, width, 3).
    """
    rng = np.random.default_rng(seed)
    margin = math.ceil(motion) + 1
    ground = _texture(height + 2 * margin, width + 2 * margin, rng)
    box_height, box_width = max(4, height // 3), max(4, width // 4)
    box = 255 - _texture(box_height, box_width, rng)
    step_x, step_y = round(motion * 0.45), round(motion * 0.2)  # half the way, to either side

    def frame(direction: int) -> NDArray[np.uint8]:
        top, left = margin + direction * step_y, margin + direction * step_x
        image = ground[top : top + height, left : left + width].copy()
        top = min(max(0, (height - box_height) // 2 + direction * step_y), height - box_height)
        left = min(max(0, (width - box_width) // 2 + direction * step_x), width - box_width)
        image[top : top + box_height, left : left + box_width] = box
        return np.rint(image).astype(np.uint8)

    return frame(-1), frame(1)


def _texture(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth noise in octaves, (height, width, 3) in 0..255: edges and detail at every scale."""
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
    """Linear along the first axis at fractional positions."""
    below = at.astype(np.int64)
    share = (at - below)[:, None, None]
    lower, upper = lattice[below], lattice[below + 1]
    blended: NDArray[np.float64] = lower + share * (upper - lower)
    return blended
