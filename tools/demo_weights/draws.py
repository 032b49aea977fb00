"""Random numbers of the training, all from one generator on the device."""

from __future__ import annotations

import torch
from torch import Tensor


class Draws:
    """Random tensors; the same seed gives the same ones on the same type of device."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 in [low, high)."""
        drawn = torch.rand(shape, generator=self.generator, device=self.device)
        return low + (high - low) * drawn

    def normal(self, *shape: int, deviation: float = 1.0) -> Tensor:
        """float32 with mean 0."""
        drawn = torch.randn(shape, generator=self.generator, device=self.device)
        return deviation * drawn

    def below(self, bound: Tensor) -> Tensor:
        """int64 in 0 .. bound - 1, of the shape of `bound`, which is at least 1."""
        # Times the bound a float32 just below 1 may round up to it.
        return (self.uniform(*bound.shape) * bound).long().minimum(bound - 1)

    def chance(self, probability: float, *shape: int) -> Tensor:
        """bool, True with the probability."""
        return self.uniform(*shape) < probability
