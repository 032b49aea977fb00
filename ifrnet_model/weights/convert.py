"""Converts a checkpoint to safetensors with metadata, or to a .pth file as the authors publish.

Both have the authors' parameter names.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
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


_SUFFIXES = (".safetensors", ".pth")


class Conversion(NamedTuple):
    """A file that was written, loaded again and compared.

    Attributes:
        path: The file.
        sha256: Its SHA-256, 64 hexadecimal digits.
        metadata: Its metadata; of a .pth file, which has none, what they would be.
        largest_difference: Largest absolute difference of a weight from the source; 0 for float32.
        names: Dictionaries and prefixes around the tensors in the source, as text; None if there
            were none.
        note: A sentence for the user if the source has averaged and ordinary weights; else None.
    """

    path: Path
    sha256: str
    metadata: dict[str, str]
    largest_difference: float
    names: str | None = None
    note: str | None = None


def convert_checkpoint(
    source: str | Path,
    target: str | Path,
    *,
    dtype: StoredType = "float32",
    time_steps: TimeSteps | None = None,
    force: bool = False,
) -> Conversion:
    """Writes a checkpoint, loads it again, compares it, and then renames it.

    Args:
        source: A .pth or .safetensors file, or "demo".
        target: The .safetensors file to write; or a .pth file in the authors' form, a dictionary
            of the tensors for `torch.load` and `load_state_dict`, without metadata.
        dtype: Type of the tensors that are written.
        time_steps: The time steps that the weights were trained for; by default those stated by
            the file, else published, else found by a trial.
        force: Replaces an existing file.

    Raises:
        CheckpointError: If the source cannot be loaded, has values too large for `dtype`, or the
            target cannot be written, has a wrong name, or exists already.
        ValueError: If `dtype` or `time_steps` is unknown.
    """
    for option, value, allowed in (
        ("dtype", dtype, get_args(StoredType)),
        ("time_steps", time_steps, (*get_args(TimeSteps), None)),
    ):
        if value not in allowed:
            raise ValueError(f"{option} is {value!r}: use {' or '.join(map(repr, allowed))}")
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
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(8)}.partial{target.suffix}")
    try:
        if target.suffix.lower() == ".pth":
            torch.save(OrderedDict(stored), temporary)
        else:
            save_file(stored, temporary, metadata)
        reloaded = load_checkpoint(temporary)
        loaded = reloaded.network.state_dict()
        if any(not torch.equal(loaded[name], tensor.float()) for name, tensor in stored.items()):
            raise CheckpointError(
                f"{target} has other weights when it is read back: check the disk"
            )
        temporary.replace(target)
    except (SafetensorError, RuntimeError) as error:  # The second is PyTorch's.
        raise CheckpointError(
            f"{target} cannot be written ({error}): check the disk and the folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    largest = max(float((loaded[name] - weights[name]).abs().max()) for name in weights)
    return Conversion(target, reloaded.sha256, metadata, largest, file.names, file.note)


def _metadata(
    file: CheckpointFile, checkpoint: Checkpoint, time_steps: TimeSteps | None
) -> dict[str, str]:
    """The metadata of the new file. If its source was converted too, the first source is stated."""
    if time_steps:
        origin = "user"
    elif stated_time_steps(file.metadata):
        origin = file.metadata.get("timesteps_from", "source")
    else:
        origin = "published" if checkpoint.identity else "trial"
    return {
        "format": "pt",
        "variant": checkpoint.network.config.variant,
        "timesteps": time_steps or checkpoint.time_steps or probe_time_steps(checkpoint.network),
        "timesteps_from": origin,
        "source": file.metadata.get("source", file.path.name),
        "source_sha256": file.metadata.get("source_sha256", file.sha256),
    }


def _check_target(target: Path, *, force: bool) -> None:
    if target.suffix.lower() not in _SUFFIXES:
        raise CheckpointError(
            f"{target} has the suffix {target.suffix!r}: use NAME.safetensors or NAME.pth"
        )
    if target.name.lower() == DEMO_WEIGHTS.name:
        raise CheckpointError(f"{target.name} is the name of the shipped file: use another name")
    if not target.parent.is_dir():
        raise CheckpointError(f"the folder {target.parent} is missing: create it first")
    if target.exists() and not force:
        raise CheckpointError(f"{target} exists already: replace it with --overwrite")
