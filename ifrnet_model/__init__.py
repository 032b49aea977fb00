"""IFRNet in PyTorch, for inference: sizes, network, checkpoints.

PyTorch is imported with the first name that needs it: `python -m ifrnet_model.weights list` and
`download` run without it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ifrnet_model.config import VARIANTS, IFRNetConfig, divisor
from ifrnet_model.errors import CheckpointError

if TYPE_CHECKING:
    from ifrnet_model.checkpoint import Checkpoint, load_checkpoint
    from ifrnet_model.model import IFRNet
    from ifrnet_model.probe import probe_time_steps

__version__ = "0.2.0"

__all__ = [
    "VARIANTS",
    "Checkpoint",
    "CheckpointError",
    "IFRNet",
    "IFRNetConfig",
    "divisor",
    "load_checkpoint",
    "probe_time_steps",
]

_LAZY = {
    "Checkpoint": "checkpoint",
    "IFRNet": "model",
    "load_checkpoint": "checkpoint",
    "probe_time_steps": "probe",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
