"""The command line of the checkpoints.

python -m ifrnet_model.weights list
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from ifrnet_model.errors import CheckpointError
from ifrnet_model.weights import table

_PROG = "python -m ifrnet_model.weights"
_SHOWN_DIGITS = 8


def _list(args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps([_as_data(known) for known in table.CHECKPOINTS], indent=2))
        return
    for line in _table_lines():
        print(line)


def _as_data(known: table.KnownCheckpoint) -> dict[str, Any]:
    figures = {dataset: figure._asdict() for dataset, figure in known.figures.items()}
    return {**asdict(known), "figures": figures}


def _table_lines() -> Iterator[str]:
    rows = [("name", "variant", "time steps", "MB", "PSNR, dB", "sha256", "licence", "to get it")]
    for known in table.CHECKPOINTS:
        # On the test set of what it was trained on.
        figure = known.figures.get(known.training_set.lower())
        here = known.name == table.DEMO_WEIGHTS.name
        rows.append(
            (
                Path(known.name).stem,
                known.variant,
                known.time_steps,
                f"{known.megabytes}" if known.megabytes else "?",
                f"{figure.psnr:.2f}" if figure else "-",
                known.sha256[:_SHOWN_DIGITS] if known.sha256 else "?",
                known.licence,
                "is here: --weights demo" if here else "download" if known.url else "share page",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
    yield ""
    yield "PSNR: published, on the test part of Vimeo90K or GoPro, as the name says."
    yield f"share page: {_PROG} download NAME says where."


def _download(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from ifrnet_model.weights.fetch import download_checkpoint

    with tqdm(unit="B", unit_scale=True, desc=args.name, disable=None, leave=False) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        def note(line: str) -> None:
            bar.write(line, file=sys.stderr)

        done = download_checkpoint(
            args.name, args.output, force=args.force, progress=progress, note=note
        )
    if done.known.sha256 is None:
        proof = "no hash of it is published, so size and kind of file were checked alone"
    else:
        whole = len(done.known.sha256) == len(done.sha256)
        proof = "as published" if whole else f"the published {len(done.known.sha256)} digits fit"
    print(f"{done.path}{' is there already' if done.was_there else ''}")
    print(f"  sha256 {done.sha256} ({proof})")
    print(f"  {done.known.variant}, time steps: {done.known.time_steps}, {done.known.licence}")


def _inspect(args: argparse.Namespace) -> None:
    from ifrnet_model.weights.inspection import inspect_checkpoint, inspection_lines

    found = inspect_checkpoint(args.file)
    if args.json:
        print(json.dumps(found.as_data(), indent=2))
        return
    for line in inspection_lines(found):
        print(line)


def _convert(args: argparse.Namespace) -> None:
    from ifrnet_model.weights.convert import convert_checkpoint

    done = convert_checkpoint(
        args.file, args.out, dtype=args.dtype, time_steps=args.time, force=args.force
    )
    print(f"{done.path}: loaded again and compared")
    print(f"  sha256 {done.sha256}")
    print(f"  largest difference of a weight from the source: {done.largest_difference:.1e}")
    told_by = done.metadata["timesteps_from"]
    print(f"  {done.metadata['variant']}, time steps: {done.metadata['timesteps']} ({told_by})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROG,
        description=__doc__.splitlines()[0] if __doc__ else None,
        epilog=f"example:\n  {_PROG} download IFRNet_vimeo90k-7a66b214",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, run: Callable[[argparse.Namespace], None], text: str, example: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example:\n  {_PROG} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.set_defaults(run=run)
        return command

    command = add("list", _list, "Shows the known checkpoints.", "list")
    command.add_argument("--json", action="store_true", help="everything that is known of them")

    command = add(
        "download",
        _download,
        "Loads a known checkpoint, resumes, checks its hash.",
        "download IFRNet_vimeo90k-7a66b214 --output weights",
    )
    command.description = (
        f"{command.description}\n\nProxies: https_proxy and http_proxy. IFRNET_WEIGHTS_MIRROR: "
        "base URL of a server that has\nthe files under their names; the authors' are loaded "
        "from such a one only."
    )
    command.add_argument("name", metavar="NAME", help="as list shows it, or demo")
    command.add_argument("--output", default=".", metavar="FOLDER", help="by default this one")
    command.add_argument("--force", action="store_true", help="replace a file that is there")

    command = add(
        "inspect",
        _inspect,
        "Shows what a checkpoint is, and tries which time steps it knows.",
        "inspect IFRNet_S_Vimeo90K.pth",
    )
    command.add_argument("file", metavar="FILE", help=".pth, .safetensors, or demo")
    command.add_argument("--json", action="store_true")

    command = add(
        "convert",
        _convert,
        "Writes a checkpoint as safetensors, with the authors' names and what is known of it.",
        "convert IFRNet_S_GoPro.pth IFRNet_S_GoPro.safetensors --dtype float16",
    )
    command.add_argument("file", metavar="FILE", help=".pth, .safetensors, or demo")
    command.add_argument("out", metavar="OUT.safetensors")
    command.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    command.add_argument(
        "--time",
        choices=("midpoint", "arbitrary"),
        help="which time steps the weights know; by default as published, or what a trial shows",
    )
    command.add_argument("--force", action="store_true", help="replace a file that is there")
    return parser


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Parses, runs, exits: 0, 1 after an error, 130 after Ctrl-C.

    The runtime's commands do the same by code of their own: this package stands alone.
    """
    args = _parser().parse_args(argv)
    code = 0
    try:
        args.run(args)
    except (CheckpointError, OSError, ModuleNotFoundError) as error:
        if args.debug:
            raise
        message = str(error)
        if isinstance(error, ModuleNotFoundError):
            extra = "weights" if error.name == "tqdm" else "export"
            message = (
                f"the package {error.name} is not installed: pip install 'ifrnet-deploy[{extra}]'"
            )
        print(f"{_PROG}: error: {message}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print(f"{_PROG}: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
