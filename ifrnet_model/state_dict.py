"""Finds the network's tensors in the nested dictionaries of a checkpoint file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from ifrnet_model.errors import CheckpointError, shortened

STEM = "encoder.pyramid1.0.0.weight"
"""The first tensor of the network. Text before it in a name is a prefix."""

_WRAPPER_NAMES = (
    "state_dict", "params", "params_ema", "ema", "ema_state_dict", "model_state_dict", "net",
    "network", "weights", "model", "module", "generator", "ema_model", "net_g", "_orig_mod",
    "generator_ema", "state_dict_ema", "model_ema", "online_model",
)  # fmt: skip
"""Keys of dictionaries around the tensors; each may also be a prefix of names, with a dot."""

_MOST_NAMES = 16
"""Limit of the number of dictionaries, and of prefixes, around the tensors."""

_COUNTERS = ("n_averaged", "steps", "step", "num_updates", "initted", "decay")
"""Scalars that the averages of PyTorch, MMEngine and others store beside the weights."""


@dataclass(frozen=True)
class StoredNetwork:
    """The tensors of one network in a file.

    Attributes:
        tensors: The tensors by the authors' names.
        wrappers: Keys of the dictionaries around the tensors, outermost first.
        prefixes: Prefixes that were removed from every name, outermost first.
        averaged: Whether they are the average over the training steps (EMA), judged by these names.
        ordinary: Names around the ordinary weights, if the file has them too; else None.
    """

    tensors: dict[str, Tensor]
    wrappers: tuple[str, ...]
    prefixes: tuple[str, ...]
    averaged: bool
    ordinary: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The wrappers and the prefixes, the latter without their dots."""
        return (*self.wrappers, *(prefix.rstrip(".") for prefix in self.prefixes))

    @property
    def place(self) -> str:
        """The names around the tensors, for a message."""
        return ", ".join((*self.wrappers, *self.prefixes)) or "no prefix"


def find_network(stored: object, path: Path) -> StoredNetwork:
    """Finds the network in the content of a file, the averaged weights if there are any.

    Args:
        stored: A dictionary of tensors by name, possibly inside other dictionaries. Entries that
            are not part of the network are ignored.
        path: The file, for messages.

    Raises:
        CheckpointError: If there is no network or more than one of the same kind, or an entry of
            the network is not a tensor, or is a sparse, nested or meta tensor.
    """
    if not isinstance(stored, Mapping):
        raise CheckpointError(
            f"{path} contains a {type(stored).__name__}, not a state_dict: "
            "save the network's state_dict() with torch.save"
        )
    found = list(_networks(stored))
    averages = [network for network in found if network.averaged]
    others = [network for network in found if not network.averaged]
    chosen = averages or others
    if not chosen:
        raise _missing_error(stored, path)
    if len(chosen) > 1:
        places = shortened([f"({network.place})" for network in chosen])
        kind = "averaged " if averages else ""
        raise CheckpointError(
            f"{path} contains {len(chosen)} {kind}networks {places}: save the state_dict() of one "
            "of them with torch.save"
        )
    network = chosen[0]
    ordinary = " and ".join(other.place for other in others) if averages else ""
    if ordinary and not any(map(_is_average, network.names)):
        ordinary += ", where MMEngine puts them"
    return StoredNetwork(
        _only_tensors(network.tensors, path),
        network.wrappers,
        network.prefixes,
        network.averaged,
        ordinary or None,
    )


@dataclass(frozen=True)
class _Level:
    """A dictionary in the file, and the keys of those around it, outermost first."""

    entries: Mapping[Any, Any]
    keys: tuple[str, ...]
    averaged: bool


def _levels(stored: Mapping[Any, Any], *, every_key: bool = False) -> Iterator[_Level]:
    """Yields the dictionary and those inside it, each once: a dictionary may contain itself."""
    seen = set()
    pending = deque([_Level(stored, (), averaged=False)])
    while pending:
        level = pending.popleft()
        if id(level.entries) in seen or len(level.keys) > _MOST_NAMES:
            continue
        seen.add(id(level.entries))
        yield level
        for key in level.entries if every_key else _WRAPPER_NAMES:
            inner = level.entries.get(key)
            if isinstance(inner, Mapping):
                averaged = level.averaged or _is_average(key, level.entries)
                pending.append(_Level(inner, (*level.keys, str(key)), averaged))


def _is_average(key: str, beside: Mapping[Any, Any] | None = None) -> bool:
    if beside and key in ("state_dict", "ema_state_dict"):
        average = beside.get("ema_state_dict")
        if isinstance(average, Mapping) and "steps" in average:
            # MMEngine's EMAHook exchanges the two, so that state_dict has the average.
            return key == "state_dict"
    return "ema" in str(key).split("_")


def _networks(stored: Mapping[Any, Any]) -> Iterator[StoredNetwork]:
    """All networks whose wrappers and prefixes are known names."""
    for level in _levels(stored):
        found: dict[str, dict[str, Any]] = {
            prefix: {} for prefix in _prefixes(level.entries) if _is_known(prefix)
        }
        if not found:
            continue
        for key, value in level.entries.items():
            name = str(key)
            prefix = _longest_prefix(name, found)
            if prefix is not None:
                found[prefix][name[len(prefix) :]] = value
        for prefix, tensors in found.items():
            averaged = level.averaged or any(map(_is_average, _parts(prefix)))
            prefixes = tuple(f"{name}." for name in _parts(prefix))
            yield StoredNetwork(tensors, level.keys, prefixes, averaged)


def _prefixes(entries: Mapping[Any, Any]) -> list[str]:
    """The prefixes of the name of the first tensor: "", or with a dot at the end."""
    prefixes = [str(key)[: -len(STEM)] for key in entries if str(key).endswith(STEM)]
    return [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]


def _is_known(prefix: str) -> bool:
    parts = _parts(prefix)
    return len(parts) <= _MOST_NAMES and all(name in _WRAPPER_NAMES for name in parts)


def _longest_prefix(name: str, prefixes: Mapping[str, object]) -> str | None:
    """The longest of the prefixes with which a name begins; None if it begins with none."""
    longest = "" if "" in prefixes else None
    start = ""
    for part in name.split(".", _MOST_NAMES)[:-1]:
        start += f"{part}."
        if start in prefixes:
            longest = start
    return longest


def _parts(prefix: str) -> list[str]:
    return prefix.split(".")[:-1]


def _only_tensors(entries: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The entries without counters.

    Raises:
        CheckpointError: If another entry is not a tensor, or is one without a dense array of
            values in memory.
    """
    tensors = {name: value for name, value in entries.items() if name not in _COUNTERS}
    if others := [name for name, value in tensors.items() if not isinstance(value, Tensor)]:
        raise _other_entries_error(others, path)
    if unusual := [name for name, value in tensors.items() if not _is_dense(value)]:
        raise CheckpointError(
            f"{path} contains sparse, nested, meta or other special tensors ({shortened(unusual)}):"
            " save ordinary dense tensors on the CPU with torch.save"
        )
    return tensors


def _is_dense(tensor: Tensor) -> bool:
    return (
        type(tensor) in (Tensor, Parameter)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_nested
    )


def _other_entries_error(others: list[str], path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} contains entries that are not tensors ({shortened(others)}): "
        "save only the network's state_dict()"
    )


def _missing_error(stored: Mapping[Any, Any], path: Path) -> CheckpointError:
    for level in _levels(stored, every_key=True):
        for prefix in _prefixes(level.entries):
            names = shortened([*level.keys, *filter(None, [prefix])])
            return CheckpointError(
                f"{path} has {STEM} under names that are not known ({names}): "
                "save the network's own state_dict() with torch.save"
            )
    counts = [sum(isinstance(v, Tensor) for v in e.entries.values()) for e in _levels(stored)]
    others = [str(key) for key in stored]
    if others and not any(counts):
        return _other_entries_error(others, path)
    return CheckpointError(
        f"{path} has no {STEM} among its {max(counts)} tensors: give an IFRNet checkpoint"
    )
