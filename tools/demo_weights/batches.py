"""Makes training batches on the device from real and synthetic samples, with augmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from demo_weights.draws import Draws
from demo_weights.synthetic import SyntheticMotion
from demo_weights.triplets import Triplets

SYNTHETIC_SHARE = 0.3
"""Share of all samples that is synthetic."""


@dataclass(frozen=True)
class Samples:
    """Samples before augmentation.

    Attributes:
        frames: float32 (B, 3, 3, H, W) in [0, 1]: first, middle, last frame; RGB.
        t: float32 (B,) in (0, 1), the time of the middle frame.
        flow: float32 (B, 4, H, W), from the middle frame to the first and to the last, each x then
            y, in pixels; zero where it is unknown.
        known: float32 (B,), 1 for samples whose flow is known, else 0.
    """

    frames: Tensor
    t: Tensor
    flow: Tensor
    known: Tensor


@dataclass(frozen=True)
class Batch:
    """The input of one training step.

    Attributes:
        img0: First frames, float32 (B, 3, H, W) in [0, 1].
        img1: Last frames, like `img0`.
        imgt: Middle frames, like `img0`.
        t: Times of the middle frames, float32 (B, 1, 1, 1) in (0, 1).
        flow: Flow from the middle frames to the first and to the last, float32 (B, 4, H, W) in
            pixels; zero where it is unknown.
        known: float32 (B, 1, 1, 1), 1 for samples whose flow is known, else 0.
    """

    img0: Tensor
    img1: Tensor
    imgt: Tensor
    t: Tensor
    flow: Tensor
    known: Tensor


def synthetic_count(batch: int, step: int) -> int:
    """The number of synthetic samples in the batch of a step; the mean share is exact."""
    share = SYNTHETIC_SHARE * batch
    return math.floor(share * (step + 1)) - math.floor(share * step)


class BatchMaker:
    """Makes the batches of a training from random numbers."""

    def __init__(
        self, triplets: Triplets, synthetic: SyntheticMotion, batch: int, draws: Draws
    ) -> None:
        self.triplets, self.synthetic = triplets, synthetic
        self.batch, self.draws = batch, draws

    @torch.no_grad()
    def make(self, step: int) -> Batch:
        """Makes the batch of a step, counted from 0; it advances the random numbers."""
        synthetic = synthetic_count(self.batch, step)
        parts = []
        if synthetic < self.batch:
            count = self.batch - synthetic
            frames, t = self.triplets.draw(count, self.draws)
            unknown = frames.new_zeros(count, 4, *frames.shape[-2:])
            parts.append(Samples(frames, t, unknown, t.new_zeros(count)))
        if synthetic:
            frames, t, flow = self.synthetic.draw(synthetic, self.draws)
            parts.append(Samples(frames, t, flow, t.new_ones(synthetic)))
        samples = reversed_in_time(augmented(joined(parts), self.draws), self.draws)
        img0, imgt, img1 = (frame.contiguous() for frame in samples.frames.unbind(1))
        t, known = (value.view(-1, 1, 1, 1) for value in (samples.t, samples.known))
        return Batch(img0, img1, imgt, t, samples.flow, known)


def joined(parts: list[Samples]) -> Samples:
    """Concatenates samples along the batch axis."""
    return Samples(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Samples)))


def augmented(samples: Samples, draws: Draws) -> Samples:
    """Flips, transposes and permutes the colours of each sample at random, with its flow."""
    frames, flow = samples.frames, samples.flow
    count = len(frames)
    flip_x, flip_y, transpose = draws.chance(0.5, 3, count, 1, 1, 1)
    frames = torch.where(flip_x[..., None], frames.flip(-1), frames)
    x0, y0, x1, y1 = flow.unbind(1)
    flow = torch.where(flip_x, torch.stack((-x0, y0, -x1, y1), 1).flip(-1), flow)
    frames = torch.where(flip_y[..., None], frames.flip(-2), frames)
    x0, y0, x1, y1 = flow.unbind(1)
    flow = torch.where(flip_y, torch.stack((x0, -y0, x1, -y1), 1).flip(-2), flow)
    x0, y0, x1, y1 = flow.unbind(1)
    turned = torch.stack((y0, x0, y1, x1), 1).mT
    frames = torch.where(transpose[..., None], frames.mT, frames)
    flow = torch.where(transpose, turned, flow)
    colours = draws.uniform(count, 3).argsort(1).view(count, 1, 3, 1, 1)
    return Samples(frames.gather(2, colours.expand_as(frames)), samples.t, flow, samples.known)


def reversed_in_time(samples: Samples, draws: Draws) -> Samples:
    """Swaps first and last frame, flow and time of half of the samples at random."""
    swap = draws.chance(0.5, len(samples.t))
    wide = swap.view(-1, 1, 1, 1)
    return Samples(
        torch.where(wide[..., None], samples.frames.flip(1), samples.frames),
        torch.where(swap, 1 - samples.t, samples.t),
        torch.where(wide, samples.flow.roll(2, 1), samples.flow),
        samples.known,
    )
