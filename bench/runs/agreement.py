"""Compares images of a run with those of a reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.records.latency import ImageAgreement


def agreement(
    expected: NDArray[np.float32], images: NDArray[np.float32], reference: str
) -> ImageAgreement:
    """The evidence's "agreement" of images with those of a reference.

    Args:
        expected: Images of the reference, any shape, values in [0, 1].
        images: Images of the run, of the same shape and range.
        reference: Name of the reference.

    Returns:
        "psnr_db": PSNR in dB, None if the images are identical or not finite;
        "finite": whether all values are finite;
        "max_difference": largest absolute difference, None if not finite;
        "reference": the name.
    """
    difference = np.abs(expected.astype(np.float64) - images)
    finite = bool(np.isfinite(difference).all())
    error = float(np.square(difference).mean()) if finite else 0.0
    return {
        "psnr_db": -10 * math.log10(error) if error > 0 else None,
        "finite": finite,
        "max_difference": float(difference.max()) if finite else None,
        "reference": reference,
    }


def agreement_of_frames(
    expected: Sequence[NDArray[Any]], frames: Sequence[NDArray[Any]], reference: str
) -> ImageAgreement:
    """The evidence's "agreement" of new frames with those of a reference.

    Args:
        expected: New frames of the reference, uint8 (H, W, 3).
        frames: New frames of the run, like `expected`.
        reference: Name of the reference.

    Returns:
        What `agreement` returns for all frames together, and in addition "frames", their number,
        and "worst_psnr_db", the lowest PSNR of one frame in dB, None if all are identical.
    """
    each = [
        agreement(_as_floats(wanted), _as_floats(frame), reference)
        for wanted, frame in zip(expected, frames, strict=True)
    ]
    decibels = [one["psnr_db"] for one in each]
    error = math.fsum(0.0 if db is None else 10 ** (-db / 10) for db in decibels) / len(each)
    return {
        "psnr_db": -10 * math.log10(error) if error > 0 else None,
        "finite": True,  # Bytes are.
        "max_difference": max(one["max_difference"] or 0.0 for one in each),
        "reference": reference,
        "frames": len(each),
        "worst_psnr_db": min((db for db in decibels if db is not None), default=None),
    }


def _as_floats(frame: NDArray[Any]) -> NDArray[np.float32]:
    """A uint8 frame as float32 in [0, 1]."""
    scaled: NDArray[np.float32] = frame.astype(np.float32) / np.float32(255)
    return scaled
