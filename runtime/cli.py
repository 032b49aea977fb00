"""Shared by all commands: parsers, exit codes, and errors as one sentence or a traceback."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, get_args

from runtime.backends.base import TRITON_SCHEME, InferencePrecision
from runtime.errors import InterpolationError


def command_parser(prog: str, description: str, *examples: str) -> argparse.ArgumentParser:
    """A parser with examples at the end of its help, and `--debug`."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog="\n  ".join(("example:" if len(examples) == 1 else "examples:", *examples)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


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


def run_command(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], int | None],
    *,
    extra: str,
    expected: tuple[type[Exception], ...] = (),
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Parses the arguments, runs the command and exits with its code.

    The exit code is 1 after an error and 130 after Ctrl-C.

    Args:
        parser: Made by `command_parser`.
        command: Does the work and returns the exit code; None is 0. It imports heavy and optional
            packages itself.
        extra: The extra of ifrnet-deploy that installs the packages which the command imports.
        expected: Exceptions to show as a sentence, besides InterpolationError and OSError.
        argv: Arguments; by default those of the process.
    """
    args = parser.parse_args(argv)
    handled: tuple[type[Exception], ...] = (InterpolationError, OSError, *expected)
    try:
        code = command(args) or 0
    except ModuleNotFoundError as error:
        if args.debug:
            raise
        print(
            f"{parser.prog}: error: the package {error.name} is not installed: "
            f"pip install 'ifrnet-deploy[{extra}]'",
            file=sys.stderr,
        )
        code = 1
    except handled as error:
        if args.debug:
            raise
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
