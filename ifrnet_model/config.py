"""Sizes of the three IFRNet variants: the one place where they differ.

Source: Kong et al., "IFRNet: Intermediate Feature Refine Network for Efficient Frame
Interpolation", CVPR 2022 (arXiv 2205.14620), section 3 and table 1.
"""

from __future__ import annotations

from dataclasses import dataclass

LEVELS = 4
"""Pyramid levels; every encoder level halves the frame."""

FLOW_CHANNELS = 4
"""Two flows of two channels: t -> 0 (x, y) and t -> 1 (x, y)."""

OUTPUT_CHANNELS = FLOW_CHANNELS + 1 + 3
"""The last decoder's channels: two flow residuals, the mask's logit, the RGB residual."""


@dataclass(frozen=True)
class IFRNetConfig:
    """Sizes of one variant; everything that is not a field is derived.

    Attributes:
        variant: Name of the variant.
        widths: Encoder channels of levels 1 to 4.
        side_channels: Number of channels of a residual block that pass two further convolutions.
        stem_kernel: Kernel size of the first convolution.
    """

    variant: str
    widths: tuple[int, int, int, int]
    side_channels: int
    stem_kernel: int = 3

    def decoder_channels(self, level: int) -> tuple[int, int, int]:
        """Input, hidden and output channels of the decoder at `level` (4, the coarsest, to 1)."""
        width = self.widths[level - 1]
        if level == LEVELS:
            inputs, hidden = 2 * width + 1, 2 * width  # both features and the time plane
        else:
            inputs, hidden = 3 * width + FLOW_CHANNELS, 3 * width  # ft, two warped features, flows
        outputs = OUTPUT_CHANNELS if level == 1 else self.widths[level - 2] + FLOW_CHANNELS
        return inputs, hidden, outputs


VARIANTS: dict[str, IFRNetConfig] = {
    config.variant: config
    for config in (
        IFRNetConfig("small", widths=(24, 36, 54, 72), side_channels=24),
        IFRNetConfig("base", widths=(32, 48, 72, 96), side_channels=32),
        IFRNetConfig("large", widths=(64, 96, 144, 192), side_channels=64, stem_kernel=7),
    )
}
"""The published variants by name."""


def divisor(flow_scale: float = 1.0) -> int:
    """The number that height and width must be multiples of at this flow scale.

    The scaled frame must halve four times and scale back to the same size: 16 at scale 1,
    20 at 0.8 (the authors' setting for SNU-FILM), 32 at 0.5.

    Raises:
        ValueError: If `flow_scale` is not in (0, 4], or no divisor up to 256 fits it.
    """
    if not 0.0 < flow_scale <= 4.0:
        raise ValueError(
            f"flow scale {flow_scale} is outside (0, 4]: use 1.0, or 0.5 for large motion"
        )
    for candidate in range(1, 257):
        scaled = candidate * flow_scale
        if abs(scaled - round(scaled)) < 1e-6 and round(scaled) % 2**LEVELS == 0:
            return candidate
    raise ValueError(
        f"flow scale {flow_scale} needs frames in multiples of more than 256 pixels: "
        "use a simple fraction such as 1.0, 0.8, 0.75 or 0.5"
    )
