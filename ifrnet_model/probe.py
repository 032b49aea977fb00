"""Tests whether weights were trained for any time step or for the midpoint only."""

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
"""Motion between the two frames in pixels: far more than the error of an interpolation."""

_STEPS = (0.25, 0.5, 0.75)


class TrialStep(NamedTuple):
    """The result at one time step; PSNR in dB, at most 120.

    Attributes:
        t: The time step, inside (0, 1).
        true_db: The network's frame against the pattern at its true position.
        middle_db: The network's frame against the pattern at the midpoint.
        blend_db: A blend of both frames, weights (1-t, t), against the pattern at its true
            position.
    """

    t: float
    true_db: float
    middle_db: float
    blend_db: float


@dataclass(frozen=True)
class TimeStepTrial:
    """A pattern that moves sideways, interpolated at several time steps.

    Attributes:
        motion_px: Motion between the two frames in pixels.
        steps: The results at t = 1/4, 1/2, 3/4.
    """

    motion_px: int
    steps: tuple[TrialStep, ...]

    @property
    def time_steps(self) -> TimeSteps:
        """The time steps that the weights can interpolate, judged by the trial.

        "arbitrary" if at t = 1/4 and 3/4 the network's frame is closer to the true position than
        to the midpoint, and closer than a blend is. Weights that ignore the time input always give
        the midpoint, and those that cannot follow the motion are no better than a blend.
        """
        off_middle = [step for step in self.steps if step.t != 0.5]
        follows = all(s.true_db > max(s.middle_db, s.blend_db) for s in off_middle)
        return "arbitrary" if follows else "midpoint"

    @property
    def follows_motion(self) -> bool:
        """Whether the network is better than a blend at t = 1/2, as all trained weights are."""
        return all(step.true_db > step.blend_db for step in self.steps if step.t == 0.5)


def probe_time_steps(network: IFRNet) -> TimeSteps:
    """The time steps that the weights can interpolate, judged by `try_time_steps`."""
    return try_time_steps(network).time_steps


def try_time_steps(network: IFRNet) -> TimeStepTrial:
    """Interpolates a smooth pattern that moves sideways, and compares it with the truth."""
    generator = torch.Generator().manual_seed(0)
    height, width = _SIZE
    coarse = torch.rand(1, 3, height // 8, (width + _MOTION) // 8 + 2, generator=generator)
    pattern = F.interpolate(coarse, scale_factor=8.0, mode="bicubic").clamp(0, 1)

    def moved(by: int) -> Tensor:
        return pattern[..., by : by + width].contiguous()

    frame0, frame1, middle = moved(0), moved(_MOTION), moved(_MOTION // 2)
    with torch.inference_mode():
        interpolated = network(frame0, frame1, torch.tensor(_STEPS).view(-1, 1, 1, 1))
    steps = []
    for frame, t in zip(interpolated.split(1), _STEPS, strict=True):
        true = moved(int(_MOTION * t))
        blend = torch.lerp(frame0, frame1, t)
        steps.append(TrialStep(t, _psnr(frame, true), _psnr(frame, middle), _psnr(blend, true)))
    return TimeStepTrial(_MOTION, tuple(steps))


def _psnr(image: Tensor, other: Tensor) -> float:
    """PSNR of two images in [0, 1] in dB; at most 120, so that it is always finite."""
    return float(-10 * torch.log10(F.mse_loss(image, other).clamp(min=1e-12)))
