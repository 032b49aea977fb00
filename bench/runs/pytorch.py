"""PyTorch as runs of bench.latency, called as an artefact is: on the processor, or on a GPU.

A name of `--compare` says what computes and how: `authors:half:channels_last` is the authors'
formulation after `model.half()`, with tensors in channels_last. On a processor there is float32
alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.environment import MeasurementError
from bench.quality.metrics import agreement
from bench.runs.artefact import (
    ArtefactRun,
    Case,
    Kind,
    call_inputs,
    moving_frames,
)
from runtime.backends.base import Backend
from runtime.manifest import ModelInfo, TimeSteps

if TYPE_CHECKING:
    from bench.runs.torch_gpu import TorchGpu
    from ifrnet_model import Checkpoint

Module = Literal["torch", "authors"]
"""Our module, or the authors' formulation."""

TorchPrecision = Literal["fp32", "tf32", "half", "autocast", "fp16"]
"""fp32: no TF32 either. half: `model.half()`, sampling grids in float16 as the published code makes
them. autocast: `torch.autocast`, float16 convolutions and float32 grids. fp16: float16
convolutions with float32 islands, as our artefacts."""

_MODULES: dict[Module, str] = {"torch": "our module", "authors": "the authors' formulation"}
_PRECISIONS: dict[TorchPrecision, str] = {
    "fp32": "float32 without TF32",
    "tf32": "float32 with TF32 in cuDNN, which is PyTorch's default",
    "half": "model.half(), sampling grids in float16 as the published code makes them",
    "autocast": "torch.autocast: float16 convolutions, float32 sampling grids",
    "fp16": "float16 convolutions, float32 islands",
}


@dataclass(frozen=True)
class Form:
    """How PyTorch computes a pair.

    Attributes:
        name: Of `--compare`.
        module: What computes.
        precision: In what.
        channels_last: Weights and frames are in that memory format.
        compiled: Mode of `torch.compile`; None: eager.
    """

    name: str
    module: Module
    precision: TorchPrecision = "fp32"
    channels_last: bool = False
    compiled: Literal["default", "max-autotune"] | None = None

    @property
    def title(self) -> str:
        """For tables."""
        if self.compiled is None:
            return f"PyTorch eager ({self.name})"
        # As it is called in evidence of earlier versions.
        return f"PyTorch compiled ({'torch' if self.name == 'compile' else self.name})"

    @property
    def how(self) -> str:
        """A sentence without a full stop, for the evidence."""
        said = [_MODULES[self.module], _PRECISIONS[self.precision]]
        said += ["channels_last"] if self.channels_last else []
        said += [f"torch.compile, mode {self.compiled}"] if self.compiled else []
        return ", ".join(said)


def _by_name(*forms: Form) -> dict[str, Form]:
    return {form.name: form for form in forms}


PROCESSOR_FORMS = _by_name(
    Form("torch", "torch"),
    Form("authors", "authors"),
    Form("compile", "torch", compiled="default"),
)
GPU_FORMS = PROCESSOR_FORMS | _by_name(
    Form("authors:tf32", "authors", "tf32"),
    Form("authors:half", "authors", "half"),
    Form("authors:half:channels_last", "authors", "half", channels_last=True),
    Form("authors:autocast", "authors", "autocast"),
    Form("authors:autocast:compile", "authors", "autocast", compiled="default"),
    Form("authors:autocast:compile-max", "authors", "autocast", compiled="max-autotune"),
    Form("torch:fp16", "torch", "fp16"),
    Form("torch:fp16:channels_last", "torch", "fp16", channels_last=True),
    Form("compile:fp16", "torch", "fp16", compiled="default"),
    Form("compile:fp16:channels_last", "torch", "fp16", True, "default"),
    Form("compile-max:fp16", "torch", "fp16", compiled="max-autotune"),
    Form("compile-max:fp16:channels_last", "torch", "fp16", True, "max-autotune"),
)


def check_names(names: Sequence[str], *, on_gpu: bool) -> None:
    """Refuses names of `--compare` that PyTorch cannot compute on the device.

    Raises:
        MeasurementError: If there is one; it lists what is possible.
    """
    possible = GPU_FORMS if on_gpu else PROCESSOR_FORMS
    for name in names:
        if name in possible:
            continue
        if name in GPU_FORMS:
            raise MeasurementError(
                f"--compare {name} needs a GPU: give --device cuda, or on a processor use "
                f"{', '.join(possible)}"
            )
        where = "on a GPU" if on_gpu else "on a processor"
        raise MeasurementError(
            f"--compare {name} is unknown: {where} use {', '.join(possible)}"
            f"{'' if on_gpu else '; with --device cuda there are more'}"
        )


@dataclass(frozen=True)
class PyTorchRun:
    """A checkpoint in PyTorch.

    Attributes:
        formulation: A name of `--compare`.
        weights: Where the checkpoint came from.
        checkpoint: The same, loaded.
        time_steps: What the weights know of the time between two frames.
        threads: Processors to use, where it computes there.
        artefacts_scale: Flow scale of the artefacts beside it, where all have the same.
        gpu: Where it computes; None: on the processor.
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
        """How it is computed."""
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
        """See `Run`: all time steps at once where the weights and the formulation know how."""
        from bench.runs.torch_backend import reference_info

        # The artefacts' flow scale, so that both do the same work; without any, the protocol's.
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
        # `prepare` is left out: frames go in as converting them left them in memory.
        return TorchBackend(computation_of(network, self.form, "cpu").forward, info, name=self.name)

    def evidence(self, case: Case, backend: Backend) -> dict[str, Any]:
        """See `Run`."""
        known: dict[str, Any] = {
            "name": self.formulation,
            "how": self.form.how,
            "weights": {"name": Path(self.weights).name, "sha256": self.checkpoint.sha256},
        }
        if self.gpu is None:
            return {"artefact": None, "pytorch": known, "agreement": None}
        from bench.runs.torch_gpu import TorchGpuBackend, open_on_gpu

        assert isinstance(backend, TorchGpuBackend)
        inputs = call_inputs(backend.info, moving_frames(case.size))
        reference = open_on_gpu(
            self.checkpoint.network, GPU_FORMS["authors"], self.gpu, backend.info, name="reference"
        )
        return {
            "artefact": None,
            "pytorch": {**known, **self.gpu.record(), **backend.first_result},
            "agreement": agreement(
                reference.picture(*inputs),
                backend.picture(*inputs),
                "the authors' formulation in float32 without TF32 on the same GPU",
            ),
        }

    def request(self, case: Case) -> dict[str, Any] | None:
        """See `Run`."""
        if self.gpu is not None:
            return None  # Its compiler may take minutes; "seconds_to_first_result" is known.
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
    """A run for each name of `--compare`; the checkpoint is loaded once.

    Raises:
        MeasurementError: If a name is not possible there, or the checkpoint cannot be loaded.
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
    """Ends the processes in which `torch.compile` still works for a run that was given up."""
    module = sys.modules.get("torch._inductor.async_compile")
    # The function is private to PyTorch. Without it they end when their work is done.
    if module is not None and hasattr(module, "shutdown_compile_workers"):
        module.shutdown_compile_workers()
