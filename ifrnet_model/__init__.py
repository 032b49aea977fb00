"""IFRNet in PyTorch, for inference: sizes, network, checkpoints."""

from ifrnet_model.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from ifrnet_model.config import VARIANTS, IFRNetConfig, divisor
from ifrnet_model.model import IFRNet
from ifrnet_model.probe import probe_time_steps

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
