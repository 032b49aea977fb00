"""Any published IFRNet checkpoint -> network: the authors', mmagic's, safetensors.

Loading never runs code from the file: pickles go through PyTorch's `weights_only` reader, which
knows tensors and plain containers and refuses everything else.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ifrnet_model.config import VARIANTS, IFRNetConfig
from ifrnet_model.layers import WarpLowering
from ifrnet_model.model import IFRNet

TimeSteps = Literal["midpoint", "arbitrary"]

DEMO_WEIGHTS = Path(__file__).parent / "weights" / "ifrnet_small_demo.safetensors"
"""Our own small demo weights, shipped with the package; see MODEL_CARD.md beside them."""

KNOWN_SHA256: dict[str, str] = {
    DEMO_WEIGHTS.name: "7a1f54a86432ecb9fe7a0431137b724c99ee3bc5dc4a5506c1e65cedb964573e",
}
"""Files whose hash is known in full. OpenMMLab's names carry the first eight digits of theirs."""

_MMAGIC_NAME = re.compile(r"IFRNet_(?:vimeo90k|gopro)-([0-9a-f]{8})\.pth", re.IGNORECASE)
_WRAPPERS = ("state_dict", "params", "model")
_PREFIXES = ("module.", "generator.")
_STEM = "encoder.pyramid1.0.0.weight"
_NAMES_SHOWN = 4


class CheckpointError(Exception):
    """A checkpoint cannot be loaded; the message says what was found and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        network: float32, in inference mode.
        sha256: Of the file.
        time_steps: What the file's metadata or its published name says about the time input;
            None where they say nothing.
    """

    network: IFRNet
    sha256: str
    time_steps: TimeSteps | None


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
    path = DEMO_WEIGHTS if str(path) == "demo" else Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}): give a checkpoint file, or demo"
        ) from error
    sha256 = hashlib.sha256(content).hexdigest()
    _check_sha256(path, sha256)
    if path.suffix == ".safetensors":
        state, metadata = _read_safetensors(path)
    else:
        state, metadata = _read_pickle(path, content), {}
    state = _strip_prefixes(state)
    network = IFRNet(_find_variant(state, path), warp_lowering=warp_lowering)
    _check_keys(state, network.state_dict(), path)
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return Checkpoint(network.eval(), sha256, _published_time_steps(path, metadata))


def _check_sha256(path: Path, found: str) -> None:
    published = _MMAGIC_NAME.fullmatch(path.name)
    expected = published.group(1).lower() if published else KNOWN_SHA256.get(path.name, "")
    if not found.startswith(expected):
        raise CheckpointError(
            f"{path} has sha256 {found[:12]}..., the published file {expected[:12]}...: "
            "it is damaged or not what its name says; download it again"
        )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is no readable safetensors file ({error}): copy or download it again"
        ) from error


def _read_pickle(path: Path, content: bytes) -> dict[str, Tensor]:
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
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
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
    return {str(key): value for key, value in loaded.items()}


def _strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes `module.` and `generator.`, in any order, where every key has them."""
    stripped = dict(state)
    while prefix := next((p for p in _PREFIXES if all(k.startswith(p) for k in stripped)), None):
        if not stripped:
            break
        stripped = {key.removeprefix(prefix): value for key, value in stripped.items()}
    return stripped


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


def _published_time_steps(path: Path, metadata: Mapping[str, str]) -> TimeSteps | None:
    """What is stated or published: Vimeo90K weights ignore the time input (IFRNet issue 34)."""
    stated = metadata.get("timesteps")
    if stated in get_args(TimeSteps):
        return stated  # type: ignore[return-value]  # mypy does not narrow through get_args.
    name = path.name.lower()
    if not name.startswith("ifrnet"):
        return None
    if "vimeo" in name:
        return "midpoint"
    return "arbitrary" if "gopro" in name else None


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
