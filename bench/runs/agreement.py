"""Compares images of a run with those of a reference."""

from __future__ import annotations

import math

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
