"""PyTorch on the CPU or a GPU as a baseline of `bench.latency`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.records.latency import RunDetails
from bench.runs.agreement import agreement
from bench.runs.artefact import ArtefactRun, Kind, call_inputs
from bench.runs.case import Case
from bench.runs.frames import moving_frames
from bench.runs.torch_forms import GPU_FORMS, Form, check_names
from runtime.backends.base import Backend
from runtime.model_info import ModelInfo, TimeSteps

if TYPE_CHECKING:
    from bench.runs.torch_gpu import TorchGpu
    from ifrnet_model import Checkpoint


@dataclass(frozen=True)
class PyTorchRun:
    """A checkpoint computed by PyTorch.

    Attributes:
        formulation: Name of `--compare`, a key of `GPU_FORMS`.
        weights: Path of the checkpoint, or "demo".
        checkpoint: The loaded checkpoint.
        time_steps: Whether the weights support arbitrary time steps or the midpoint only.
        threads: Number of CPU threads, for a run on the CPU.
        artefacts_scale: Flow scale of the artefacts to compare with, None if they differ.
        gpu: The GPU that it runs on; None: the CPU.
        kind: Always "pytorch".
    """

    formulation: str
    weights: str
    checkpoint: Checkpoint
    time_steps: TimeSteps
    threads: int
    artefacts_scale: float | None = None
    gpu: TorchGpu | None = None
    kind: Kind = "pytorch"

    @property
    def form(self) -> Form:
        """Formulation, precision, memory format and compiler."""
        return GPU_FORMS[self.formulation]

    @property
    def on_gpu(self) -> bool:
        """See `Run`."""
        return self.gpu is not None

    @property
    def name(self) -> str:
        """See `Run`."""
        return self.form.title if self.gpu is None else f"{self.form.title} on {self.gpu.device}"

    @property
    def variant(self) -> str:
        """See `Run`."""
        return self.checkpoint.network.config.variant

    def info(self, case: Case) -> ModelInfo:
        """See `Run`; all time steps are one call if weights and formulation support it."""
        from bench.runs.torch_backend import reference_info

        # Same work as the artefacts: their flow scale, or else that of the protocol.
        scale = self.artefacts_scale or case.flow_scale or 1.0
        together = self.time_steps == "arbitrary" and self.form.module == "torch"
        return reference_info(
            self.checkpoint,
            self.time_steps,
            io="frames",
            flow_scale=scale,
            steps_per_call=case.factor - 1 if together else 1,
            precision="fp32" if self.form.precision in ("fp32", "tf32") else "fp16",
        )

    def open(self, case: Case) -> Backend:
        """See `Run`."""
        import torch

        from bench.runs.torch_backend import TorchBackend, computation_of

        network, info = self.checkpoint.network, self.info(case)
        if self.gpu is not None:
            from bench.runs.torch_gpu import open_on_gpu

            return open_on_gpu(network, self.form, self.gpu, info, name=self.name)
        torch.set_num_threads(self.threads)
        # Without `prepare`: on the CPU, inputs keep the dtype and memory format of the conversion.
        return TorchBackend(computation_of(network, self.form, "cpu").forward, info, name=self.name)

    def evidence(self, case: Case, backend: Backend) -> RunDetails:
        """See `Run`."""
        details: dict[str, Any] = {
            "name": self.formulation,
            "how": self.form.how,
            "weights": {"name": Path(self.weights).name, "sha256": self.checkpoint.sha256},
            "flow_scale": self.info(case).flow_scale,
        }
        if self.gpu is None:
            return {"artefact": None, "pytorch": details, "agreement": None}
        from bench.runs.torch_gpu import TorchGpuBackend, open_on_gpu

        assert isinstance(backend, TorchGpuBackend)
        inputs = call_inputs(backend.info, moving_frames(case.size))
        reference = open_on_gpu(
            self.checkpoint.network, GPU_FORMS["authors"], self.gpu, backend.info, name="reference"
        )
        return {
            "artefact": None,
            "pytorch": {**details, **self.gpu.record(), **backend.first_result},
            "agreement": agreement(
                reference.float_image(*inputs),
                backend.float_image(*inputs),
                "the authors' formulation in float32 without TF32 on the same GPU",
            ),
        }

    def request(self, case: Case) -> dict[str, Any] | None:
        """See `Run`."""
        if self.gpu is not None:
            return None  # Compiling may take minutes, and "seconds_to_first_result" is recorded.
        of_run = ("formulation", "weights", "time_steps", "threads", "artefacts_scale")
        return {
            "pytorch": {name: getattr(self, name) for name in of_run},
            "size": case.size,
            "factor": case.factor,
            "flow_scale": case.flow_scale,
        }


def pytorch_runs(
    formulations: Sequence[str],
    weights: str,
    *,
    threads: int,
    artefacts: Sequence[ArtefactRun] = (),
    gpu: TorchGpu | None = None,
) -> list[PyTorchRun]:
    """One run for each name of `--compare`; the checkpoint is loaded once.

    Args:
        formulations: Names of `--compare`; repeated ones are measured once.
        weights: A checkpoint, or "demo".
        threads: Number of CPU threads.
        artefacts: Artefacts to compare with; the runs take their flow scale if it is the same.
        gpu: The GPU to run on; None: the CPU.

    Raises:
        MeasurementError: If a name is unknown or needs a GPU, or the checkpoint cannot be loaded.
    """
    check_names(formulations, on_gpu=gpu is not None)
    from bench.runs.authors import load_reference
    from ifrnet_model import probe_time_steps

    checkpoint = load_reference(weights)
    steps = checkpoint.time_steps or probe_time_steps(checkpoint.network)
    scales = {artefact.model.flow_scale for artefact in artefacts}
    scale = scales.pop() if len(scales) == 1 else None
    return [
        PyTorchRun(formulation, weights, checkpoint, steps, threads, scale, gpu)
        for formulation in dict.fromkeys(formulations)
    ]


def stop_compilers() -> None:
    """Ends the worker processes in which `torch.compile` still compiles for a run that failed."""
    module = sys.modules.get("torch._inductor.async_compile")
    # The function is private to PyTorch; if it is missing, the workers end after their work.
    if module is not None and hasattr(module, "shutdown_compile_workers"):
        module.shutdown_compile_workers()
