"""PyTorch as runs of bench.latency: on the processor, in float32, called as an artefact is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bench.environment import MeasurementError
from bench.latency_runs import ArtefactRun, Case
from runtime.backends.base import Backend
from runtime.manifest import ModelInfo, TimeSteps

if TYPE_CHECKING:
    import torch

    from bench.torch_backend import Forward
    from ifrnet_model import Checkpoint

Formulation = Literal["torch", "authors", "compile"]
"""PyTorch eager with our module, with the authors' formulation, and torch.compile of ours."""

_TITLES: dict[Formulation, str] = {
    "torch": "PyTorch eager (torch)",
    "authors": "PyTorch eager (authors)",
    "compile": "PyTorch compiled (torch)",
}


@dataclass(frozen=True)
class PyTorchRun:
    """A checkpoint in PyTorch on the processor, float32.

    Attributes:
        formulation: What computes.
        weights: Where the checkpoint came from.
        checkpoint: The same, loaded.
        time_steps: What the weights know of the time between two frames.
        threads: Processors to use.
        artefacts_scale: Flow scale of the artefacts beside it, where all have the same.
    """

    formulation: Formulation
    weights: str
    checkpoint: Checkpoint
    time_steps: TimeSteps
    threads: int
    artefacts_scale: float | None = None
    kind: Literal["artefact", "pytorch"] = "pytorch"
    on_gpu: bool = False

    @property
    def name(self) -> str:
        """See `Run`."""
        return _TITLES[self.formulation]

    @property
    def variant(self) -> str:
        """See `Run`."""
        return self.checkpoint.network.config.variant

    def info(self, case: Case) -> ModelInfo:
        """See `Run`: all time steps at once where the weights and the formulation know how."""
        from bench.torch_backend import reference_info

        # The artefacts' flow scale, so that both do the same work; without any, the protocol's.
        scale = self.artefacts_scale or case.flow_scale or 1.0
        together = self.time_steps == "arbitrary" and self.formulation != "authors"
        return reference_info(
            self.checkpoint,
            self.time_steps,
            io="frames",
            flow_scale=scale,
            steps_per_call=case.factor - 1 if together else 1,
        )

    def open(self, case: Case) -> Backend:
        """See `Run`."""
        import torch

        from bench.torch_backend import TorchBackend

        torch.set_num_threads(self.threads)
        return TorchBackend(self._forward(), self.info(case), name=self.name)

    def record(self) -> None:
        """See `Run`."""

    def request(self, case: Case) -> dict[str, Any]:
        """See `Run`."""
        of_run = ("formulation", "weights", "time_steps", "threads", "artefacts_scale")
        return {
            "pytorch": {name: getattr(self, name) for name in of_run},
            "size": case.size,
            "factor": case.factor,
            "flow_scale": case.flow_scale,
        }

    def _forward(self) -> Forward:
        from bench.torch_backend import authors_loop, our_forward

        network = self.checkpoint.network
        if self.formulation == "authors":
            return authors_loop(network)
        ours = our_forward(network)
        return _compiled(ours) if self.formulation == "compile" else ours


def pytorch_runs(
    formulations: Sequence[Formulation],
    weights: str,
    *,
    threads: int,
    artefacts: Sequence[ArtefactRun] = (),
) -> list[PyTorchRun]:
    """A run for each formulation; the checkpoint is loaded once.

    Raises:
        MeasurementError: If it cannot be loaded.
    """
    from bench.reference import load_reference
    from ifrnet_model import probe_time_steps

    checkpoint = load_reference(weights)
    steps = checkpoint.time_steps or probe_time_steps(checkpoint.network)
    scales = {artefact.model.flow_scale for artefact in artefacts}
    scale = scales.pop() if len(scales) == 1 else None
    return [
        PyTorchRun(formulation, weights, checkpoint, steps, threads, scale)
        for formulation in dict.fromkeys(formulations)
    ]


def _compiled(forward: Forward) -> Forward:
    """`torch.compile` for the one size that comes, whatever was compiled before."""
    import torch

    torch.compiler.reset()
    compiled = torch.compile(forward, dynamic=False)

    def call(
        img0: torch.Tensor, img1: torch.Tensor, timestep: torch.Tensor, flow_scale: float
    ) -> torch.Tensor:
        try:
            return compiled(img0, img1, timestep, flow_scale)
        except Exception as error:  # The compilers' classes share no base but this one.
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise MeasurementError(
                f"torch.compile does not work here ({said}): leave compile out of --compare"
            ) from error

    return call
