"""Loads any published IFRNet checkpoint: the authors', mmagic's, safetensors.

Loading never runs code from the file: pickles are read with PyTorch's `weights_only`, which accepts
tensors and plain containers only.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from ifrnet_model.config import VARIANTS, IFRNetConfig
from ifrnet_model.errors import CheckpointError
from ifrnet_model.layers import WarpLowering
from ifrnet_model.model import IFRNet
from ifrnet_model.weights.table import DEMO_WEIGHTS, Identity, TimeSteps, find_by_name, identify

_WRAPPERS = ("state_dict", "params", "model")
_PREFIXES = ("module.", "generator.")
_STEM = "encoder.pyramid1.0.0.weight"
_NAMES_SHOWN = 4


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        network: The network with its weights, float32, in inference mode.
        sha256: The SHA-256 of the file, 64 hexadecimal digits.
        time_steps: The time steps that the weights were trained for, from the metadata of the file
            or else the table of known checkpoints; None if neither states them.
        identity: The entry in the table of known checkpoints; None for other files.
    """

    network: IFRNet
    sha256: str
    time_steps: TimeSteps | None
    identity: Identity | None = None


@dataclass(frozen=True)
class CheckpointFile:
    """The content of a checkpoint file.

    Attributes:
        path: The file.
        size_bytes: Its size in bytes.
        sha256: Its SHA-256, 64 hexadecimal digits.
        state: The tensors in the type that is stored, by the authors' parameter names.
        wrappers: Keys of the dictionaries around the tensors, outermost first.
        prefixes: Prefixes that were removed from every name, outermost first.
        metadata: The metadata of a .safetensors file, otherwise empty.
    """

    path: Path
    size_bytes: int
    sha256: str
    state: dict[str, Tensor]
    wrappers: tuple[str, ...]
    prefixes: tuple[str, ...]
    metadata: Mapping[str, str]


def load_checkpoint(path: str | Path, *, warp_lowering: WarpLowering = "gridsample") -> Checkpoint:
    """Loads a checkpoint; the shape of the first weight tells the variant.

    Args:
        path: The authors' .pth, mmagic's .pth (`generator.` prefix, `state_dict` wrapper), either
            with `module.` prefixes, or .safetensors with the same names; any float type. "demo"
            is the checkpoint that is shipped with this package.
        warp_lowering: How the network computes a warp; both ways are equal to 1e-4.

    Raises:
        CheckpointError: If the file cannot be read, contains more than tensors, is damaged or of
            another network, or its hash is not that of the published file of its name.
    """
    return checkpoint_from_file(read_checkpoint(path), warp_lowering=warp_lowering)


def read_checkpoint(path: str | Path) -> CheckpointFile:
    """Reads the tensors of a file; checks its hash if one is published for its name.

    Args:
        path: A .pth or .safetensors file, or "demo".

    Raises:
        CheckpointError: If the file cannot be read, contains more than tensors, is damaged, or its
            hash is not that of the published file of its name.
    """
    path = DEMO_WEIGHTS if str(path) == "demo" else Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}): give a checkpoint file, or demo "
            "(python -m ifrnet_model.weights list shows the published ones)"
        ) from error
    sha256 = hashlib.sha256(content).hexdigest()
    _check_sha256(path, sha256)
    wrappers: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    if path.suffix == ".safetensors":
        stored, metadata = _read_safetensors(path)
    else:
        stored, wrappers = _read_pickle(path, content)
    state, prefixes = _strip_prefixes(stored)
    return CheckpointFile(path, len(content), sha256, state, wrappers, prefixes, metadata)


def checkpoint_from_file(
    file: CheckpointFile, *, warp_lowering: WarpLowering = "gridsample"
) -> Checkpoint:
    """Builds the network and loads the tensors of `file` into it.

    Raises:
        CheckpointError: If names or shapes are not those of a variant, or a value is not finite.
    """
    network = IFRNet(_find_variant(file.state, file.path), warp_lowering=warp_lowering)
    _check_keys(file.state, network.state_dict(), file.path)
    network.load_state_dict({name: tensor.float() for name, tensor in file.state.items()})
    identity = identify(
        file.path.name,
        sha256=file.sha256,
        variant=network.config.variant,
        metadata=file.metadata,
    )
    steps = stated_time_steps(file.metadata) or (identity.known.time_steps if identity else None)
    return Checkpoint(network.eval(), file.sha256, steps, identity)


def stated_time_steps(metadata: Mapping[str, str]) -> TimeSteps | None:
    """The time steps that the metadata of a .safetensors file states; None if it states none."""
    stated = metadata.get("timesteps")
    return stated if stated in get_args(TimeSteps) else None  # type: ignore[return-value]


def _check_sha256(path: Path, sha256: str) -> None:
    known = find_by_name(path.name)
    if known is None or known.sha256 is None or Path(known.name).suffix != path.suffix.lower():
        return  # A converted file has another hash.
    if not sha256.startswith(known.sha256):
        raise CheckpointError(
            f"{path} has sha256 {sha256[:12]}..., not {known.sha256[:12]}... as published for "
            "that name: download it again, or rename it if it is another checkpoint"
        )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    # Imported here because a .pth file needs nothing but PyTorch.
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}): copy or download it again"
        ) from error


def _read_pickle(path: Path, content: bytes) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors, and the keys of the dictionaries around them, outermost first."""
    try:
        loaded: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} contains more than tensors, could run code, and was not loaded: save only "
            "its state_dict with torch.save, or convert it to safetensors"
        ) from error
    except Exception as error:  # torch.load raises RuntimeError, EOFError, KeyError and others.
        raise CheckpointError(
            f"{path} is not a readable PyTorch checkpoint ({type(error).__name__}): "
            "copy or download it again"
        ) from error
    wrappers = []
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            wrappers.append(wrapper)
    if not isinstance(loaded, Mapping):
        raise CheckpointError(
            f"{path} contains a {type(loaded).__name__}, not a state_dict: "
            "save the network's state_dict() with torch.save"
        )
    others = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f"{path} contains entries that are not tensors ({_shortened(others)}): "
            "save only the network's state_dict()"
        )
    return {str(key): value for key, value in loaded.items()}, tuple(wrappers)


def _strip_prefixes(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Removes `module.` and `generator.`, in any order, if every name begins with them."""
    stripped, prefixes = dict(state), []
    while prefix := next((p for p in _PREFIXES if all(k.startswith(p) for k in stripped)), None):
        if not stripped:
            break
        stripped = {key.removeprefix(prefix): value for key, value in stripped.items()}
        prefixes.append(prefix)
    return stripped, tuple(prefixes)


def _find_variant(state: Mapping[str, Tensor], path: Path) -> IFRNetConfig:
    if _STEM not in state:
        raise CheckpointError(
            f"{path} has no {_STEM} among its {len(state)} tensors: give an IFRNet checkpoint"
        )
    shape = tuple(state[_STEM].shape)
    shapes = {(c.widths[0], 3, c.stem_kernel, c.stem_kernel): c for c in VARIANTS.values()}
    if shape not in shapes:
        known = ", ".join(f"{known} ({c.variant})" for known, c in shapes.items())
        raise CheckpointError(f"{path}: {_STEM} has shape {shape}, not one of {known}")
    return shapes[shape]


def _check_keys(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Checks names, shapes and values; one error names all tensors that are wrong.

    Raises:
        CheckpointError: If a tensor is missing, unexpected, of another shape, or not finite.
    """
    problems = []
    if missing := sorted(expected.keys() - state.keys()):
        problems.append(f"{len(missing)} missing ({_shortened(missing)})")
    if unexpected := sorted(state.keys() - expected.keys()):
        problems.append(f"{len(unexpected)} unexpected ({_shortened(unexpected)})")
    misshapen = [
        f"{key}: {tuple(state[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if misshapen:
        problems.append(f"{len(misshapen)} of another shape ({_shortened(misshapen)})")
    if problems:
        raise CheckpointError(f"{path} does not fit IFRNet: tensors {'; '.join(problems)}")
    if not all(t.is_floating_point() and bool(t.isfinite().all()) for t in state.values()):
        raise CheckpointError(
            f"{path} contains integers, infinities or NaN: copy or download it again"
        )


def _shortened(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
