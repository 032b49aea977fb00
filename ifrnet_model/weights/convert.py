"""Any published checkpoint -> safetensors with the authors' names, which says what it is."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ifrnet_model.checkpoint import (
    Checkpoint,
    CheckpointFile,
    checkpoint_from_file,
    load_checkpoint,
    read_checkpoint,
    stated_time_steps,
)
from ifrnet_model.errors import CheckpointError
from ifrnet_model.probe import probe_time_steps
from ifrnet_model.weights.table import DEMO_WEIGHTS, TimeSteps

StoredType = Literal["float32", "float16"]


class Conversion(NamedTuple):
    """A file that was written, loaded again and compared.

    Attributes:
        path: The file.
        sha256: Of the file.
        metadata: What it says of itself.
        largest_difference: Of any weight from the source's, read as float32; 0 in float32.
    """

    path: Path
    sha256: str
    metadata: dict[str, str]
    largest_difference: float


def convert_checkpoint(
    source: str | Path,
    target: str | Path,
    *,
    dtype: StoredType = "float32",
    time_steps: TimeSteps | None = None,
    force: bool = False,
) -> Conversion:
    """Writes a checkpoint as safetensors; loads it again and compares before it is kept.

    Args:
        source: See `load_checkpoint`.
        target: A .safetensors file.
        dtype: Of the tensors that are written.
        time_steps: What the weights know; by default what is stated or published of them, else
            what a trial shows.
        force: Replaces a file that is there.

    Raises:
        CheckpointError: If the source cannot be loaded or does not fit the type, or the target
            cannot be written, has a name that it cannot have, or is there already.
        ValueError: If an option is none of those named.
    """
    for option, given, allowed in (
        ("dtype", dtype, get_args(StoredType)),
        ("time_steps", time_steps, (*get_args(TimeSteps), None)),
    ):
        if given not in allowed:
            raise ValueError(f"{option} is {given!r}: use {' or '.join(map(repr, allowed))}")
    target = Path(target)
    _check_target(target, force=force)
    file = read_checkpoint(source)
    checkpoint = checkpoint_from_file(file)
    weights = checkpoint.network.state_dict()
    stored = {name: tensor.to(getattr(torch, dtype)) for name, tensor in weights.items()}
    if too_large := [name for name, tensor in stored.items() if not tensor.isfinite().all()]:
        raise CheckpointError(
            f"{file.path}: {too_large[0]} has values that {dtype} cannot hold: use float32"
        )
    metadata = _metadata(file, checkpoint, time_steps)
    # Called safetensors, for it is loaded under this name.
    beside = target.with_name(f".{target.stem}.{secrets.token_hex(8)}.partial.safetensors")
    try:
        save_file(stored, beside, metadata)
        again = load_checkpoint(beside)
        loaded = again.network.state_dict()
        if any(not torch.equal(loaded[name], tensor.float()) for name, tensor in stored.items()):
            raise CheckpointError(f"{target} does not load as it was written: check the disk")
        beside.replace(target)
    except SafetensorError as error:
        raise CheckpointError(
            f"{target} cannot be written ({error}): look at the disk and the folder"
        ) from error
    finally:
        beside.unlink(missing_ok=True)
    largest = max(float((loaded[name] - weights[name]).abs().max()) for name in weights)
    return Conversion(target, again.sha256, metadata, largest)


def _metadata(
    file: CheckpointFile, checkpoint: Checkpoint, time_steps: TimeSteps | None
) -> dict[str, str]:
    """What the new file says; a converted file that is converted again keeps its origin."""
    if time_steps:
        told_by = "user"
    elif stated_time_steps(file.metadata):
        told_by = file.metadata.get("timesteps_from", "source")
    else:
        told_by = "published" if checkpoint.identity else "trial"
    return {
        "format": "pt",
        "variant": checkpoint.network.config.variant,
        "timesteps": time_steps or checkpoint.time_steps or probe_time_steps(checkpoint.network),
        "timesteps_from": told_by,
        "source": file.metadata.get("source", file.path.name),
        "source_sha256": file.metadata.get("source_sha256", file.sha256),
    }


def _check_target(target: Path, *, force: bool) -> None:
    if target.suffix != ".safetensors":
        raise CheckpointError(f"{target} is to be a safetensors file: call it NAME.safetensors")
    if target.name.lower() == DEMO_WEIGHTS.name:
        raise CheckpointError(
            f"{target.name} promises the hash of the shipped file: choose another name"
        )
    if not target.parent.is_dir():
        raise CheckpointError(f"the folder {target.parent} is missing: make it first")
    if target.exists() and not force:
        raise CheckpointError(f"{target} is there already: replace it with --force")
