"""IFRNet (section 3 and figure 2 of the paper): one encoder, four decoders, one blend.

Parameter names are those of the authors' checkpoints. Inference only.

The two frames of a pair are adjacent on the batch axis, (2N, C, H, W), so that one encoder pass and
one warp per level process both. Reshaped to (N, 2C, H, W), without a copy, they are the input of a
decoder. Convolutions run in the type of the weights; the mean of the pair, the flows, the warps and
the blend are always float32.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn

from ifrnet_model.config import FLOW_CHANNELS, IFRNetConfig, divisor
from ifrnet_model.layers import ResBlock, WarpLowering, conv_prelu, resize, upsample, warp


class Encoder(nn.Module):
    """Four levels of features; each halves the frame."""

    def __init__(self, config: IFRNetConfig) -> None:
        super().__init__()
        w1, w2, w3, w4 = config.widths
        self.pyramid1 = nn.Sequential(
            conv_prelu(3, w1, kernel=config.stem_kernel, stride=2), conv_prelu(w1, w1)
        )
        self.pyramid2 = nn.Sequential(conv_prelu(w1, w2, stride=2), conv_prelu(w2, w2))
        self.pyramid3 = nn.Sequential(conv_prelu(w2, w3, stride=2), conv_prelu(w3, w3))
        self.pyramid4 = nn.Sequential(conv_prelu(w3, w4, stride=2), conv_prelu(w4, w4))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, 3, H, W) -> (B, w1, H/2, W/2), (B, w2, H/4, W/4), ... H/8, ... H/16."""
        f1 = self.pyramid1(frames)
        f2 = self.pyramid2(f1)
        f3 = self.pyramid3(f2)
        f4 = self.pyramid4(f3)
        return f1, f2, f3, f4


class Decoder(nn.Module):
    """Refines flows and the intermediate feature together, and doubles their size."""

    def __init__(self, config: IFRNetConfig, level: int) -> None:
        super().__init__()
        inputs, hidden, outputs = config.decoder_channels(level)
        self.convblock = nn.Sequential(
            conv_prelu(inputs, hidden),
            ResBlock(hidden, config.side_channels),
            nn.ConvTranspose2d(hidden, outputs, 4, stride=2, padding=1),
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        """The parts of the decoder's input, each (B, *, h, w) -> (B, outputs, 2h, 2w)."""
        out: Tensor = self.convblock(torch.cat(inputs, 1))
        return out


class IFRNet(nn.Module):
    """Interpolates frames between two frames.

    Args:
        config: Sizes; one of `VARIANTS`.
        warp_lowering: How the graph computes a warp; the results differ by less than 1e-4.
    """

    def __init__(self, config: IFRNetConfig, *, warp_lowering: WarpLowering = "gridsample") -> None:
        super().__init__()
        self.config = config
        self.warp_lowering = warp_lowering
        self.encoder = Encoder(config)
        self.decoder4 = Decoder(config, 4)
        self.decoder3 = Decoder(config, 3)
        self.decoder2 = Decoder(config, 2)
        self.decoder1 = Decoder(config, 1)

    def forward(
        self, img0: Tensor, img1: Tensor, timestep: Tensor, flow_scale: float = 1.0
    ) -> Tensor:
        """Interpolates.

        Args:
            img0: First frames, float32 (N, 3, H, W), RGB in [0, 1]; H and W multiples of
                `divisor(flow_scale)`.
            img1: Second frames, like `img0`.
            timestep: Time steps, float32 (T, 1, 1, 1) in (0, 1). T = N: one step for each pair.
                T = k * N: k steps for each pair, which is encoded once; step t is of pair t mod N.
            flow_scale: Size of the frame on which motion is estimated, relative to the frame
                (the authors' `scale_factor`).

        Returns:
            imgt, float32 (T, 3, H, W), RGB in [0, 1].

        Raises:
            ValueError: If a shape or the flow scale does not fit.
        """
        _check_inputs(img0, img1, timestep, divisor(flow_scale))
        pairs, _, height, width = img0.shape
        batch = timestep.shape[0]
        dtype = next(self.parameters()).dtype

        images = torch.cat((img0, img1), 1)  # (N, 6, H, W)
        # The mean of the pair, over both frames, all channels and all pixels. It is computed axis
        # by axis: with a million float32 values added one after the other, as in ONNX Runtime's
        # ReduceMean, the fourth digit is wrong.
        mean = images.mean(3, keepdim=True).mean(2, keepdim=True).mean(1, keepdim=True)
        centred = (images - mean).reshape(-1, 3, height, width)
        scale = Fraction(flow_scale).limit_denominator(256)
        down = (size * scale.numerator // scale.denominator for size in (height, width))
        features = self.encoder(resize(centred, *down).to(dtype))
        if batch != pairs:
            features = tuple(f.repeat(batch // pairs, 1, 1, 1) for f in features)
            if pairs == 1:
                images = images.expand(batch, -1, -1, -1)  # No copy.
            else:
                images = images.repeat(batch // pairs, 1, 1, 1)
        f1, f2, f3, f4 = features

        steps = timestep.to(dtype).expand(-1, 1, *f4.shape[-2:])
        flow, ft = _split_flow(self.decoder4(_side_by_side(f4), steps))
        for decoder, feature in ((self.decoder3, f3), (self.decoder2, f2)):
            residual, ft = _split_flow(self._refine(decoder, feature, flow, ft))
            flow = residual + 2.0 * upsample(flow)
        out = self._refine(self.decoder1, f1, flow, ft).float()
        residual, logit, colour = torch.split(out, [FLOW_CHANNELS, 1, 3], 1)
        flow = residual + 2.0 * upsample(flow)
        mask = torch.sigmoid(logit)

        if scale != 1:
            flow, mask, colour = (resize(x, height, width) for x in (flow, mask, colour))
            flow = flow / float(scale)
        # The authors warp the centred frames and add the mean to the blend. The weights of a
        # warp and of the blend add up to one, so warping the frames themselves is equivalent.
        warped = self._warp_both(images.reshape(-1, 3, height, width), flow)
        warped0, warped1 = torch.split(warped, [3, 3], 1)
        imgt: Tensor = warped1 + mask * (warped0 - warped1) + colour
        return imgt.clamp(0.0, 1.0)

    def _refine(self, decoder: Decoder, feature: Tensor, flow: Tensor, ft: Tensor) -> Tensor:
        """One level: warps both features by the flows so far and decodes."""
        out: Tensor = decoder(ft, self._warp_both(feature, flow), flow.to(ft.dtype))
        return out

    def _warp_both(self, planes: Tensor, flow: Tensor) -> Tensor:
        """Warps (2B, C, H, W) by the two flows in (B, 4, H, W) -> (B, 2C, H, W)."""
        flows = flow.reshape(-1, 2, *flow.shape[-2:])
        return _side_by_side(warp(planes, flows, self.warp_lowering))


def _split_flow(out: Tensor) -> tuple[Tensor, Tensor]:
    """A decoder's output -> flows, float32 (B, 4, h, w), and the intermediate feature ft."""
    flow, ft = torch.split(out, [FLOW_CHANNELS, out.shape[1] - FLOW_CHANNELS], 1)
    return flow.float(), ft


def _side_by_side(planes: Tensor) -> Tensor:
    """(2B, C, H, W), pairs on the batch axis -> (B, 2C, H, W), pairs on the channel axis."""
    _, channels, height, width = planes.shape
    return planes.reshape(-1, 2 * channels, height, width)


def _check_inputs(img0: Tensor, img1: Tensor, timestep: Tensor, multiple: int) -> None:
    if img0.ndim != 4 or img0.shape[1] != 3 or img0.shape != img1.shape:
        raise ValueError(
            f"img0 is {tuple(img0.shape)} and img1 {tuple(img1.shape)}: "
            "both must be of the same shape (N, 3, H, W)"
        )
    if timestep.ndim != 4 or timestep.shape[1:] != (1, 1, 1):
        raise ValueError(f"timestep is {tuple(timestep.shape)}: it must be (T, 1, 1, 1)")
    if timestep.shape[0] % img0.shape[0]:
        raise ValueError(
            f"{img0.shape[0]} pairs came with {timestep.shape[0]} time steps: "
            "give one step for each pair, or the same number for all"
        )
    height, width = img0.shape[-2:]
    if height % multiple or width % multiple:
        raise ValueError(
            f"frames are {height}x{width}: height and width must be multiples of {multiple}; "
            "pad them by repeating the border, the same on both sides"
        )
