"""How far two results are apart: PSNR in dB and the largest difference.

Everything is compared before it is rounded to 8 bit, in [0, 1]: images that are 107 dB apart as
floats can be 76 dB apart as bytes, for a byte that flips differs by a whole level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.errors import GateError


@dataclass(frozen=True, eq=False)
class ComparedImages:
    """What one comparison was made of.

    Attributes:
        frame0: The frame before, (H, W, 3).
        frame1: The frame after, (H, W, 3).
        timestep: Time steps (B, 1, 1, 1) inside (0, 1).
        expected: What the reference computed, (B, 3, H', W') in [0, 1].
        actual: What the candidate computed, as `expected`.
    """

    frame0: NDArray[np.uint8]
    frame1: NDArray[np.uint8]
    timestep: NDArray[np.float32]
    expected: NDArray[np.float32]
    actual: NDArray[np.float32]


def compare(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> tuple[float, float]:
    """PSNR in dB (inf where identical, -inf where not finite) and the largest difference.

    Args:
        reference: In [0, 1].
        candidate: In [0, 1], of the same shape.

    Raises:
        GateError: If the shapes differ.
    """
    if reference.shape != candidate.shape:
        raise GateError(
            f"the artefact made {candidate.shape}, its reference made {reference.shape}"
        )
    difference = np.abs(reference.astype(np.float64) - candidate)
    if not np.isfinite(difference).all():
        return -math.inf, math.inf
    error = float(np.square(difference).mean())
    psnr = math.inf if error == 0 else -10 * math.log10(error)
    return psnr, float(difference.max(initial=0.0))


def decibels(psnr: float) -> float | None:
    """A PSNR as JSON can hold it: two digits after the point; None where it is infinite."""
    return None if math.isinf(psnr) else round(psnr, 2)
