"""The forms in which PyTorch computes the network, by the names of `--compare`.

A name consists of a formulation and options: `authors:half:channels_last` is the authors'
formulation after `model.half()`, with tensors in channels_last. On a CPU all forms are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.environment import MeasurementError

Module = Literal["torch", "authors"]
"""The module of `ifrnet_model`, or the authors' formulation."""

TorchPrecision = Literal["fp32", "tf32", "half", "autocast", "fp16"]
"""fp32: float32 without TF32. tf32: float32 with TF32 in cuDNN. half: `model.half()`, with float16
sampling grids as in the published code. autocast: `torch.autocast`, float16 convolutions and
float32 grids. fp16: float16 convolutions with float32 islands, as in this project's artefacts."""

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
    """A form in which PyTorch computes the network.

    Attributes:
        name: Its name in `--compare`.
        module: The formulation.
        precision: The precision.
        channels_last: Whether weights and frames are in this memory format.
        compiled: Mode of `torch.compile`; None for eager execution.
    """

    name: str
    module: Module
    precision: TorchPrecision = "fp32"
    channels_last: bool = False
    compiled: Literal["default", "max-autotune"] | None = None

    @property
    def title(self) -> str:
        """Name for tables."""
        if self.compiled is None:
            return f"PyTorch eager ({self.name})"
        # Earlier evidence has this name.
        return f"PyTorch compiled ({'torch' if self.name == 'compile' else self.name})"

    @property
    def how(self) -> str:
        """Description for the evidence: formulation, precision, options."""
        parts = [_MODULES[self.module], _PRECISIONS[self.precision]]
        parts += ["channels_last"] if self.channels_last else []
        parts += [f"torch.compile, mode {self.compiled}"] if self.compiled else []
        return ", ".join(parts)


def _by_name(*forms: Form) -> dict[str, Form]:
    return {form.name: form for form in forms}


CPU_FORMS = _by_name(
    Form("torch", "torch"),
    Form("authors", "authors"),
    Form("compile", "torch", compiled="default"),
)


GPU_FORMS = CPU_FORMS | _by_name(
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
    """Checks names of `--compare`.

    Args:
        names: The names.
        on_gpu: Whether PyTorch runs on a GPU.

    Raises:
        MeasurementError: If a name is unknown or needs a GPU; the message lists the valid names.
    """
    possible = GPU_FORMS if on_gpu else CPU_FORMS
    for name in names:
        if name in possible:
            continue
        if name in GPU_FORMS:
            raise MeasurementError(
                f"--compare {name} needs a GPU: give --device cuda, or on a CPU use "
                f"{', '.join(possible)}"
            )
        where = "on a GPU" if on_gpu else "on a CPU"
        raise MeasurementError(
            f"--compare {name} is unknown: {where} use {', '.join(possible)}"
            f"{'' if on_gpu else '; with --device cuda there are more'}"
        )
