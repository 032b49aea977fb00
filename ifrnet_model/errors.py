"""The exception of this package, and lists of names for messages."""

_NAMES_SHOWN = 4
_CHARACTERS_SHOWN = 200


class CheckpointError(Exception):
    """A checkpoint cannot be downloaded, loaded or written; the message says what to do."""


def shortened(names: list[str]) -> str:
    """The names as a list for a message; after four names, the number of the others.

    The end of a name of more than 200 characters is left out.
    """
    shown = ", ".join(
        name if len(name) <= _CHARACTERS_SHOWN else f"{name[:_CHARACTERS_SHOWN]}..."
        for name in names[:_NAMES_SHOWN]
    )
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
