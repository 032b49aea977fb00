"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import get_args

from runtime.backends.base import TRITON_SCHEME, PrecisionChoice
from runtime.backends.demo import DEMO, demo_model
from runtime.backends.registry import installed_backend


def parse_size(text: str) -> tuple[int, int]:
    """Parses HEIGHTxWIDTH in pixels: 256x448 -> (256, 448)."""
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size: write HEIGHTxWIDTH, for example 256x448 for frames 448 wide "
            "and 256 high"
        )
    return int(height), int(width)


def parse_device(text: str) -> str:
    """Returns the text if it is a device: cpu, cuda or cuda:N."""
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a device: write cpu, cuda or cuda:N")
    return text


def gpu_index(device: str) -> int | None:
    """The index of the GPU in a device: 1 for cuda:1, None for cpu and cuda."""
    _, _, index = device.partition(":")
    return int(index) if index else None


def parse_model(text: str) -> str | Path:
    """Parses a model: a triton:// address stays a string, anything else becomes a path."""
    # A path would lose the second slash.
    return text if text.startswith(TRITON_SCHEME) else Path(text)


def parse_model_file(text: str) -> Path:
    """Parses the path of a model; demo is the shipped one for the default backend on a CPU."""
    return demo_model(installed_backend()) if text == DEMO else Path(text)


def add_cpu_arguments(group: argparse._ArgumentGroup, *, several_precisions: bool = False) -> None:
    """Adds --threads and --precision.

    Args:
        group: The group to add them to.
        several_precisions: Whether --precision accepts several values, each of which is a run.
    """
    group.add_argument(
        "--threads", type=int, metavar="N", help="number of CPU threads (default: all)"
    )
    add_precision_argument(group, several=several_precisions)


def add_precision_argument(group: argparse._ArgumentGroup, *, several: bool = False) -> None:
    """Adds --precision.

    Args:
        group: The group to add it to.
        several: Whether it accepts several values, each of which is a run.
    """
    group.add_argument(
        "--precision",
        nargs="+" if several else None,
        choices=get_args(PrecisionChoice),
        default=["auto"] if several else "auto",
        help="type in which OpenVINO computes convolutions"
        + (", one or several, each of which is a run" if several else "")
        + " (default auto: the fastest that the model's manifest proves for this CPU)",
    )
