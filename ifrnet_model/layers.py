"""The building blocks of IFRNet (paper section 3.2, figure 3)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WarpLowering = Literal["gridsample", "gather"]
"""How a warp is computed: by one GridSample, or by elementary operations."""


def conv_prelu(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution that keeps (with stride 2: halves) the size, then a PReLU for each channel."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2),
        nn.PReLU(outputs),
    )


def upsample(x: Tensor) -> Tensor:
    """Doubles height and width of (B, C, H, W), bilinear, align_corners=False."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Resizes (B, C, H, W) to `height` x `width`, bilinear, align_corners=False.

    The size is given instead of a factor, because 48 rows times 1/0.75 are 63 when a float is
    rounded down.
    """
    if (height, width) == tuple(x.shape[-2:]):
        return x
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)


def warp(image: Tensor, flow: Tensor, lowering: WarpLowering = "gridsample") -> Tensor:
    """Backward warp: output(p) = image(p + flow(p)), bilinear, border pixels repeated outside.

    Coordinates are always float32: in float16 a coordinate near the right edge of a 1080p frame
    is off by up to half a pixel. Sampling is float32 too, because GridSample requires one type for
    image and grid. The result has the type of the image.

    Args:
        image: (B, C, H, W).
        flow: (B, 2, H, W), x then y, in pixels.
        lowering: "gridsample", or "gather" for runtimes that lack GridSample.

    Raises:
        ValueError: If `lowering` is unknown.
    """
    if lowering not in get_args(WarpLowering):
        raise ValueError(
            f"warp {lowering!r} is unknown: use one of {', '.join(get_args(WarpLowering))}"
        )
    sample = _gather_sample if lowering == "gather" else _grid_sample
    return sample(image.float(), flow.float()).to(image.dtype)


def _pixel_coordinates(plane: Tensor) -> tuple[Tensor, Tensor]:
    """X as (1, 1, 1, W) and y as (1, 1, H, 1) of a (B, C, H, W) plane, float32, in pixels.

    Vectors, because the two planes of a 4K frame would be 66 MB of constants. arange, because the
    exporter fixes the length of a linspace when it traces.
    """
    height, width = plane.shape[-2:]
    x = torch.arange(width, dtype=torch.float32, device=plane.device)
    y = torch.arange(height, dtype=torch.float32, device=plane.device)
    return x.view(1, 1, 1, -1), y.view(1, 1, -1, 1)


def _grid_sample(image: Tensor, flow: Tensor) -> Tensor:
    x, y = _pixel_coordinates(flow)
    # The coordinates of GridSample are -1 and 1 at the centres of the outermost pixels.
    to_grid_x, to_grid_y = 2 / x[..., -1:], 2 / y[..., -1:, :]
    # The vectors are added before the transpose, while x and y are separate planes, so that whole
    # rows are processed at a time and one transpose is enough.
    shift_x, shift_y = x * to_grid_x - 1, y * to_grid_y - 1
    shift_x = torch.cat((shift_x, torch.zeros_like(shift_x)), 1)
    shift_y = torch.cat((torch.zeros_like(shift_y), shift_y), 1)
    grid = flow * torch.cat((to_grid_x, to_grid_y), 1) + shift_x + shift_y
    return F.grid_sample(
        image, grid.permute(0, 2, 3, 1), mode="bilinear", padding_mode="border", align_corners=True
    )


def _gather_sample(image: Tensor, flow: Tensor) -> Tensor:
    (batch, channels, height, width), (x, y) = image.shape, _pixel_coordinates(flow)
    at_x = (flow[:, 0:1] + x).clamp(min=0).minimum(x[..., -1:])
    at_y = (flow[:, 1:2] + y).clamp(min=0).minimum(y[..., -1:, :])
    left, top = at_x.floor(), at_y.floor()
    right, bottom = (left + 1).minimum(x[..., -1:]), (top + 1).minimum(y[..., -1:, :])
    pixels = image.flatten(2)

    def corner(row: Tensor, column: Tensor) -> Tensor:
        # In integers: float32 represents the index of a pixel exactly only up to 16.7 million.
        index = (row.long() * width + column.long()).flatten(2)
        taken = pixels.gather(2, index.expand(-1, channels, -1))
        return taken.view(batch, channels, height, width)

    def mix(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
        return a + share * (b - a)

    share_x, share_y = at_x - left, at_y - top
    upper = mix(corner(top, left), corner(top, right), share_x)
    lower = mix(corner(bottom, left), corner(bottom, right), share_x)
    return mix(upper, lower, share_y)


class ResBlock(nn.Module):
    """Residual block whose last channels pass two further convolutions (figure 3c).

    The authors write those channels in place; split and concatenate is the same arithmetic
    and exports without a ScatterND.
    """

    def __init__(self, channels: int, side_channels: int) -> None:
        super().__init__()
        self.split = [channels - side_channels, side_channels]
        self.conv1 = conv_prelu(channels, channels)
        self.conv2 = conv_prelu(side_channels, side_channels)
        self.conv3 = conv_prelu(channels, channels)
        self.conv4 = conv_prelu(side_channels, side_channels)
        self.conv5 = nn.Conv2d(channels, channels, 3, padding=1)
        self.prelu = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        main, side = self.conv1(x).split(self.split, 1)
        main, side = self.conv3(torch.cat((main, self.conv2(side)), 1)).split(self.split, 1)
        out: Tensor = self.prelu(x + self.conv5(torch.cat((main, self.conv4(side)), 1)))
        return out
