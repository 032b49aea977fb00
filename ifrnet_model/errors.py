"""The exception of this package, and texts for messages and output."""

import re

_NAMES_SHOWN = 4
_CHARACTERS_SHOWN = 200

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, other ends of lines, changes of direction, and what has no encoding."""


class CheckpointError(Exception):
    """A checkpoint cannot be downloaded, loaded or written; the message says what to do."""


def printable(text: str) -> str:
    """The text with control characters, which a terminal would act on, as escapes.

    Tabs and ends of lines stay.
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def shortened(names: list[str]) -> str:
    """The names as a list for a message; after four names, the number of the others.

    The end of a name of more than 200 characters is left out.
    """
    shown = ", ".join(
        name if len(name) <= _CHARACTERS_SHOWN else f"{name[:_CHARACTERS_SHOWN]}..."
        for name in names[:_NAMES_SHOWN]
    )
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
