"""Any published IFRNet checkpoint -> network: the authors', mmagic's, safetensors.

Loading never runs code from the file: pickles go through PyTorch's `weights_only` reader, which
knows tensors and plain containers and refuses everything else.
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
from ifrnet_model.weights.table import DEMO_WEIGHTS, Identity, TimeSteps, identify, with_name

_WRAPPERS = ("state_dict", "params", "model")
_PREFIXES = ("module.", "generator.")
_STEM = "encoder.pyramid1.0.0.weight"
_NAMES_SHOWN = 4


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        network: float32, in inference mode.
        sha256: Of the file.
        time_steps: What the file's metadata, or else the table of known checkpoints, says about
            the time input; None where they say nothing.
        identity: Which known checkpoint it is; None where it is none.
    """

    network: IFRNet
    sha256: str
    time_steps: TimeSteps | None
    identity: Identity | None = None


@dataclass(frozen=True)
class CheckpointFile:
    """What a file holds, before a network is made of it.

    Attributes:
        path: Where it is.
        size_bytes: Its size.
        sha256: Its hash.
        state: The tensors as they are stored, under the authors' names.
        wrappers: Keys of the dictionaries around the tensors, outermost first.
        prefixes: What stood before every name, outermost first.
        metadata: Of a .safetensors file.
    """

    path: Path
    size_bytes: int
    sha256: str
    state: dict[str, Tensor]
    wrappers: tuple[str, ...]
    prefixes: tuple[str, ...]
    metadata: Mapping[str, str]


def load_checkpoint(path: str | Path, *, warp_lowering: WarpLowering = "gridsample") -> Checkpoint:
    """Loads a checkpoint of any variant; the variant is found by the shape of the first weight.

    Args:
        path: The authors' .pth, mmagic's .pth (`generator.` prefix, `state_dict` wrapper), either
            with `module.` prefixes, or .safetensors with the same names; any float type. The
            word "demo" stands for the weights that are shipped.
        warp_lowering: See `IFRNet`.

    Raises:
        CheckpointError: If the file is missing, not safe, damaged, of another network, or has
            another hash than its name promises.
    """
    return checkpoint_from_file(read_checkpoint(path), warp_lowering=warp_lowering)


def read_checkpoint(path: str | Path) -> CheckpointFile:
    """Reads a file safely and checks its hash where that is known.

    Raises:
        CheckpointError: If the file is missing, not safe, damaged, or has another hash than its
            name promises.
    """
    path = DEMO_WEIGHTS if str(path) == "demo" else Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}): give a checkpoint file, or demo; "
            "python -m ifrnet_model.weights list shows which there are"
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
    """The network of a file that was read.

    Raises:
        CheckpointError: If the tensors are not IFRNet's or not finite.
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
    """What a file says of itself; None where it says nothing."""
    stated = metadata.get("timesteps")
    return stated if stated in get_args(TimeSteps) else None  # type: ignore[return-value]


def _check_sha256(path: Path, found: str) -> None:
    known = with_name(path.name)
    if known is None or known.sha256 is None or Path(known.name).suffix != path.suffix.lower():
        return  # A conversion has a hash of its own.
    if not found.startswith(known.sha256):
        raise CheckpointError(
            f"{path} has sha256 {found[:12]}..., the published file {known.sha256[:12]}...: "
            "it is damaged or not what its name says; download it again"
        )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    # Here, so that a checkpoint of PyTorch's own format needs nothing but PyTorch.
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is no readable safetensors file ({error}): copy or download it again"
        ) from error


def _read_pickle(path: Path, content: bytes) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors, and the keys of the dictionaries that were around them."""
    try:
        loaded: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, which can run code when it is loaded, and was not "
            "loaded: save its state_dict alone with torch.save, or convert it to safetensors"
        ) from error
    except Exception as error:  # torch.load raises RuntimeError, EOFError, KeyError and others.
        raise CheckpointError(
            f"{path} is no readable PyTorch checkpoint ({type(error).__name__}): "
            "copy or download it again"
        ) from error
    wrappers = []
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            wrappers.append(wrapper)
    if not isinstance(loaded, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(loaded).__name__}, not a state_dict: "
            "save the network's state_dict() with torch.save"
        )
    wrong = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if wrong:
        raise CheckpointError(
            f"{path} holds entries that are no tensors ({_some(wrong)}): "
            "save the network's state_dict() alone"
        )
    return {str(key): value for key, value in loaded.items()}, tuple(wrappers)


def _strip_prefixes(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Removes `module.` and `generator.`, in any order, where every key has them."""
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
            f"{path} has no {_STEM} among its {len(state)} tensors: it is no IFRNet checkpoint"
        )
    found = tuple(state[_STEM].shape)
    shapes = {(c.widths[0], 3, c.stem_kernel, c.stem_kernel): c for c in VARIANTS.values()}
    if found not in shapes:
        known = ", ".join(f"{shape} ({c.variant})" for shape, c in shapes.items())
        raise CheckpointError(f"{path}: {_STEM} has shape {found}, of no variant known: {known}")
    return shapes[found]


def _check_keys(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Names missing, surplus and misshapen tensors in one sentence."""
    problems = []
    if missing := sorted(wanted.keys() - state.keys()):
        problems.append(f"{len(missing)} missing ({_some(missing)})")
    if surplus := sorted(state.keys() - wanted.keys()):
        problems.append(f"{len(surplus)} surplus ({_some(surplus)})")
    misshapen = [
        f"{key}: {tuple(state[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if misshapen:
        problems.append(f"{len(misshapen)} misshapen ({_some(misshapen)})")
    if problems:
        raise CheckpointError(f"{path} does not fit IFRNet: tensors {'; '.join(problems)}")
    if not all(t.is_floating_point() and bool(t.isfinite().all()) for t in state.values()):
        raise CheckpointError(f"{path} holds integers, infinities or NaN: the file is damaged")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
