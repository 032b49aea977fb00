"""Reads a checkpoint file: its tensors, hash and metadata.

Reading never runs code from the file: pickles are read with PyTorch's `weights_only`, which accepts
tensors and plain containers only.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ifrnet_model.errors import CheckpointError
from ifrnet_model.file_kinds import find_format
from ifrnet_model.state_dict import find_network
from ifrnet_model.weights.table import DEMO_WEIGHTS, find_by_name

_STAND_IN_NAMES = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    "numpy.dtype",
    "numpy.ndarray",
    *(
        f"numpy.{core}.{name}"
        for core in ("core", "_core")
        for name in ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")
    ),
    "mmengine.logging.history_buffer.HistoryBuffer",
)
"""Objects beside the weights in training checkpoints: options, paths, figures."""

_DICT_NAMES = (
    "addict.addict.Dict",
    "easydict.EasyDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "mmengine.config.config.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
"""Dictionaries of options in training checkpoints."""


class _StandIn:
    """Replaces an object beside the weights, and ignores its arguments.

    `weights_only` refuses a file with any class that is not registered. For the names above this
    class is registered, so that nothing of those modules is imported or called.
    """

    def __new__(cls, *_: object, **__: object) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


_KNOWN_OBJECTS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((_StandIn, name) for name in _STAND_IN_NAMES),
    *((OrderedDict, name) for name in _DICT_NAMES),
]


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
        averaged: Whether the tensors are the average over the training steps (EMA), by the names
            around them.
        ordinary: The names around the ordinary weights, which the file also has and which were not
            loaded; None if it has none.
    """

    path: Path
    size_bytes: int
    sha256: str
    state: dict[str, Tensor]
    wrappers: tuple[str, ...]
    prefixes: tuple[str, ...]
    metadata: Mapping[str, str]
    averaged: bool = False
    ordinary: str | None = None

    @property
    def names(self) -> str | None:
        """The dictionaries and prefixes around the tensors, as text; None if there are none."""
        around = [f"wrapped in {key}" for key in self.wrappers]
        around += [f"prefix {prefix}" for prefix in self.prefixes]
        return ", ".join(around) or None

    @property
    def note(self) -> str | None:
        """A sentence about a choice between averaged and ordinary weights; None without one."""
        if self.ordinary is None:
            return None
        taken = ", ".join((*self.wrappers, *self.prefixes))
        return (
            f"the averaged weights ({taken}) are taken, not the ordinary ones ({self.ordinary}) "
            "that the file also has"
        )


def read_checkpoint(path: str | Path) -> CheckpointFile:
    """Reads the tensors of a file; checks its hash if one is published for its name.

    Args:
        path: A PyTorch or safetensors file, recognised by its content, or "demo".

    Raises:
        CheckpointError: If the file cannot be read, is of another kind, contains more than
            tensors and plain values, is damaged, or its hash is not that of the published file of
            its name.
    """
    path = DEMO_WEIGHTS if str(path) == "demo" else Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}): give a checkpoint file, or demo "
            "(python -m ifrnet_model.weights list shows the published ones)"
        ) from error
    file_format = find_format(path, content)
    sha256 = hashlib.sha256(content).hexdigest()
    _check_sha256(path, sha256)
    metadata: dict[str, str] = {}
    stored: object
    if file_format == "safetensors":
        stored, metadata = _read_safetensors(path)
    else:
        stored = _read_pickle(path, content)
    network = find_network(stored, path)
    return CheckpointFile(
        path=path,
        size_bytes=len(content),
        sha256=sha256,
        state=network.tensors,
        wrappers=network.wrappers,
        prefixes=network.prefixes,
        metadata=metadata,
        averaged=network.averaged,
        ordinary=network.ordinary,
    )


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
    # Imported here because a PyTorch file needs nothing but PyTorch.
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}): copy or download it again"
        ) from error


def _read_pickle(path: Path, content: bytes) -> Any:
    try:
        with torch.serialization.safe_globals(_KNOWN_OBJECTS):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if name := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{path} contains the Python object {name.group(1)}, could run code, and was not "
                "loaded: save only the network's state_dict() with torch.save, or convert it to "
                "safetensors"
            ) from error
        detail = str(error).partition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
        raise CheckpointError(
            f"{path} cannot be read as weights only ({detail or type(error).__name__}): save its "
            "state_dict() again with torch.save and no other pickle_protocol, or if the file is "
            "damaged copy or download it again"
        ) from error
    except Exception as error:  # torch.load raises RuntimeError, EOFError, KeyError and others.
        raise CheckpointError(
            f"{path} is a damaged PyTorch file ({type(error).__name__}): copy or download it again"
        ) from error
