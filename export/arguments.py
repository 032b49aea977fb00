"""The arguments that say what graph is made, shared by the commands; imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from runtime.cli import parse_size
from runtime.manifest import IOKind, Precision, TimeSteps, Warp

DEFAULT_SIZE = (256, 448)


def add_graph_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what is exported; `options_from_arguments` reads them."""
    parser.add_argument(
        "--size",
        type=parse_size,
        metavar="HxW",
        help="height x width of the frames (default 256x448; with --dynamic what is traced)",
    )
    parser.add_argument(
        "--io",
        choices=get_args(IOKind),
        help="frames (default): uint8 (N, H, W, 3); float: float32 (N, 3, H, W) in [0, 1]",
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        help="fp32 (default), or fp16, which keeps coordinates, mean and blend in float32",
    )
    parser.add_argument(
        "--flow-scale",
        type=float,
        metavar="S",
        help="relative size at which motion is estimated (default 1; 0.5 for 4K)",
    )
    parser.add_argument(
        "--timesteps",
        type=int,
        metavar="N",
        help="time steps of one pair in one call, encoded once (default 1)",
    )
    parser.add_argument(
        "--dynamic", action="store_const", const=True, help="leave height and width free"
    )
    parser.add_argument(
        "--warp",
        choices=get_args(Warp),
        help="gridsample (default), or gather: elementary operations, where that is missing",
    )
    parser.add_argument(
        "--time",
        choices=get_args(TimeSteps),
        help="what the weights know of time (default: what their file says, else a trial)",
    )


def graph_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was given of the above, named as the fields of `ExportOptions`."""
    given = {
        name: getattr(args, name)
        for name in ("io", "precision", "flow_scale", "timesteps", "dynamic", "warp")
        if getattr(args, name) is not None
    }
    if args.size is not None:
        given["height"], given["width"] = args.size
    return given
