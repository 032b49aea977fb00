"""The authors' formulation of IFRNet in plain PyTorch, written from the paper and its constants.

It has two encoder passes, eight warps with a grid from linspace, and channels written in place,
without optimisation. It is the reference of the tests and the baseline of the latency figures.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.environment import MeasurementError
from ifrnet_model import (
    VARIANTS,
    Checkpoint,
    CheckpointError,
    IFRNet,
    IFRNetConfig,
    load_checkpoint,
)

Weights = Mapping[str, Tensor]


def load_reference(weights: str) -> Checkpoint:
    """Loads the checkpoint that artefacts are compared with: a file, or "demo".

    Raises:
        MeasurementError: If it cannot be loaded.
    """
    try:
        return load_checkpoint(weights)
    except CheckpointError as error:
        raise MeasurementError(str(error)) from error


def random_network(variant: str) -> IFRNet:
    """A network with random weights from a fixed seed, scaled so that activations do not vanish.

    Flows and masks are far from zero. For uses that need no trained weights: measuring time,
    comparing graphs and programs.

    Args:
        variant: Name of the variant, a key of `ifrnet_model.VARIANTS`.
    """
    generator = torch.Generator().manual_seed(0)
    network = IFRNet(VARIANTS[variant])
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                fan = parameter[0].numel() if "convblock.2" not in name else parameter[:, 0].numel()
                parameter.normal_(0, (2 / fan) ** 0.5, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1, generator=generator)
    return network.eval()


def authors_forward(
    weights: Weights,
    config: IFRNetConfig,
    img0: Tensor,
    img1: Tensor,
    timestep: Tensor,
    flow_scale: float = 1.0,
    *,
    grid: torch.dtype | None = None,
) -> Tensor:
    """Computes the new frames of N pairs, each at its own time step.

    Args:
        weights: State dict of an `IFRNet`.
        config: Channel numbers of the network.
        img0: First frames (N, 3, H, W) in [0, 1], of the type of the weights.
        img1: Second frames, like `img0`.
        timestep: (N, 1, 1, 1) in (0, 1), of the type of the weights.
        flow_scale: Scale of the frame on which motion is estimated, relative to the frame.
        grid: Dtype to which sampling grids are rounded; None: they stay in PyTorch's default dtype.

    Returns:
        New frames (N, 3, H, W) in [0, 1].
    """
    mean = torch.cat((img0, img1), 2).mean((1, 2, 3), keepdim=True)
    img0, img1 = img0 - mean, img1 - mean
    features0 = _encode(weights, _resize(img0, flow_scale))
    features1 = _encode(weights, _resize(img1, flow_scale))

    def decode(level: int, *inputs: Tensor) -> Tensor:
        return _decode(weights, f"decoder{level}.convblock", config.side_channels, inputs)

    f0, f1 = features0[3], features1[3]
    out = decode(4, f0, f1, timestep.repeat(1, 1, *f0.shape[-2:]))
    flow0, flow1, ft = out[:, 0:2], out[:, 2:4], out[:, 4:]
    for level in (3, 2, 1):
        f0, f1 = features0[level - 1], features1[level - 1]
        warped0, warped1 = warp_linspace(f0, flow0, grid), warp_linspace(f1, flow1, grid)
        out = decode(level, ft, warped0, warped1, flow0, flow1)
        flow0 = out[:, 0:2] + 2.0 * _resize(flow0, 2.0)
        flow1 = out[:, 2:4] + 2.0 * _resize(flow1, 2.0)
        ft = out[:, 4:]
    mask, colour = torch.sigmoid(ft[:, 0:1]), ft[:, 1:]

    up = 1.0 / flow_scale
    flow0, flow1 = _resize(flow0, up) * up, _resize(flow1, up) * up
    mask, colour = _resize(mask, up), _resize(colour, up)
    warped0, warped1 = warp_linspace(img0, flow0, grid), warp_linspace(img1, flow1, grid)
    return torch.clamp(mask * warped0 + (1 - mask) * warped1 + mean + colour, 0, 1)


def warp_linspace(image: Tensor, flow: Tensor, grid_type: torch.dtype | None = None) -> Tensor:
    """Backward warp with a grid from linspace, as in the published code.

    The grid is created on the device of the flow. The published code creates it on the host and
    copies it to the device at every warp; that cost is left out here.

    Args:
        image: (N, C, H, W).
        flow: (N, 2, H, W), x then y, in pixels.
        grid_type: Dtype to which the grid is rounded; None: it stays in PyTorch's default dtype.
    """
    batch, _, height, width = flow.shape
    x = torch.linspace(-1.0, 1.0, width, device=flow.device)
    y = torch.linspace(-1.0, 1.0, height, device=flow.device)
    x = x.view(1, 1, 1, width).expand(batch, -1, height, -1)
    y = y.view(1, 1, height, 1).expand(batch, -1, -1, width)
    shift = torch.cat(
        (flow[:, 0:1] / ((width - 1.0) / 2.0), flow[:, 1:2] / ((height - 1.0) / 2.0)), 1
    )
    still = torch.cat((x, y), 1)
    if grid_type is not None:
        still = still.to(grid_type)
    grid = (still + shift).permute(0, 2, 3, 1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _resize(x: Tensor, scale: float) -> Tensor:
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


def _conv_prelu(weights: Weights, name: str, x: Tensor, *, stride: int = 1) -> Tensor:
    kernel = weights[f"{name}.0.weight"]
    padding = kernel.shape[-1] // 2
    x = F.conv2d(x, kernel, weights[f"{name}.0.bias"], stride=stride, padding=padding)
    return F.prelu(x, weights[f"{name}.1.weight"])


def _encode(weights: Weights, x: Tensor) -> list[Tensor]:
    features = []
    for level in (1, 2, 3, 4):
        x = _conv_prelu(weights, f"encoder.pyramid{level}.0", x, stride=2)
        x = _conv_prelu(weights, f"encoder.pyramid{level}.1", x)
        features.append(x)
    return features


def _decode(weights: Weights, name: str, side: int, inputs: tuple[Tensor, ...]) -> Tensor:
    block = f"{name}.1"
    x = _conv_prelu(weights, f"{name}.0", torch.cat(inputs, 1))
    out = _conv_prelu(weights, f"{block}.conv1", x)
    out[:, -side:] = _conv_prelu(weights, f"{block}.conv2", out[:, -side:].clone())
    out = _conv_prelu(weights, f"{block}.conv3", out)
    out[:, -side:] = _conv_prelu(weights, f"{block}.conv4", out[:, -side:].clone())
    out = F.conv2d(out, weights[f"{block}.conv5.weight"], weights[f"{block}.conv5.bias"], padding=1)
    out = F.prelu(x + out, weights[f"{block}.prelu.weight"])
    return F.conv_transpose2d(
        out, weights[f"{name}.2.weight"], weights[f"{name}.2.bias"], stride=2, padding=1
    )
