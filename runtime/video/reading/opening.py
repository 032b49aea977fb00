"""Opens files, network streams and Y4M pipes with FFmpeg."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av

from runtime.errors import VideoError
from runtime.video.reading.info import reason
from runtime.video.reading.tags import open_for_reading

_PROTOCOLS = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "rtp", "tcp", "udp")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

_TIMEOUT_S = (15.0, 30.0)
"""Limits for opening a network stream, and for each wait for its data."""


def is_url(path: Any) -> bool:
    """Whether a source is the address of a network stream, as rtsp://camera/1.

    Raises:
        VideoError: If its protocol is not one of those that are supported.
    """
    found = _URL.match(path) if isinstance(path, str) else None
    if found is not None and found[1].lower() not in _PROTOCOLS:
        raise VideoError(
            f"{found[1]}:// is not a supported protocol: give a file, or one of "
            f"{', '.join(_PROTOCOLS)}"
        )
    return found is not None


def name_of(path: Any) -> str:
    """A name for messages; that of a network stream has no password and no query."""
    if isinstance(path, Path):
        return str(path)
    if not is_url(path):
        return "the Y4M stream"
    parts = urlsplit(path)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def open_container(path: Any) -> Any:
    """Opens a source with PyAV.

    Args:
        path: A Path, the address of a network stream, "-" for Y4M on stdin, or a binary file
            object with Y4M.

    Raises:
        VideoError: If it cannot be opened.
    """
    try:
        if isinstance(path, Path):
            # Without "file:" FFmpeg would read a name with a colon as a protocol.
            return open_for_reading(f"file:{path}")
        if is_url(path):
            return open_for_reading(path, timeout=_TIMEOUT_S)
        stream = sys.stdin.buffer if path == "-" else path
        return open_for_reading(stream, format="yuv4mpegpipe")
    except (av.error.FFmpegError, OSError) as error:
        advice = "give a whole file in a format that FFmpeg reads"
        if is_url(path):
            advice = "check the address, and whether the server runs and sends"
        raise VideoError(
            f"{name_of(path)} cannot be read as a video ({reason(error)}): {advice}"
        ) from error
