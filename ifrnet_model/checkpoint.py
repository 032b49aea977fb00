"""Loads any published IFRNet checkpoint: the authors', mmagic's, safetensors.

Loading never runs code from the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from torch import Tensor

from ifrnet_model.checkpoint_file import CheckpointFile, read_checkpoint
from ifrnet_model.config import VARIANTS, IFRNetConfig
from ifrnet_model.errors import CheckpointError, shortened
from ifrnet_model.layers import WarpLowering
from ifrnet_model.model import IFRNet
from ifrnet_model.state_dict import STEM
from ifrnet_model.weights.table import Identity, TimeSteps, identify

__all__ = [
    "Checkpoint",
    "CheckpointFile",
    "checkpoint_from_file",
    "load_checkpoint",
    "read_checkpoint",
    "stated_time_steps",
]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        network: The network with its weights, float32, in inference mode.
        sha256: The SHA-256 of the file, 64 hexadecimal digits.
        time_steps: The time steps that the weights were trained for, from the metadata of the file
            or else the table of known checkpoints; None if neither states them.
        identity: The entry in the table of known checkpoints; None for other files.
        note: A sentence for the user if the file has averaged and ordinary weights; None if not.
    """

    network: IFRNet
    sha256: str
    time_steps: TimeSteps | None
    identity: Identity | None = None
    note: str | None = None


def load_checkpoint(path: str | Path, *, warp_lowering: WarpLowering = "gridsample") -> Checkpoint:
    """Loads a checkpoint; the shape of its first weight determines the variant.

    Args:
        path: A PyTorch or safetensors file of any float type, from the authors, from mmagic or from
            your own training. Dictionaries around the tensors and prefixes of their names are
            removed, and averaged weights are preferred (`state_dict.find_network`). "demo" is the
            checkpoint that is shipped with this package.
        warp_lowering: How the network computes a warp; the results differ by less than 1e-4.

    Raises:
        CheckpointError: If the file cannot be read, is of another kind, could run code, is
            damaged or of another network, or its hash is not that of the published file of its
            name.
    """
    return checkpoint_from_file(read_checkpoint(path), warp_lowering=warp_lowering)


def checkpoint_from_file(
    file: CheckpointFile, *, warp_lowering: WarpLowering = "gridsample"
) -> Checkpoint:
    """Builds the network and loads the tensors of `file` into it.

    Raises:
        CheckpointError: If names or shapes are not those of a variant, a type is not a float type
            that converts to float32, or a value is not finite in float32.
    """
    network = IFRNet(_find_variant(file.state, file.path), warp_lowering=warp_lowering)
    _check_keys(file.state, network.state_dict(), file.path)
    network.load_state_dict(_as_float32(file.state, file.path))
    identity = identify(
        file.path.name,
        sha256=file.sha256,
        variant=network.config.variant,
        metadata=file.metadata,
    )
    steps = stated_time_steps(file.metadata) or (identity.known.time_steps if identity else None)
    return Checkpoint(network.eval(), file.sha256, steps, identity, file.note)


def stated_time_steps(metadata: Mapping[str, str]) -> TimeSteps | None:
    """The time steps that the metadata of a .safetensors file states; None if it states none."""
    stated = metadata.get("timesteps")
    return stated if stated in get_args(TimeSteps) else None  # type: ignore[return-value]


def _find_variant(state: Mapping[str, Tensor], path: Path) -> IFRNetConfig:
    shape = tuple(state[STEM].shape)
    shapes = {(c.widths[0], 3, c.stem_kernel, c.stem_kernel): c for c in VARIANTS.values()}
    if shape not in shapes:
        known = ", ".join(f"{known} ({c.variant})" for known, c in shapes.items())
        raise CheckpointError(
            f"{path}: {STEM} has shape {shape}, not one of {known}: give a checkpoint of one of "
            "these variants"
        )
    return shapes[shape]


def _check_keys(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Checks names and shapes; one error names all tensors that are wrong.

    Raises:
        CheckpointError: If a tensor is missing, unexpected or of another shape.
    """
    problems = []
    if missing := sorted(expected.keys() - state.keys()):
        problems.append(f"{len(missing)} missing ({shortened(missing)})")
    if unexpected := sorted(state.keys() - expected.keys()):
        problems.append(f"{len(unexpected)} unexpected ({shortened(unexpected)})")
    misshapen = [
        f"{key}: {tuple(state[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if misshapen:
        problems.append(f"{len(misshapen)} of another shape ({shortened(misshapen)})")
    if problems:
        raise CheckpointError(
            f"{path} does not fit IFRNet, tensors {'; '.join(problems)}: give a checkpoint of the "
            "published IFRNet, small, base or large"
        )


def _as_float32(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Converts the tensors to float32.

    Raises:
        CheckpointError: If a type is not a float type that converts to float32, or a value is not
            finite in float32.
    """
    converted, not_float = {}, []
    for name, tensor in state.items():
        float32 = _float32_of(tensor)
        if float32 is None:
            not_float.append(name)
        else:
            converted[name] = float32
    if not_float:
        raise CheckpointError(
            f"{path} contains tensors that are not of a float type ({shortened(not_float)}): give "
            "the checkpoint before it was quantised"
        )
    if not_finite := [name for name, tensor in converted.items() if not tensor.isfinite().all()]:
        raise CheckpointError(
            f"{path} contains infinities or NaN ({shortened(not_finite)}): give a checkpoint from "
            "before the training diverged, or copy the file again if it is damaged"
        )
    return converted


def _float32_of(tensor: Tensor) -> Tensor | None:
    """The tensor in float32; None if its type is not a float type that PyTorch converts."""
    if not tensor.is_floating_point():
        return None
    try:
        return tensor.float()
    except RuntimeError:  # A packed type, as float4.
        return None
