"""Parsers, exit codes, and errors as one sentence or a traceback."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

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
