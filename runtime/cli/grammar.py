"""The words of the command lines, which all commands share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ALIASES: dict[str, dict[str, str]] = {
    "export.triton": {"--version": "--model-version"},
}
"""Module of a command -> earlier name of an option -> its name. They are accepted for one version.

`--version` is an option of every command; it stands for another one only before a number.
"""


def with_current_names(argv: Sequence[str], aliases: Mapping[str, str]) -> list[str]:
    """Replaces earlier names of options in a command line; the values stay as they are.

    Args:
        argv: Arguments of the command.
        aliases: Earlier name -> name, one entry of `ALIASES`.
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
