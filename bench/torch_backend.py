"""PyTorch behind the runtime's own interface, so that it is called exactly as an artefact is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.reference import authors_forward
from ifrnet_model import Checkpoint, IFRNet, divisor
from runtime import __version__
from runtime.backends.base import HostBackend
from runtime.errors import BackendError
from runtime.frames import padding
from runtime.manifest import IOKind, ModelInfo, TimeSteps

Forward = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""img0, img1 (N, 3, H, W), timestep (T, 1, 1, 1), flow scale -> imgt (max(N, T), 3, H, W)."""


class TorchBackend(HostBackend):
    """A float32 network as a `Backend`: recursion, batches and rounding are then the runtime's.

    Padding, scaling and cropping of frames are written here once more and not taken from an
    exported graph: a mistake there must show.
    """

    def __init__(
        self, forward: Forward, info: ModelInfo, *, name: str, device: str = "cpu"
    ) -> None:
        self.name = name
        self.info = info
        self._forward: Forward | None = forward
        self._device = torch.device(device)

    def run(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[Any]:
        """See `HostBackend.run`."""
        if self._forward is None:
            raise BackendError("the network is closed: open it again")
        first, second, steps = (
            # PyTorch warns of memory that may not be written to.
            torch.from_numpy(np.require(array, requirements="W")).to(self._device)
            for array in (img0, img1, timestep)
        )
        with torch.inference_mode():
            if self.info.io == "frames":
                imgt = self._of_frames(self._forward, first, second, steps)
            else:
                imgt = self._forward(first, second, steps, self.info.flow_scale)
        made: NDArray[Any] = imgt.cpu().numpy()
        return made

    def close(self) -> None:
        """See `Backend.close`."""
        self._forward = None

    def _of_frames(self, forward: Forward, img0: Tensor, img1: Tensor, steps: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) -> uint8 (B, H, W, 3)."""
        height, width = img0.shape[1:3]
        (top, bottom), (left, right) = (padding(n, self.info.divisor) for n in (height, width))

        def planes(frames: Tensor) -> Tensor:
            scaled = frames.permute(0, 3, 1, 2).float() / 255
            if not (top or bottom or left or right):
                return scaled
            return F.pad(scaled, (left, right, top, bottom), mode="replicate")

        imgt = forward(planes(img0), planes(img1), steps, self.info.flow_scale)
        picture = imgt[:, :, top : top + height, left : left + width]
        return (picture * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def our_forward(network: IFRNet) -> Forward:
    """Our module: one pair is encoded once, however many time steps."""

    def forward(img0: Tensor, img1: Tensor, timestep: Tensor, flow_scale: float) -> Tensor:
        imgt: Tensor = network(img0, img1, timestep, flow_scale)
        return imgt

    return forward


def authors_loop(network: IFRNet) -> Forward:
    """The authors' formulation, which takes one time step at a time of a pair."""
    state = network.state_dict()

    def forward(img0: Tensor, img1: Tensor, timestep: Tensor, flow_scale: float) -> Tensor:
        if len(img0) == len(timestep):
            return authors_forward(state, network.config, img0, img1, timestep, flow_scale)
        made = [
            authors_forward(state, network.config, img0, img1, step[None], flow_scale)
            for step in timestep
        ]
        return torch.cat(made)

    return forward


def reference_info(
    checkpoint: Checkpoint,
    time_steps: TimeSteps,
    *,
    io: IOKind,
    flow_scale: float = 1.0,
    steps_per_call: int = 1,
) -> ModelInfo:
    """What a network in PyTorch says of itself where an artefact would: any size, float32.

    Args:
        checkpoint: Where its weights come from.
        time_steps: What they know of the time between two frames.
        io: "frames": uint8 (N, H, W, 3), "float": float32 (N, 3, H, W), as in an artefact.
        flow_scale: Relative size of the frame on which motion is estimated.
        steps_per_call: Time steps of a pair that are made at once.
    """
    return ModelInfo(
        variant=checkpoint.network.config.variant,
        weights_sha256=checkpoint.sha256,
        precision="fp32",
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
    )
