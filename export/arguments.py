"""The arguments that say what graph is made, shared by the commands; imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import get_args

from export.request import GraphRequest, TracedPrecision
from runtime.cli import parse_size
from runtime.model_info import IOKind, TimeSteps, Warp


def add_graph_arguments(
    parser: argparse.ArgumentParser, *, several_sizes: bool = False, int8: bool = False
) -> None:
    """The arguments that say what is exported; `graph_request` reads them.

    Args:
        parser: Gets them.
        several_sizes: --size takes a list; `args.size` is one then.
        int8: --precision takes int8 too.
    """
    more = "; several: one TensorRT engine for each" if several_sizes else ""
    parser.add_argument(
        "--size",
        type=parse_size,
        nargs="+" if several_sizes else None,
        metavar="HxW",
        help=f"height x width of the frames (default 256x448; with --dynamic what is traced{more})",
    )
    parser.add_argument(
        "--io",
        choices=get_args(IOKind),
        help="frames (default): uint8 (N, H, W, 3); float: float32 (N, 3, H, W) in [0, 1]",
    )
    parser.add_argument(
        "--precision",
        choices=(*get_args(TracedPrecision), *(["int8"] if int8 else [])),
        help="fp32, or fp16, which keeps coordinates, mean and blend in float32"
        + (", or int8, for CPUs, with --calibrate" if int8 else "")
        + " (default: fp16 for TensorRT, else fp32)",
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
        "--batch",
        type=int,
        metavar="N",
        help="pairs in one call, each with a time step of its own (default 1)",
    )
    parser.add_argument(
        "--max-batch",
        type=int,
        metavar="N",
        help="leave the number of pairs in a call free, up to N, for servers that gather the "
        "requests of several clients (export.triton)",
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


def graph_request(args: argparse.Namespace) -> GraphRequest:
    """What was given of the arguments that `add_graph_arguments` adds, but for size and time."""
    return GraphRequest(
        io=args.io,
        precision=args.precision,
        flow_scale=args.flow_scale,
        timesteps=args.timesteps,
        batch=args.batch,
        max_batch=args.max_batch,
        dynamic=bool(args.dynamic),
        warp=args.warp,
    )
