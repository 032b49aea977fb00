"""The known checkpoints: table, download, inspection, conversion; and the demo weights.

python -m ifrnet_model.weights list | download NAME | inspect FILE | convert FILE OUT.safetensors
"""

import importlib
from typing import TYPE_CHECKING, Any

from ifrnet_model.weights.table import CHECKPOINTS, DEMO_WEIGHTS, KnownCheckpoint, Published

if TYPE_CHECKING:
    from ifrnet_model.weights.convert import convert_checkpoint
    from ifrnet_model.weights.download import download_checkpoint
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

_LAZY = {
    "convert_checkpoint": "convert",
    "download_checkpoint": "download",
    "inspect_checkpoint": "inspection",
}
"""Name -> module, imported on first use: two need PyTorch and `ifrnet_model.checkpoint`, which
imports this package."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
