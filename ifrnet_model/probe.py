"""Finds out whether weights know any time step or the midpoint only, by trying."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ifrnet_model.checkpoint import TimeSteps
from ifrnet_model.model import IFRNet

_SIZE = (128, 192)
_MOTION = 8
"""Pixels between the two frames: far more than an error of interpolation, well within reach."""


def probe_time_steps(network: IFRNet) -> TimeSteps:
    """Moves a smooth pattern sideways and looks where the network puts it at t = 1/4 and 3/4.

    "arbitrary" where the pattern is nearer to its true place than to the middle at both; weights
    that ignore the time input put it in the middle, and so do those that cannot follow it.
    """
    generator = torch.Generator().manual_seed(0)
    height, width = _SIZE
    coarse = torch.rand(1, 3, height // 8, (width + _MOTION) // 8 + 2, generator=generator)
    pattern = F.interpolate(coarse, scale_factor=8.0, mode="bicubic").clamp(0, 1)

    def moved(by: int) -> Tensor:
        return pattern[..., by : by + width].contiguous()

    with torch.inference_mode():
        found = network(moved(0), moved(_MOTION), torch.tensor([0.25, 0.75]).view(2, 1, 1, 1))
    middle = moved(_MOTION // 2)
    follows = [
        F.mse_loss(frame[None], moved(int(_MOTION * t))) < F.mse_loss(frame[None], middle)
        for frame, t in zip(found, (0.25, 0.75), strict=True)
    ]
    return "arbitrary" if all(follows) else "midpoint"
