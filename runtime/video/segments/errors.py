"""The error that parts which do not fit together raise."""

from __future__ import annotations

from runtime.errors import InterpolationError


class SeamError(InterpolationError):
    """A video cannot be decoded from one of its key frames as it is from the beginning."""
