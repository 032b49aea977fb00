"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from runtime.backends.base import TRITON_SCHEME, InferencePrecision


def parse_size(text: str) -> tuple[int, int]:
    """Reads HEIGHTxWIDTH: 256x448 -> (256, 448)."""
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write HEIGHTxWIDTH, as 256x448")
    return int(height), int(width)


def parse_model(text: str) -> str | Path:
    """Reads a model: triton://HOST:PORT/NAME as a string, anything else as a path."""
    # A path would lose the second slash.
    return text if text.startswith(TRITON_SCHEME) else Path(text)


def add_cpu_arguments(group: argparse._ArgumentGroup) -> None:
    """Adds --threads and --inference-precision."""
    group.add_argument("--threads", type=int, metavar="N", help="number of CPUs (default: all)")
    group.add_argument(
        "--inference-precision",
        choices=get_args(InferencePrecision),
        help="OpenVINO: type in which convolutions are computed (default fp32)",
    )
