"""Command-line arguments of the exported graph, shared by the commands. Imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from export.request import GraphRequest, Size, TracedPrecision
from runtime.cli.arguments import parse_size
from runtime.model_info import IOKind, TimeSteps, Warp


def add_graph_arguments(
    parser: argparse._ActionsContainer, *, several_sizes: bool = False, int8: bool = False
) -> None:
    """Adds the arguments that describe the exported graph; `graph_request` reads them.

    Args:
        parser: The parser, or a group of it, to add them to.
        several_sizes: Whether --size takes several sizes.
        int8: Whether --precision accepts int8.
    """
    several = ", one TensorRT engine for each" if several_sizes else ""
    engine = "; for a TensorRT engine 256x448" if several_sizes else ""
    stacked = "" if several_sizes else ", stacked is one input for filters of video frameworks"
    float_default = "fp16 for TensorRT, else fp32" if several_sizes else "fp32"
    except_engines = ", except for TensorRT" if several_sizes else ""
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--size",
        type=parse_size,
        nargs="+" if several_sizes else None,
        metavar="HxW",
        help=f"height and width of the frames{several}; with --dynamic only used for tracing "
        f"(default: any size{engine})",
    )
    sizes.add_argument(
        "--like",
        type=Path,
        metavar="PATH",
        help="take the size from a video or a folder of images",
    )
    parser.add_argument(
        "--io",
        choices=[kind for kind in get_args(IOKind) if kind != "stacked" or not several_sizes],
        help="type of the images: frames is uint8 (N, H, W, 3), float is float32 (N, 3, H, W) in "
        f"[0, 1]{stacked} (default frames)",
    )
    parser.add_argument(
        "--precision",
        choices=(*get_args(TracedPrecision), *(["int8"] if int8 else [])),
        help="type of the convolutions; with fp16, coordinates, mean and blend stay float32"
        + ("; int8 is for CPUs and needs --calibrate" if int8 else "")
        + f" (default: {float_default})",
    )
    parser.add_argument(
        "--flow-scale",
        type=float,
        metavar="X",
        help="size at which motion is estimated, relative to the frames (default 1; 0.5 is much "
        "faster above 1920x1080)",
    )
    parser.add_argument(
        "--steps-per-call",
        dest="timesteps",
        type=int,
        metavar="N",
        help="number of time steps of one pair in one call; the pair is encoded once (default 1)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="pairs in one call, each with its own time step (default 1)",
    )
    parser.add_argument(
        "--max-batch",
        type=int,
        metavar="N",
        help="accept any number of pairs in a call up to N, for servers that batch the requests "
        "of several clients (export.triton)",
    )
    parser.add_argument(
        "--dynamic",
        action="store_const",
        const=True,
        help=f"accept any height and width (default without --size{except_engines})",
    )
    parser.add_argument(
        "--warp",
        choices=get_args(Warp),
        help="how a warp is exported: as the operator GridSample (default), or as gather, with "
        "elementary operators only",
    )
    parser.add_argument(
        "--tta",
        action="store_const",
        const=True,
        help="test-time augmentation: return the mean of two results, for the frames and for the "
        "frames flipped in both axes; takes about twice the time",
    )
    parser.add_argument(
        "--time",
        choices=get_args(TimeSteps),
        help="time steps that the weights were trained for (default: as stated by the file or "
        "published, else by a trial)",
    )


def sizes_of(args: argparse.Namespace) -> tuple[Size, ...]:
    """The sizes (height, width) in pixels of --size or --like; () if neither was given.

    Raises:
        VideoError: If the file of --like cannot be read.
    """
    if args.like is not None:
        from runtime.video.reading.source import open_source  # Needs PyAV.

        with open_source(args.like) as source:
            return ((source.info.height, source.info.width),)
    if args.size is None:
        return ()
    return tuple(args.size) if isinstance(args.size, list) else (args.size,)


def graph_request(args: argparse.Namespace) -> GraphRequest:
    """Reads the arguments of `add_graph_arguments`, except for --size, --like and --time."""
    return GraphRequest(
        io=args.io,
        precision=args.precision,
        flow_scale=args.flow_scale,
        timesteps=args.timesteps,
        batch=args.batch,
        max_batch=args.max_batch,
        dynamic=bool(args.dynamic),
        warp=args.warp,
        tta=bool(args.tta),
    )
