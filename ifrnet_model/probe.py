"""Finds out whether weights know any time step or the midpoint only, by trying."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ifrnet_model.model import IFRNet
from ifrnet_model.weights.table import TimeSteps

_SIZE = (128, 192)
_MOTION = 8
"""Pixels between the two frames: far more than an error of interpolation, well within reach."""

_STEPS = (0.25, 0.5, 0.75)


class TriedStep(NamedTuple):
    """What became of the pattern at one time step; PSNR in dB.

    Attributes:
        t: The time step.
        true_db: The network's frame against the pattern at its true place.
        middle_db: The network's frame against the pattern in the middle.
        blend_db: Blending both frames, weights (1-t, t), against the pattern at its true place.
    """

    t: float
    true_db: float
    middle_db: float
    blend_db: float


@dataclass(frozen=True)
class TimeStepTrial:
    """A pattern that moves sideways, put at several time steps by a network.

    Attributes:
        motion_px: How far it moves between the two frames.
        steps: t = 1/4, 1/2, 3/4.
    """

    motion_px: int
    steps: tuple[TriedStep, ...]

    @property
    def time_steps(self) -> TimeSteps:
        """What the weights know.

        "arbitrary" where, at t = 1/4 and at 3/4, the pattern is nearer to its true place than to
        the middle, and than blending brings it; weights that ignore the time input put it in the
        middle, and those that cannot follow it do no better than blending.
        """
        off_middle = [step for step in self.steps if step.t != 0.5]
        follows = all(s.true_db > max(s.middle_db, s.blend_db) for s in off_middle)
        return "arbitrary" if follows else "midpoint"

    @property
    def follows_motion(self) -> bool:
        """Whether the weights do better than blending at t = 1/2, which all of them know."""
        return all(step.true_db > step.blend_db for step in self.steps if step.t == 0.5)


def probe_time_steps(network: IFRNet) -> TimeSteps:
    """What the weights know of the time between two frames; see `try_time_steps`."""
    return try_time_steps(network).time_steps


def try_time_steps(network: IFRNet) -> TimeStepTrial:
    """Moves a smooth pattern sideways and looks where the network puts it."""
    generator = torch.Generator().manual_seed(0)
    height, width = _SIZE
    coarse = torch.rand(1, 3, height // 8, (width + _MOTION) // 8 + 2, generator=generator)
    pattern = F.interpolate(coarse, scale_factor=8.0, mode="bicubic").clamp(0, 1)

    def moved(by: int) -> Tensor:
        return pattern[..., by : by + width].contiguous()

    frame0, frame1, middle = moved(0), moved(_MOTION), moved(_MOTION // 2)
    with torch.inference_mode():
        found = network(frame0, frame1, torch.tensor(_STEPS).view(-1, 1, 1, 1))
    tried = []
    for frame, t in zip(found.split(1), _STEPS, strict=True):
        true = moved(int(_MOTION * t))
        blend = torch.lerp(frame0, frame1, t)
        tried.append(TriedStep(t, _db(frame, true), _db(frame, middle), _db(blend, true)))
    return TimeStepTrial(_MOTION, tuple(tried))


def _db(image: Tensor, other: Tensor) -> float:
    """PSNR of two images in [0, 1]; at most 120 dB, so that it is a number always."""
    return float(-10 * torch.log10(F.mse_loss(image, other).clamp(min=1e-12)))
