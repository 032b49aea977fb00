"""The network with the flows of every level, and the loss of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from demo_weights.batches import Batch
from ifrnet_model import IFRNet
from ifrnet_model.config import FLOW_CHANNELS
from ifrnet_model.layers import resize, upsample, warp
from ifrnet_model.model import _side_by_side, _split_flow

CENSUS_WEIGHT = 0.1
FLOW_WEIGHT = 0.02

LOG_WEIGHT = 0.03
"""Weight of the logarithm of each sample's squared error, which determines a mean of PSNRs."""

BELOW_BLENDING_WEIGHT = 0.03
"""Weight of the excess of that logarithm over that of blending, so that no sample is worse."""

CENSUS_SOFTNESS = 0.81 * (1 / 255) ** 2 * 255
_WINDOW = 7


@dataclass(frozen=True)
class Losses:
    """The losses of a batch, each a float32 scalar.

    Attributes:
        total: The loss that is minimised.
        squared_error: Mean squared error of the middle frames, for the log.
    """

    total: Tensor
    squared_error: Tensor


def interpolate(network: IFRNet, b: Batch, *, half: bool = False) -> tuple[Tensor, list[Tensor]]:
    """Computes `IFRNet.forward` without the clamp, and the flows of every level.

    Args:
        network: Its parameters are float32.
        b: The batch.
        half: Encoder and decoders run in bfloat16 (autocast); means, flows, warps and the blend
            are float32 in any case.

    Returns:
        The middle frames, float32 (B, 3, H, W), and the flows, float32 (B, 4, h, w), coarsest
        first.
    """
    height, width = b.img0.shape[-2:]
    images = torch.cat((b.img0, b.img1), 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    centred = (images - mean).reshape(-1, 3, height, width)
    with torch.autocast(b.img0.device.type, torch.bfloat16, enabled=half):
        centred = centred.contiguous(memory_format=torch.channels_last)
        f1, f2, f3, f4 = network.encoder(centred)
        steps = b.t.to(f4.dtype).expand(-1, 1, *f4.shape[-2:])
        flow, ft = _split_flow(network.decoder4(_side_by_side(f4), steps))
        flows = [flow]
        for decoder, feature in ((network.decoder3, f3), (network.decoder2, f2)):
            residual, ft = _split_flow(network._refine(decoder, feature, flow, ft))
            flow = residual + 2.0 * upsample(flow)
            flows.append(flow)
        out = network._refine(network.decoder1, f1, flow, ft).float()
    residual, logit, colour = torch.split(out, [FLOW_CHANNELS, 1, 3], 1)
    flow = residual + 2.0 * upsample(flow)
    flows.append(flow)
    warped0, warped1 = warp(b.img0, flow[:, :2]), warp(b.img1, flow[:, 2:])
    mask = torch.sigmoid(logit)
    return mask * warped0 + (1 - mask) * warped1 + colour, flows


def charbonnier(error: Tensor) -> Tensor:
    """Charbonnier loss: the mean of a smooth absolute value."""
    return (error**2 + 1e-6).sqrt().mean()


def census_distance(made: Tensor, true: Tensor) -> Tensor:
    """Mean soft Hamming distance of the censuses of two batches of images.

    The census of a pixel are the soft signs d / sqrt(c + d^2) of the differences d of grey levels
    to its 7x7 neighbours (Meister et al., UnFlow); their distance is e^2 / (0.1 + e^2), where e is
    the difference of two signs.

    Args:
        made: (B, 3, H, W) in [0, 1].
        true: Like `made`; has no gradient.
    """
    distance: Tensor = _CensusDistance.apply(_grey(made), _grey(true))
    return distance


def _grey(images: Tensor) -> Tensor:
    return 0.299 * images[:, :1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:]


class _CensusDistance(torch.autograd.Function):
    """The census distance with its gradient in closed form.

    Autograd through 49 planes for each image would move more memory than the network in bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, made: Tensor, true: Tensor) -> Tensor:
        """Computes the scalar distance of grey images (B, 1, H, W), and its gradient."""
        difference = _differences(made)
        scale = difference.square().add_(CENSUS_SOFTNESS).rsqrt_()
        error = difference.mul_(scale)
        other = _differences(true)
        error -= other.mul_(other.square().add_(CENSUS_SOFTNESS).rsqrt_())
        inverse = error.square().add_(0.1).reciprocal_()
        distance = 1 - 0.1 * inverse.mean()
        # By the chain rule: 0.2 e / (0.1 + e^2)^2, times c / (c + d^2)^(3/2).
        slope = error.mul_(inverse).mul_(inverse).mul_(scale.pow_(3))
        slope *= 0.2 * CENSUS_SOFTNESS / slope.numel()
        neighbours = F.fold(slope.flatten(2), made.shape[-2:], _WINDOW, padding=_WINDOW // 2)
        ctx.save_for_backward(neighbours - slope.sum(1, keepdim=True))
        return distance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Scales the gradient that `forward` computed."""
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None


def _differences(grey: Tensor) -> Tensor:
    """Differences of each pixel's 7x7 neighbours to it: (B, 49, H, W); 0 outside the image."""
    patches = F.unfold(grey, _WINDOW, padding=_WINDOW // 2)
    return patches.view(len(grey), _WINDOW**2, *grey.shape[-2:]).sub_(grey)


def flow_distance(flows: list[Tensor], true: Tensor, known: Tensor) -> Tensor:
    """Sum over the levels of the mean flow error, in pixels of the level.

    Args:
        flows: (B, 4, h, w) of each level.
        true: (B, 4, H, W) in pixels.
        known: (B, 1, 1, 1), 1 where `true` is known; the mean is over all samples.
    """
    distance = true.new_zeros(())
    for flow in flows:
        size = flow.shape[-2:]
        at_level = resize(true, *size) / (true.shape[-1] // size[-1])
        distance = distance + (((flow - at_level) ** 2 + 1e-4).sqrt() * known).mean()
    return distance


def log_errors(error: Tensor, b: Batch) -> tuple[Tensor, Tensor]:
    """Means over the samples of the log squared error, and of its excess over that of blending."""
    squared = (error**2).mean((1, 2, 3))
    blended = ((1 - b.t) * b.img0 + b.t * b.img1 - b.imgt).square().mean((1, 2, 3))
    logarithm = torch.log(squared + 1e-6)
    return logarithm.mean(), F.relu(logarithm - torch.log(blended + 1e-6)).mean()


def losses_of(network: IFRNet, b: Batch, *, half: bool = False) -> Losses:
    """Computes the losses of a batch; with `half` encoder and decoders run in bfloat16."""
    made, flows = interpolate(network, b, half=half)
    error = made - b.imgt
    logarithm, below = log_errors(error, b)
    total = (
        charbonnier(error)
        + CENSUS_WEIGHT * census_distance(made, b.imgt)
        + FLOW_WEIGHT * flow_distance(flows, b.flow, b.known)
        + LOG_WEIGHT * logarithm
        + BELOW_BLENDING_WEIGHT * below
    )
    return Losses(total, (error.detach().clamp(-1, 1) ** 2).mean())
