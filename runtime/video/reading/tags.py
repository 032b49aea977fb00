"""Tags of containers, which are not always UTF-8 as they should be."""

from __future__ import annotations

from typing import Any

import av

# Since version 19 PyAV takes no choice and keeps such bytes as surrogates, see `readable`.
_OPTIONS: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)


def open_for_reading(file: Any, **options: Any) -> Any:
    """Opens a container with PyAV whatever the encoding of its tags.

    Args:
        file: See `av.open`.
        options: See `av.open`.

    Raises:
        av.error.FFmpegError: If it cannot be opened.
        OSError: If the file cannot be read.
    """
    return av.open(file, **options, **_OPTIONS)


def readable(tags: dict[str, str]) -> dict[str, str]:
    """Tags in which a replacement character stands for each byte that is not UTF-8."""
    return {_replaced(name): _replaced(value) for name, value in tags.items()}


def _replaced(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
