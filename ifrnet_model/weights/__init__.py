"""Checkpoints: which are known, how to get them, what a file holds. The demo weights lie here.

python -m ifrnet_model.weights list | download NAME | inspect FILE | convert FILE OUT.safetensors
"""

import importlib
from typing import TYPE_CHECKING, Any

from ifrnet_model.weights.table import CHECKPOINTS, DEMO_WEIGHTS, KnownCheckpoint, Published

if TYPE_CHECKING:
    from ifrnet_model.weights.convert import convert_checkpoint
    from ifrnet_model.weights.fetch import download_checkpoint
    from ifrnet_model.weights.inspection import inspect_checkpoint

__all__ = [
    "CHECKPOINTS",
    "DEMO_WEIGHTS",
    "KnownCheckpoint",
    "Published",
    "convert_checkpoint",
    "download_checkpoint",
    "inspect_checkpoint",
]

_LATER = {
    "convert_checkpoint": "convert",
    "download_checkpoint": "fetch",
    "inspect_checkpoint": "inspection",
}
"""What needs PyTorch or the network's machinery, and where it is: `checkpoint` imports this."""


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
