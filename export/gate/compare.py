"""Compares two results: PSNR in dB and the largest difference.

Images are compared in [0, 1] before they are rounded to 8 bits: 107 dB between floats can be 76 dB
between bytes, because a rounded value that flips differs by a whole level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.errors import GateError


@dataclass(frozen=True, eq=False)
class ComparedImages:
    """The inputs and the results of a comparison.

    Attributes:
        frame0: The first frame, (H, W, 3).
        frame1: The second frame, (H, W, 3).
        timestep: Time steps (B, 1, 1, 1) inside (0, 1).
        expected: The images of the reference, (B, 3, H', W') in [0, 1]; H' and W' are padded for
            float I/O.
        actual: The images of the candidate, of the same shape.
    """

    frame0: NDArray[np.uint8]
    frame1: NDArray[np.uint8]
    timestep: NDArray[np.float32]
    expected: NDArray[np.float32]
    actual: NDArray[np.float32]


def compare(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> tuple[float, float]:
    """PSNR in dB and the largest absolute difference of two images in [0, 1].

    The PSNR is inf for identical images, and -inf if a value is not finite.

    Raises:
        GateError: If the shapes differ.
    """
    if reference.shape != candidate.shape:
        raise GateError(
            f"the artefact returns {candidate.shape}, its reference {reference.shape}: report this"
        )
    difference = np.abs(reference.astype(np.float64) - candidate)
    if not np.isfinite(difference).all():
        return -math.inf, math.inf
    error = float(np.square(difference).mean())
    psnr = math.inf if error == 0 else -10 * math.log10(error)
    return psnr, float(difference.max(initial=0.0))


def decibels(psnr: float) -> float | None:
    """A PSNR in dB for JSON: rounded to two decimals, None if it is infinite."""
    return None if math.isinf(psnr) else round(psnr, 2)
