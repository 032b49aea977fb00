"""Placeholders and earlier names of options, the same for all commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

METAVARS = {
    "IN": "a video, a folder of images or another input",
    "OUT": "a video, a folder of images or another output",
    "FILE": "a file",
    "DIR": "a folder",
    "PATH": "a file or a folder",
    "MODEL": "an artefact: an engine or an ONNX file; where the help says so, a model of Triton",
    "NAME": "a name, of those that the help lists or of your own",
    "TEXT": "free text in one argument",
    "HxW": "height and width in pixels, as 256x448",
    "DEVICE": "cpu, cuda or cuda:N",
    "ADDRESS": "a Ray cluster: local, auto, HOST:PORT or ray://HOST:PORT",
    "N": "a whole number",
    "X": "a number",
    "R": "frames per second, as 60, 59.94 or 60000/1001",
    "S": "seconds",
    "T": "a time in a video, as 90.5 or 1:30.5",
    "US": "microseconds",
    "DB": "decibels",
    "MIB": "mebibytes",
}
"""Placeholder of a value in --help -> its meaning."""

_PRECISION = {"--inference-precision": "--precision"}
_RATE = {"--fps": "--rate"}
_GRAPH = {"--timesteps": "--steps-per-call"}

ALIASES: dict[str, dict[str, str]] = {
    "runtime": _RATE | _PRECISION,
    "runtime.cluster": _RATE,
    "export.build_engine": {**_GRAPH, "--force": "--rebuild"},
    "export.to_onnx": _GRAPH,
    "export.triton": {"--version": "--model-version"},
    "bench.latency": {**_PRECISION, "--no-cold": "--no-cold-start"},
    "bench.parity": {**_PRECISION, "--force": "--allow-mismatch"},
}
"""Module of a command -> earlier name of an option -> its current name.

Earlier names are accepted for one version. `--version` is also an option of every command: it is
an earlier name only before a number.
"""


def with_current_names(argv: Sequence[str], aliases: Mapping[str, str]) -> list[str]:
    """Replaces earlier names of options in a command line; values do not change.

    Args:
        argv: Arguments of the command.
        aliases: Earlier name -> current name, one entry of `ALIASES`.
    """
    end = list(argv).index("--") if "--" in argv else len(argv)
    renamed = []
    for number, word in enumerate(argv[:end]):
        name, equals, value = word.partition("=")
        follows = value if equals else "".join(argv[number + 1 : number + 2])
        if name in aliases and (name != "--version" or follows.isdigit()):
            word = aliases[name] + equals + value
        renamed.append(word)
    return [*renamed, *argv[end:]]
