"""How far the frame of a run is from that of a reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def agreement(
    expected: NDArray[np.float32], made: NDArray[np.float32], reference: str
) -> dict[str, Any]:
    """The evidence's "agreement": how far pictures are from those of a reference.

    Args:
        expected: In [0, 1].
        made: In [0, 1], of the same shape.
        reference: What made `expected`.

    Returns:
        "psnr_db": null where the pictures are identical or not finite; "finite": whether all
        values are; "max_difference": of 1.0, null where not finite; "reference".
    """
    difference = np.abs(expected.astype(np.float64) - made)
    finite = bool(np.isfinite(difference).all())
    error = float(np.square(difference).mean()) if finite else 0.0
    return {
        "psnr_db": -10 * math.log10(error) if error > 0 else None,
        "finite": finite,
        "max_difference": float(difference.max()) if finite else None,
        "reference": reference,
    }
