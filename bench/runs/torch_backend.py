"""A PyTorch network as a `Backend` of the runtime, which calls it like an artefact."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.environment import MeasurementError
from bench.runs.authors import authors_forward
from bench.runs.torch_forms import Form
from ifrnet_model import Checkpoint, IFRNet, IFRNetConfig, divisor
from runtime import __version__
from runtime.backends.base import HostBackend
from runtime.errors import BackendError, first_line
from runtime.frames import padding
from runtime.model_info import IOKind, ModelInfo, Precision, TimeSteps

Forward = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""img0, img1 (N, 3, H, W), timestep (T, 1, 1, 1), flow scale -> imgt (max(N, T), 3, H, W)."""

Inputs = tuple[Tensor, Tensor, Tensor]
"""img0, img1 and timestep as `Forward` takes them."""


def _unchanged(inputs: Inputs) -> Inputs:
    return inputs


@dataclass(frozen=True)
class Computation:
    """The function that computes a network, and the conversion of its inputs.

    Attributes:
        forward: Computes the new frames.
        prepare: Converts float32 inputs to the dtype and memory format that `forward` expects.
    """

    forward: Forward
    prepare: Callable[[Inputs], Inputs] = _unchanged


class TorchBackend(HostBackend):
    """A network as a `Backend`, on a device of PyTorch.

    Padding, scaling and cropping of frames, and the mean with the result for flipped frames, are
    implemented here independently of the exported graph, so that comparing the two shows an error
    in either.

    Args:
        computation: The computation, or its forward function if inputs need no conversion.
        info: Metadata of the network.
        name: Name of the backend.
        device: PyTorch's name of the device.
    """

    def __init__(
        self,
        computation: Computation | Forward,
        info: ModelInfo,
        *,
        name: str,
        device: str = "cpu",
    ) -> None:
        self.name = name
        self.info = info
        self._computation: Computation | None = (
            computation if isinstance(computation, Computation) else Computation(computation)
        )
        self._device = torch.device(device)

    @property
    def computation(self) -> Computation:
        """The computation of the network.

        Raises:
            BackendError: If the backend is closed.
        """
        if self._computation is None:
            raise BackendError("the network is closed: open it again")
        return self._computation

    def run(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[Any]:
        """See `HostBackend.run`."""
        with torch.inference_mode():
            imgt = self._cropped(img0, img1, timestep)
            if self.info.tta:
                axes = self.info.layout.size_axes
                flipped0, flipped1 = (np.flip(image, axes).copy() for image in (img0, img1))
                flipped = self._cropped(flipped0, flipped1, timestep)
                imgt = (imgt + flipped.flip(2, 3)) / 2
            if self.info.io == "frames":
                imgt = (imgt * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
            frames: NDArray[Any] = imgt.cpu().numpy()
        return frames

    def float_image(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The result of a call before cropping and rounding, without the mean of `info.tta`.

        Args:
            img0: First frames, as `HostBackend.run` takes them.
            img1: Second frames, like `img0`.
            timestep: (T, 1, 1, 1) in (0, 1).

        Returns:
            float32 (B, 3, H', W') in [0, 1], with the height and width of the padded frames.
        """
        with torch.inference_mode():
            images: NDArray[np.float32] = self._float_image(img0, img1, timestep).cpu().numpy()
        return images

    def close(self) -> None:
        """See `Backend.close`."""
        self._computation = None

    def prepared(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> Inputs:
        """The inputs as tensors on the device: padded, scaled, converted by `prepare`."""
        computation = self.computation
        first, second, steps = (
            # PyTorch warns about read-only memory.
            torch.from_numpy(np.require(array, requirements="W")).to(self._device)
            for array in (img0, img1, timestep)
        )
        if self.info.io == "frames":
            first, second = self._planes(first), self._planes(second)
        return computation.prepare((first, second, steps))

    def _float_image(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> Tensor:
        inputs = self.prepared(img0, img1, timestep)
        return self.computation.forward(*inputs, self.info.flow_scale).float()

    def _cropped(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> Tensor:
        """The result without the padding of frames."""
        imgt = self._float_image(img0, img1, timestep)
        if self.info.io == "float":
            return imgt
        height, width = img0.shape[1:3]
        (top, _), (left, _) = self._padding(img0.shape[1:3])
        return imgt[:, :, top : top + height, left : left + width]

    def _planes(self, frames: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) -> float32 (N, 3, H', W') in [0, 1], padded to multiples."""
        (top, bottom), (left, right) = self._padding(frames.shape[1:3])
        scaled = frames.permute(0, 3, 1, 2).float() / 255
        if not (top or bottom or left or right):
            return scaled
        return F.pad(scaled, (left, right, top, bottom), mode="replicate")

    def _padding(self, size: tuple[int, ...]) -> list[tuple[int, int]]:
        return [padding(n, self.info.divisor) for n in size]


def computation_of(network: IFRNet, form: Form, device: str) -> Computation:
    """Prepares a network for computation in a form of `--compare`.

    Args:
        network: The network in float32 on the CPU; it is not changed.
        form: Formulation, precision, memory format and compiler.
        device: PyTorch's name of the device.
    """
    half = form.precision in ("half", "fp16")
    memory = torch.channels_last if form.channels_last else torch.contiguous_format
    if device != "cpu" or half or form.channels_last:
        network = copy.deepcopy(network)
        network.to(torch.device(device), torch.float16 if half else torch.float32)
        network.to(memory_format=memory)  # type: ignore[call-overload]  # missing in its types
    grid = torch.float16 if form.precision == "half" else None
    if form.module == "authors":
        forward = authors_loop(network, grid, compiled=form.compiled is not None)
    else:
        forward = our_forward(network)
    if form.precision == "autocast":
        forward = _autocast(forward, torch.device(device).type)
    if form.compiled is not None:
        forward = _compiled(forward, form)

    def prepare(inputs: Inputs) -> Inputs:
        # After model.half() frames are float16; IFRNet takes float32 frames with any weights.
        wanted = torch.float16 if form.precision == "half" else torch.float32
        img0, img1 = (image.to(wanted, memory_format=memory) for image in inputs[:2])
        return img0, img1, inputs[2].to(wanted)

    return Computation(forward, prepare)


def _autocast(forward: Forward, kind: str) -> Forward:
    """Runs under `torch.autocast`, which computes convolutions in float16."""

    def call(img0: Tensor, img1: Tensor, timestep: Tensor, flow_scale: float) -> Tensor:
        with torch.autocast(kind, torch.float16):
            return forward(img0, img1, timestep, flow_scale)

    return call


def _compiled(forward: Forward, form: Form) -> Forward:
    """Compiles with `torch.compile`, for static shapes."""
    mode = {} if form.compiled == "default" else {"mode": form.compiled}
    compiled = torch.compile(forward, dynamic=False, **mode)  # type: ignore[call-overload]

    def call(img0: Tensor, img1: Tensor, timestep: Tensor, flow_scale: float) -> Tensor:
        try:
            imgt: Tensor = compiled(img0, img1, timestep, flow_scale)
        except Exception as error:  # The compilers' exceptions share no other base.
            why = first_line(error)
            raise MeasurementError(
                f"torch.compile does not work ({why}): leave {form.name} out of --compare"
            ) from error
        return imgt

    return call


def reset_compiled() -> None:
    """Clears the cache of `torch.compile`, which silently stops compiling at the eighth size."""
    torch.compiler.reset()


def our_forward(network: IFRNet) -> Forward:
    """The forward function of `IFRNet`, which encodes a pair once for all its time steps."""

    def forward(img0: Tensor, img1: Tensor, timestep: Tensor, flow_scale: float) -> Tensor:
        imgt: Tensor = network(img0, img1, timestep, flow_scale)
        return imgt

    return forward


def authors_loop(
    network: IFRNet, grid: torch.dtype | None = None, *, compiled: bool = False
) -> Forward:
    """The authors' formulation, which computes the time steps of a pair one after the other.

    Args:
        network: Network whose weights are used.
        grid: Dtype to which sampling grids are rounded; None: no rounding.
        compiled: Whether the function will be compiled. Weights are then buffers of a module,
            which compilers treat as constants.
    """
    state = network.state_dict()
    one = (
        _Authors(state, network.config, grid)
        if compiled
        else functools.partial(authors_forward, state, network.config, grid=grid)
    )

    def forward(img0: Tensor, img1: Tensor, timestep: Tensor, flow_scale: float) -> Tensor:
        if len(img0) == len(timestep):
            imgt: Tensor = one(img0, img1, timestep, flow_scale)
            return imgt
        return torch.cat([one(img0, img1, step[None], flow_scale) for step in timestep])

    return forward


class _Authors(nn.Module):
    """`authors_forward` as a module whose buffers are the weights."""

    def __init__(
        self, weights: dict[str, Tensor], config: IFRNetConfig, grid: torch.dtype | None
    ) -> None:
        super().__init__()
        # Names of buffers must not contain dots.
        self.names = {name: name.replace(".", "_") for name in weights}
        self.config, self.grid = config, grid
        for name, tensor in weights.items():
            self.register_buffer(self.names[name], tensor)

    def forward(self, img0: Tensor, img1: Tensor, timestep: Tensor, flow_scale: float) -> Tensor:
        """See `authors_forward`."""
        weights = {name: getattr(self, buffer) for name, buffer in self.names.items()}
        return authors_forward(
            weights, self.config, img0, img1, timestep, flow_scale, grid=self.grid
        )


def reference_info(
    checkpoint: Checkpoint,
    time_steps: TimeSteps,
    *,
    io: IOKind,
    flow_scale: float = 1.0,
    steps_per_call: int = 1,
    precision: Precision = "fp32",
    tta: bool = False,
) -> ModelInfo:
    """Metadata of a network in PyTorch, as an artefact would have them; any frame size.

    Args:
        checkpoint: The checkpoint of the weights.
        time_steps: Whether the weights support arbitrary time steps or the midpoint only.
        io: Input and output: "frames", uint8 (N, H, W, 3), or "float", float32 (N, 3, H, W).
        flow_scale: Scale of the frame on which motion is estimated, relative to the frame.
        steps_per_call: Number of time steps of a pair in one call.
        precision: Precision of the convolutions.
        tta: Whether the result is the mean with that of the flipped frames.
    """
    return ModelInfo(
        variant=checkpoint.network.config.variant,
        weights_sha256=checkpoint.sha256,
        precision=precision,
        io=io,
        divisor=divisor(flow_scale),
        flow_scale=flow_scale,
        time_steps=time_steps,
        steps_per_call=steps_per_call,
        pairs_per_call=1,
        height=None,
        width=None,
        warp="gridsample",
        tuned_for="any",
        tool_version=__version__,
        tta=tta,
    )
