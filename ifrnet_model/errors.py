"""The exception of this package, and lists of names for messages."""

_NAMES_SHOWN = 4


class CheckpointError(Exception):
    """A checkpoint cannot be downloaded, loaded or written; the message says what to do."""


def shortened(names: list[str]) -> str:
    """The names as a list for a message; after four names, the number of the others."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
