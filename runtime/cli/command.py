"""Builds parsers and runs commands: exit codes, and errors as one sentence or a traceback."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from runtime import __version__
from runtime.cli.grammar import with_current_names
from runtime.cli.interrupt import exit_interrupted, interruptible
from runtime.cli.streams import repair_streams
from runtime.errors import InterpolationError, first_line, install_command

VERSION = f"ifrnet-deploy {__version__}"
"""The output of --version."""

_EXTRAS = {"onnxruntime": "cpu", "openvino": "openvino"}
"""Package of a backend -> the extra that installs it.

The extras of commands install no backend, since the user chooses it: a backend may be missing
although the extra of the command is installed.
"""


def command_parser(prog: str, description: str, *examples: str) -> argparse.ArgumentParser:
    """A parser with examples at the end of its help, `--version` and `--debug`.

    Args:
        prog: Name of the command in its help, for example "ifrnet video".
        description: What the command does, as a sentence.
        examples: Command lines, in which %(prog)s stands for `prog`.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog="\n  ".join(("example:" if len(examples) == 1 else "examples:", *examples)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=VERSION, help="show the version and exit"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def run_command(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], int | None],
    *,
    extra: str,
    expected: tuple[type[Exception], ...] = (),
    aliases: Mapping[str, str] | None = None,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Parses the arguments, runs the command and exits with its code.

    The exit code is 1 after an error, 130 after Ctrl-C and 143 after SIGTERM. Standard streams
    that are closed or broken do not change it.

    Args:
        parser: From `command_parser`.
        command: Receives the parsed arguments and returns the exit code; None is 0. It imports
            large and optional packages itself.
        extra: The extra of ifrnet-deploy that installs the packages which the command imports.
        expected: Exceptions to show as a sentence, besides InterpolationError and OSError.
        aliases: The entry of `ALIASES` for the command, if it has one.
        argv: Arguments; by default those of the process.
    """
    repair_streams()
    given = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(with_current_names(given, aliases or {}))
    handled: tuple[type[Exception], ...] = (InterpolationError, OSError, *expected)
    try:
        with interruptible():
            code = command(args) or 0
            sys.stdout.flush()
    except ModuleNotFoundError as error:
        if args.debug:
            raise
        print(
            f"{parser.prog}: error: the package {error.name} is not installed: "
            f"{install_command(_EXTRAS.get(error.name or '', extra))}",
            file=sys.stderr,
        )
        code = 1
    except MemoryError as error:
        if args.debug:
            raise
        print(
            f"{parser.prog}: error: there is not enough memory ({first_line(error)}): close other "
            "programs, or give smaller frames",
            file=sys.stderr,
        )
        code = 1
    except handled as error:
        if args.debug:
            raise
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        exit_interrupted(parser.prog)
    sys.exit(code)
