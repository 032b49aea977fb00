"""Reads tags of containers that are not valid UTF-8."""

from __future__ import annotations

from typing import Any

import av

# From version 19 on PyAV has no such option and keeps invalid bytes as surrogates (`readable`).
_OPTIONS: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)


def open_for_reading(file: Any, **options: Any) -> Any:
    """Opens a container with `av.open`; tags may have any encoding.

    Args:
        file: A path, a URL or a binary file object.
        options: Further arguments of `av.open`.

    Raises:
        av.error.FFmpegError: If the container cannot be opened.
        OSError: If the file cannot be read.
    """
    return av.open(file, **options, **_OPTIONS)


def readable(tags: dict[str, str]) -> dict[str, str]:
    """The tags, with a replacement character for each byte that is not valid UTF-8."""
    return {_valid_text(name): _valid_text(value) for name, value in tags.items()}


def _valid_text(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
