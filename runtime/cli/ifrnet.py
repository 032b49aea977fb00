"""The console command `ifrnet`: one name for all commands of the project.

ifrnet video in.mp4 out.mp4
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from runtime.cli.command import VERSION
from runtime.cli.interrupt import exit_interrupted, interruptible
from runtime.cli.streams import repair_streams

_PROG = "ifrnet"


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        module: Its module, which has `main(argv, prog=...)` and `make_parser(prog)`.
        summary: Description in one line, for the list of commands.
    """

    module: str
    summary: str


# Names of modules, not imports: a deployed program may have the package `runtime` alone.
COMMANDS = {
    "video": Command("runtime.__main__", "write a video at a higher frame rate"),
    "doctor": Command("runtime.doctor", "report which backends run on this machine"),
    "weights": Command(
        "ifrnet_model.weights.__main__", "list, download, inspect and convert checkpoints"
    ),
    "export": Command("export.to_onnx", "export a checkpoint as an ONNX file"),
    "build": Command(
        "export.build_engine", "build a model for a backend and compare it with PyTorch"
    ),
    "prove": Command(
        "export.prove", "compare a built model in bf16 and fp16 with fp32 on this CPU"
    ),
    "triton": Command(
        "export.triton.__main__", "write built models into a model repository of Triton"
    ),
    "cluster": Command("runtime.cluster.__main__", "interpolate many videos on a Ray cluster"),
    "latency": Command("bench.latency", "measure the time per pair of frames, also of PyTorch"),
    "parity": Command("bench.parity", "compare built models with PyTorch and with true frames"),
    "report": Command("bench.report.__main__", "write tables and a page from measurements"),
    "alternatives": Command(
        "bench.alternatives.__main__",
        "compare this project with other methods on the CPU",
    ),
    "bench-video": Command("bench.video", "measure reading and writing of videos without a model"),
    "bench-cluster": Command(
        "bench.cluster", "measure the speed and the overhead of a Ray cluster"
    ),
}
"""Name -> subcommand, in the order of --help."""


def make_parser() -> argparse.ArgumentParser:
    """The parser of `ifrnet` itself, without the options of its subcommands."""
    width = max(map(len, COMMANDS))
    lines = (f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog=_PROG,
        usage="%(prog)s COMMAND ...",
        description="Interpolates video frames with IFRNet: exports, builds and measures models.",
        epilog="\n".join(
            ("commands:", *lines, "", "%(prog)s COMMAND --help shows the options of a command.")
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=VERSION, help="show the version and exit"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a subcommand and exits with its code; with 2 if there is no such command."""
    repair_streams()
    arguments = sys.argv[1:] if argv is None else list(argv)
    name = arguments[0] if arguments else ""
    if name.startswith("-"):
        make_parser().parse_args(arguments)  # --help and --version exit.
    if name not in COMMANDS:
        _fail(_unknown(name), code=2)
    try:
        with interruptible():
            module = importlib.import_module(COMMANDS[name].module)
    except KeyboardInterrupt:
        exit_interrupted(f"{_PROG} {name}")
    except ModuleNotFoundError as error:
        _fail(
            f"{name} needs the package {error.name}, which is not installed: install all of "
            "ifrnet-deploy",
            code=1,
        )
    module.main(arguments[1:], prog=f"{_PROG} {name}")
    raise AssertionError(f"{COMMANDS[name].module} did not exit")


def _unknown(name: str) -> str:
    every = f"{_PROG} --help lists the commands"
    if not name or name.startswith("-"):
        return f"a command is missing: {every}"
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"{name!r} is not a command: {f'use {near[0]!r}' if near else every}"


def _fail(message: str, *, code: int) -> NoReturn:
    print(f"{_PROG}: error: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
