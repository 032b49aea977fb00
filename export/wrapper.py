"""The module that is exported. Its inputs and its output are those of `ModelInfo.ports`."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.errors import ExportError
from export.request import DEFAULT_SIZE, TracedPrecision
from ifrnet_model import IFRNet, divisor
from runtime.frames import MINIMUM_SIDE
from runtime.model_info import INPUTS, LAYOUTS, STACKED, ImageLayout, IOKind, Warp

MAXIMUM_STEPS = 64


@dataclass(frozen=True)
class ExportOptions:
    """The options of an exported graph, validated.

    Attributes:
        height: Height of the frames in pixels; if `dynamic`, only for tracing.
        width: Width of the frames in pixels; if `dynamic`, only for tracing.
        io: "float": float32 (N, 3, H, W) in [0, 1]; "frames": uint8 (N, H, W, 3); "stacked": one
            input float32 (1, 7, H, W), both frames in [0, 1] and the time step in every pixel.
        precision: "fp32", or "fp16" with coordinates, mean and blend in float32.
        flow_scale: Size of the frame on which motion is estimated, relative to the frame.
        timesteps: Time steps T of one pair in one call, 1 to 64.
        batch: Pairs N in one call, 1 to 64, each with its own time step; 1 if T > 1.
        max_batch: Maximum number of pairs in a call, 2 to 64, if that number is free; None if it
            is `batch`.
        dynamic: Whether height and width are free.
        warp: "gridsample", or "gather" for elementary operators.
        tta: Whether the graph returns the mean of two results, for the frames and for the frames
            flipped in both axes (test-time augmentation).

    Raises:
        ExportError: If a value is out of range or contradicts another.
    """

    height: int = DEFAULT_SIZE[0]
    width: int = DEFAULT_SIZE[1]
    io: IOKind = "frames"
    precision: TracedPrecision = "fp32"
    flow_scale: float = 1.0
    timesteps: int = 1
    batch: int = 1
    max_batch: int | None = None
    dynamic: bool = False
    warp: Warp = "gridsample"
    tta: bool = False

    def __post_init__(self) -> None:
        for name, kind in (("io", IOKind), ("precision", TracedPrecision), ("warp", Warp)):
            if getattr(self, name) not in get_args(kind):
                raise ExportError(
                    f"{name} {getattr(self, name)!r} is unknown: use {', '.join(get_args(kind))}"
                )
        if not 1 <= self.timesteps <= MAXIMUM_STEPS:
            raise ExportError(f"--steps-per-call is {self.timesteps}: use 1 to {MAXIMUM_STEPS}")
        if not 1 <= self.batch <= MAXIMUM_STEPS:
            raise ExportError(f"--batch is {self.batch}: use 1 to {MAXIMUM_STEPS}")
        if self.batch > 1 and self.timesteps > 1:
            raise ExportError(
                f"--batch {self.batch} was given with --steps-per-call {self.timesteps}: use only "
                "one of them"
            )
        if self.io == "stacked" and (self.batch > 1 or self.timesteps > 1 or self.max_batch):
            raise ExportError(
                "--io stacked was given with --batch, --max-batch or --steps-per-call: leave those "
                "out"
            )
        if self.max_batch is not None:
            if not 2 <= self.max_batch <= MAXIMUM_STEPS:
                raise ExportError(f"--max-batch is {self.max_batch}: use 2 to {MAXIMUM_STEPS}")
            if self.batch > 1 or self.timesteps > 1 or self.dynamic:
                raise ExportError(
                    "--max-batch was given with --batch, --steps-per-call or --dynamic: leave "
                    "those out"
                )
        if min(self.height, self.width) < MINIMUM_SIDE:
            raise ExportError(
                f"size {self.height}x{self.width} is below {MINIMUM_SIDE}x{MINIMUM_SIDE}: use a "
                "larger one"
            )
        multiple = self.divisor
        if self.io == "float" and (self.height % multiple or self.width % multiple):
            height, width = (-(-n // multiple) * multiple for n in (self.height, self.width))
            raise ExportError(
                f"size {self.height}x{self.width} is not a multiple of {multiple}: with "
                f"--io float use {height}x{width}, or use --io frames, which pads inside the graph"
            )

    @property
    def divisor(self) -> int:
        """The number that height and width inside the network are multiples of."""
        try:
            return divisor(self.flow_scale)
        except ValueError as error:
            raise ExportError(str(error)) from error

    @property
    def layout(self) -> ImageLayout:
        """Type and axes of the images img0, img1 and imgt."""
        return LAYOUTS[self.io]


class FloatIO(nn.Module):
    """The network itself: float32 (N, 3, H, W) in [0, 1]; H and W are multiples of the divisor."""

    def __init__(self, network: IFRNet, options: ExportOptions) -> None:
        super().__init__()
        self.network = network
        self.flow_scale = options.flow_scale
        self.tta = options.tta

    def forward(self, img0: Tensor, img1: Tensor, timestep: Tensor) -> Tensor:
        """Interpolates; inputs and output as of `IFRNet.forward`."""
        return self.unrounded(img0, img1, timestep)

    def unrounded(self, img0: Tensor, img1: Tensor, timestep: Tensor) -> Tensor:
        """The interpolated image before it is rounded to 8 bits: float32 (B, 3, H, W) in [0, 1]."""
        if self.tta:
            img0, img1, timestep = with_flipped(img0), with_flipped(img1), twice(timestep)
        imgt: Tensor = self.network(img0, img1, timestep, self.flow_scale)
        return mean_with_flipped(imgt) if self.tta else imgt


class PaddedIO(nn.Module):
    """The network for images of any size, which it pads in the graph (centred, border repeated).

    Subclasses have the inputs and the output of the graph.
    """

    def __init__(self, network: IFRNet, options: ExportOptions) -> None:
        super().__init__()
        self.network = network
        self.flow_scale = options.flow_scale
        self.divisor = options.divisor
        self.size_axes = options.layout.size_axes
        self.tta = options.tta

    def unrounded(self, img0: Tensor, img1: Tensor, timestep: Tensor) -> Tensor:
        """The interpolated image before it is rounded to 8 bits: float32 (B, 3, H, W) in [0, 1]."""
        height, width = (img0.shape[axis] for axis in self.size_axes)
        # No negative operand, because an exported division rounds towards zero.
        bottom, right = (
            (n + self.divisor - 1) // self.divisor * self.divisor - n for n in (height, width)
        )
        top, left = bottom // 2, right // 2
        pad = (left, right - left, top, bottom - top)

        def padded(image: Tensor) -> Tensor:
            image = self.scaled(image)
            if self.tta:
                # Before it is padded, so that both copies have the padding at the same sides.
                image = with_flipped(image)
            return F.pad(image, pad, mode="replicate") if _any(pad) else image

        if self.tta:
            timestep = twice(timestep)
        imgt = self.network(padded(img0), padded(img1), timestep, self.flow_scale)
        cropped: Tensor = imgt[:, :, top : top + height, left : left + width]
        return mean_with_flipped(cropped) if self.tta else cropped

    def scaled(self, images: Tensor) -> Tensor:
        """The images as float32 (N, 3, H, W) in [0, 1]; a subclass may convert them."""
        return images


class FrameIO(PaddedIO):
    """The network for uint8 frames (N, H, W, 3) of any size; converts and pads in the graph.

    The casts are the first and the last operation, because TensorRT supports uint8 only for inputs
    and outputs.
    """

    def scaled(self, images: Tensor) -> Tensor:
        """The images as float32 (N, 3, H, W) in [0, 1]."""
        return images.float().permute(0, 3, 1, 2) / 255

    def forward(self, img0: Tensor, img1: Tensor, timestep: Tensor) -> Tensor:
        """Pads (centred, border repeated), scales to [0, 1], interpolates, crops, rounds."""
        imgt = self.unrounded(img0, img1, timestep) * 255
        return imgt.round().permute(0, 2, 3, 1).to(torch.uint8)


class StackedIO(PaddedIO):
    """The network for one image that holds everything, as filters of video frameworks pass it."""

    def forward(self, planes: Tensor) -> Tensor:
        """Interpolates: float32 (1, 7, H, W) -> (1, 3, H, W).

        The channels are img0, img1, and the time step, of which the first pixel counts.
        """
        return self.unrounded(planes[:, :3], planes[:, 3:6], planes[:, 6:, :1, :1])


def with_flipped(images: Tensor) -> Tensor:
    """(N, 3, H, W) -> (2N, 3, H, W): each image, and after it the same flipped in both axes."""
    return torch.cat((images, images.flip(2, 3)), 1).reshape(-1, *images.shape[1:])


def twice(timestep: Tensor) -> Tensor:
    """(T, 1, 1, 1) -> (2T, 1, 1, 1): each time step twice, as `with_flipped` has the images."""
    return torch.cat((timestep, timestep), 1).reshape(-1, 1, 1, 1)


def mean_with_flipped(images: Tensor) -> Tensor:
    """(2N, 3, H, W) -> (N, 3, H, W): the mean of each image and the flipped one after it."""
    return (images[::2] + images[1::2].flip(2, 3)) * 0.5


def _any(pad: tuple[int | torch.SymInt, ...]) -> bool:
    """Whether a side is padded, or may be because its size is free."""
    return any(isinstance(amount, torch.SymInt) or amount for amount in pad)


def wrap(network: IFRNet, options: ExportOptions) -> FloatIO | PaddedIO:
    """The module to export, in inference mode; with "fp16" it has a float16 copy of `network`."""
    if options.precision == "fp16":
        network = copy.deepcopy(network).half()
    kinds: dict[IOKind, type[FloatIO | PaddedIO]] = {
        "float": FloatIO, "frames": FrameIO, "stacked": StackedIO
    }  # fmt: skip
    return kinds[options.io](network, options).eval()


def rounding_to_fp16(network: IFRNet) -> IFRNet:
    """A float32 copy that rounds weights, inputs and outputs of every layer to float16.

    It simulates hardware that stores float16 and accumulates in float32. PyTorch's own float16
    convolutions are a hundred times slower on most CPUs.
    """

    def rounded(tensor: Tensor) -> Tensor:
        return tensor.half().float()

    copied = copy.deepcopy(network)
    for module in copied.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.PReLU)):
            module.register_forward_pre_hook(lambda _, args: tuple(map(rounded, args)))
            module.register_forward_hook(lambda _, __, out: rounded(out))
            for parameter in module.parameters():
                parameter.data = rounded(parameter.data)
    return copied


def example_inputs(options: ExportOptions) -> dict[str, Tensor]:
    """Inputs with the shapes and types of the exported graph, by name and in order."""
    if options.io == "stacked":
        return {STACKED: torch.zeros(1, 7, options.height, options.width)}
    rows = max(options.timesteps, options.batch)
    steps = torch.arange(1, rows + 1) / (rows + 1)
    shape = options.layout.shape(options.batch, options.height, options.width)
    image = torch.zeros(shape, dtype=getattr(torch, options.layout.dtype))
    timestep = steps.float().view(-1, 1, 1, 1)
    return dict(zip(INPUTS, (image, image.clone(), timestep), strict=True))


def free_dimensions(options: ExportOptions) -> dict[str, dict[int, object]] | None:
    """The free dimensions of a dynamic export, by input, for `torch.export`; else None."""
    if not options.dynamic:
        return None
    if options.io != "float":
        size: tuple[object, object] = (
            torch.export.Dim("height", min=MINIMUM_SIDE, max=16384),
            torch.export.Dim("width", min=MINIMUM_SIDE, max=16384),
        )
    else:
        rows = torch.export.Dim("rows", min=1, max=1024)
        columns = torch.export.Dim("columns", min=1, max=1024)
        size = options.divisor * rows, options.divisor * columns
    free = dict(zip(options.layout.size_axes, size, strict=True))
    if options.io == "stacked":
        return {STACKED: free}
    return {"img0": free, "img1": dict(free), "timestep": {}}
