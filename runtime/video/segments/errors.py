"""The exception for videos that cannot be rendered in segments."""

from __future__ import annotations

from runtime.errors import InterpolationError


class SeamError(InterpolationError):
    """Decoding from a key frame gives other frames than decoding from the beginning."""
