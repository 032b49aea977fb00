"""Training steps, the state of a training, and its files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from demo_weights.batches import Batch, BatchMaker
from demo_weights.budget import rate_at
from demo_weights.errors import TrainingError
from demo_weights.losses import Losses, losses_of
from ifrnet_model import IFRNet
from runtime.files import written_beside

AVERAGED_STEPS = 600
"""Approximate number of steps over which the saved weights are averaged."""

WEIGHT_DECAY = 1e-4
LARGEST_GRADIENT = 1.0
"""Norm to which the gradient of a step is clipped."""

STATE_FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """The settings that must not change between a run and the run that resumes it.

    Attributes:
        crop: Side of the samples in pixels.
        batch: Number of samples in a step.
        motion: Largest motion of the synthetic samples in pixels.
        rate: Peak of the learning rate.
        seed: Seed of all random numbers.
        precision: "bf16" or "float32".
        held_out: Names of the clips that are not trained on.
    """

    crop: int
    batch: int
    motion: float
    rate: float
    seed: int
    precision: str
    held_out: tuple[str, ...]

    def check_resumed(self, saved: dict[str, Any], path: Path) -> None:
        """Checks that a saved training had the same settings.

        Raises:
            TrainingError: If one differs.
        """
        for name, value in asdict(self).items():
            before = saved.get(name)
            if (list(value) if isinstance(value, tuple) else value) != before:
                raise TrainingError(
                    f"{path} was trained with {name} {before} and this run has {value}: resume "
                    "with the same options, or start without --resume from its weights"
                )


def initialise(network: IFRNet) -> None:
    """He initialisation; with PyTorch's default the deep features vanish and flow stays zero."""
    for name, parameter in network.named_parameters():
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter, a=0.25)
            if name.endswith(("conv5.weight", "convblock.2.weight")):
                parameter.data.mul_(0.2)


class Trainer:
    """The network, its average, the optimizer, and the number of steps done.

    Attributes:
        network: The network that is trained, float32, channels last.
        average: The mean of the network over about the last `AVERAGED_STEPS` steps.
        done: Number of steps done.
        summed: Number of steps since the last call of `take_means`.
    """

    def __init__(
        self,
        network: IFRNet,
        batches: BatchMaker,
        settings: Settings,
        *,
        device: torch.device,
        compiled: bool = False,
    ) -> None:
        self.settings, self.batches, self.device = settings, batches, device
        self.network = network.to(device).to(memory_format=torch.channels_last).train()
        self.average = copy.deepcopy(self.network).eval()
        self.parameters = list(self.network.parameters())
        self._means = list(self.average.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.rate, weight_decay=WEIGHT_DECAY, fused=True
        )
        self.done = 0
        self._losses: Callable[..., Losses] = torch.compile(losses_of) if compiled else losses_of
        self._sums = torch.zeros(2, device=device)
        self.summed = 0

    def batch(self) -> Batch:
        """Makes the batch of the next step."""
        return self.batches.make(self.done)

    def step(self, batch: Batch, total: int | None) -> None:
        """Does one step; does not wait for the GPU.

        Args:
            batch: The batch of this step.
            total: Number of steps of the whole training, for the learning rate; None if unknown.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.done, total, self.settings.rate)
        losses = self._losses(self.network, batch, half=self.settings.precision == "bf16")
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, LARGEST_GRADIENT)
        self.optimizer.step()
        self.done += 1
        share = 1 / min(AVERAGED_STEPS, self.done + 10)
        with torch.no_grad():
            torch._foreach_lerp_(self._means, self.parameters, share)
            self._sums += torch.stack((losses.total.detach(), losses.squared_error))
        self.summed += 1

    def check_finite(self) -> None:
        """Checks the losses since the last call of `take_means`; waits for the GPU.

        Raises:
            TrainingError: If one is not a finite number.
        """
        if not bool(self._sums.isfinite().all()):
            raise TrainingError(
                f"the loss is not a finite number before step {self.done}: lower --rate, and "
                "continue with --resume where there is a checkpoint"
            )

    def take_means(self) -> tuple[float, float]:
        """Mean loss and mean squared error since the last call; waits for the GPU.

        Raises:
            TrainingError: See `check_finite`.
        """
        self.check_finite()
        loss, error = (self._sums / max(1, self.summed)).tolist()
        self._sums.zero_()
        self.summed = 0
        return loss, error

    def state(self) -> dict[str, Any]:
        """The state on which the next step depends."""
        settings = asdict(self.settings)
        return {
            "format": STATE_FORMAT,
            "settings": {**settings, "held_out": list(self.settings.held_out)},
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.batches.draws.generator.get_state(),
            "step": self.done,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a state that `load_state` returned."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.draws.generator.set_state(state["generator"].cpu())
        self.done = state["step"]


def save_state(state: dict[str, Any], path: Path) -> None:
    """Writes a state to `path` atomically."""
    with written_beside(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Reads a state that `save_state` wrote; runs no code from the file.

    Raises:
        TrainingError: If the file is missing or not such a state.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        version = state["format"]
    except FileNotFoundError as error:
        raise TrainingError(
            f"--resume: {path} does not exist: start the training without --resume"
        ) from error
    except Exception as error:  # PyTorch raises many types for a damaged file.
        raise TrainingError(
            f"{path} is not a state of this tool ({type(error).__name__}): remove it and start "
            "without --resume"
        ) from error
    if version != STATE_FORMAT:
        raise TrainingError(
            f"{path} has format {version} and this tool reads {STATE_FORMAT}: resume it with the "
            "version of the tool that wrote it"
        )
    return state


def save_weights(network: IFRNet, path: Path) -> None:
    """Writes weights as float16 safetensors with the authors' parameter names, atomically."""
    tensors: dict[str, Tensor] = {
        name: tensor.half().contiguous().cpu() for name, tensor in network.state_dict().items()
    }
    metadata = {
        "format": "authors parameter names, float16",
        "timesteps": "arbitrary",
        "variant": network.config.variant,
    }
    with written_beside(path) as temporary:
        save_file(tensors, temporary, metadata)
