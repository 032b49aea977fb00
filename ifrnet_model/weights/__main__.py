"""Lists, downloads, inspects and converts checkpoints of IFRNet.

python -m ifrnet_model.weights list
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from ifrnet_model import __version__
from ifrnet_model.errors import CheckpointError, printable
from ifrnet_model.weights import table

_PROG = "python -m ifrnet_model.weights"
_ORIGINS = {
    "user": "given by --time",
    "source": "stated by the source",
    "published": "as published",
    "trial": "found by a trial",
}
"""Where the time steps of a converted file come from, as its metadata names it -> as text."""

_SHOWN_DIGITS = 8


def _list(args: argparse.Namespace) -> None:
    data = [_as_data(known) for known in table.CHECKPOINTS]
    _show(args.json, data, _table_lines(args.prog))


def _show(json_file: str | None, data: Any, lines: Iterable[str]) -> None:
    """Prints the lines; writes the data to the file as JSON, or with "-" prints it instead."""
    text = json.dumps(data, indent=2)
    print(text if json_file == "-" else printable("\n".join(lines)))
    if json_file not in (None, "-"):
        Path(str(json_file)).write_text(text + "\n")


def _as_data(known: table.KnownCheckpoint) -> dict[str, Any]:
    figures = {dataset: figure._asdict() for dataset, figure in known.figures.items()}
    return {**asdict(known), "figures": figures}


def _table_lines(prog: str) -> Iterator[str]:
    rows = [("name", "variant", "time steps", "MB", "PSNR, dB", "sha256", "licence", "available")]
    for known in table.CHECKPOINTS:
        # On the test part of its training set.
        figure = known.figures.get(known.training_set.lower())
        shipped = known.name == table.DEMO_WEIGHTS.name
        rows.append(
            (
                Path(known.name).stem,
                known.variant,
                known.time_steps,
                f"{known.megabytes}" if known.megabytes else "?",
                f"{figure.psnr:.2f}" if figure else "-",
                known.sha256[:_SHOWN_DIGITS] if known.sha256 else "?",
                known.licence,
                "shipped: --weights demo" if shipped else "download" if known.url else "share page",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
    yield ""
    yield "PSNR: as published, on the test part of the training set (Vimeo90K or GoPro); -: none."
    yield "?: not published."
    yield f"share page: {prog} download NAME prints the link."


def _download(args: argparse.Namespace) -> None:
    from ifrnet_model.weights.download import download_checkpoint
    from ifrnet_model.weights.progress import ByteProgress

    with ByteProgress(args.name) as shown:
        done = download_checkpoint(
            args.name, args.output, force=args.overwrite, progress=shown.update, note=shown.note
        )
    if done.known.sha256 is None:
        check = "not published: only the size and the file format were checked"
    else:
        whole = len(done.known.sha256) == len(done.sha256)
        check = "as published" if whole else f"the published {len(done.known.sha256)} digits match"
    print(f"{done.path}: {'exists already and is valid' if done.existed else 'downloaded'}")
    print(f"  sha256 {done.sha256} ({check})")
    print(
        f"  variant {done.known.variant}, time steps: {done.known.time_steps}, licence: "
        f"{done.known.licence}"
    )


def _inspect(args: argparse.Namespace) -> None:
    from ifrnet_model.weights.inspection import inspect_checkpoint, inspection_lines

    inspection = inspect_checkpoint(args.file)
    _show(args.json, inspection.as_data(), inspection_lines(inspection))


def _convert(args: argparse.Namespace) -> None:
    from ifrnet_model.weights.convert import convert_checkpoint

    done = convert_checkpoint(
        args.file, args.out, dtype=args.dtype, time_steps=args.time, force=args.overwrite
    )
    print(f"{done.path}: written, read back and compared with {args.file}")
    print(f"  sha256 {done.sha256}")
    print(f"  largest difference between source and copy: {done.largest_difference:.1e}")
    if done.names:
        print(f"  parameter names in the source: {printable(done.names)}")
    if done.note:
        print(f"  {done.note}")
    origin = _ORIGINS.get(done.metadata["timesteps_from"], done.metadata["timesteps_from"])
    variant = done.metadata["variant"]
    print(f"  variant {variant}, time steps: {done.metadata['timesteps']} ({printable(origin)})")


def make_parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """The parser of the command, which is called as `prog`."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__.splitlines()[0] if __doc__ else None,
        epilog=f"example:\n  {prog} download IFRNet_vimeo90k-7a66b214",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_version(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, run: Callable[[argparse.Namespace], None], text: str, example: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example:\n  {prog} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_version(command)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.set_defaults(run=run, prog=prog)
        return command

    command = add("list", _list, "Shows the known checkpoints.", "list")
    _add_json(command)

    command = add(
        "download",
        _download,
        "Downloads a known checkpoint, resuming a partial download, and checks its hash.",
        "download IFRNet_vimeo90k-7a66b214 --output weights",
    )
    command.description = (
        f"{command.description}\n\nProxies: https_proxy and http_proxy. IFRNET_WEIGHTS_MIRROR: "
        "base URL of a server that has\nthe files under their names. The authors' checkpoints can "
        "only be downloaded from such a server."
    )
    command.add_argument("name", metavar="NAME", help="a name shown by list, or demo")
    command.add_argument(
        "--output", default=".", metavar="DIR", help="path of the folder (default %(default)s)"
    )
    _add_overwrite(command)

    command = add(
        "inspect",
        _inspect,
        "Shows what a checkpoint file contains, and tries its time steps on a moving pattern.",
        "inspect IFRNet_S_Vimeo90K.pth",
    )
    command.add_argument("file", metavar="FILE", help="checkpoint: .pth, .safetensors, or demo")
    _add_json(command)

    command = add(
        "convert",
        _convert,
        "Converts a checkpoint to safetensors with its origin as metadata, or to a .pth file as "
        "the authors publish. Both have the authors' parameter names.",
        "convert IFRNet_S_GoPro.pth IFRNet_S_GoPro.safetensors --dtype float16",
    )
    command.add_argument("file", metavar="IN", help="checkpoint: .pth, .safetensors, or demo")
    command.add_argument(
        "out", metavar="OUT", help="path of the .safetensors or .pth file to write"
    )
    command.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="type of the tensors to write (default %(default)s)",
    )
    command.add_argument(
        "--time",
        choices=("midpoint", "arbitrary"),
        help="time steps that the weights were trained for (default: as stated or published, else "
        "by a trial)",
    )
    _add_overwrite(command)
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write all fields as JSON; without FILE, print JSON instead of text",
    )


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    # The earlier name, for one version.
    parser.add_argument("--force", dest="overwrite", action="store_true", help=argparse.SUPPRESS)


def _add_version(parser: argparse.ArgumentParser) -> None:
    version = f"ifrnet-deploy {__version__}"
    parser.add_argument(
        "--version", action="version", version=version, help="show the version and exit"
    )


def main(argv: Sequence[str] | None = None, *, prog: str = _PROG) -> NoReturn:
    """Runs the command and exits: with 0, with 1 after an error, with 130 or 143 after a signal.

    Repeats `runtime.cli.command.run_command`, because this package does not import `runtime`.
    """
    _open_closed_streams()
    try:
        sys.exit(_run(argv, prog))
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # The reader, such as head, has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Terminated(KeyboardInterrupt):
    """The process received SIGTERM."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Makes the block raise _Terminated after SIGTERM, unless the process handles or ignores it."""

    def terminate(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise _Terminated

    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(argv: Sequence[str] | None, prog: str) -> int:
    try:
        args = make_parser(prog).parse_args(argv)  # Prints --help, before Python 3.12 unguarded.
    except BrokenPipeError:
        return 0
    try:
        with _terminable():
            args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        return 0
    except (CheckpointError, OSError, ModuleNotFoundError) as error:
        if args.debug:
            raise
        message = str(error)
        if isinstance(error, ModuleNotFoundError):
            message = (
                f"the package {error.name} is not installed: pip install 'ifrnet-deploy[export]'"
            )
        print(f"{prog}: error: {printable(message)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # A second Ctrl-C ends the process at once.
        terminated = isinstance(stop, _Terminated)
        how = "ended by SIGTERM" if terminated else "interrupted"
        print(f"{prog}: {how}", file=sys.stderr, flush=True)
        # At its normal end Python may replace the code by the signal.
        os._exit(143 if terminated else 130)
    return 0


def _open_closed_streams() -> None:
    """Opens the null device in place of standard streams that are closed or missing."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: PTH123, SIM115


if __name__ == "__main__":
    main()
