"""The worst frames as PNG: what PyTorch made, what the artefact made, and where they differ."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.quality.metrics import ImageArray, psnr
from runtime.files import written_beside

ERROR_GAIN = 16
"""An error of a sixteenth of the range is the brightest colour of the heat map."""


def heat_map(reference: ImageArray, made: ImageArray) -> NDArray[np.uint8]:
    """The largest of the three colours' errors, times `ERROR_GAIN`, as uint8 (H, W, 3).

    Black is no error; matplotlib's inferno, which grows evenly in brightness.
    """
    from matplotlib import colormaps

    error = np.abs(made - reference).max(axis=2) * ERROR_GAIN
    coloured: NDArray[np.uint8] = colormaps["inferno"](error.clip(0, 1), bytes=True)[..., :3]
    return np.ascontiguousarray(coloured)


def write_images(
    folder: Path,
    reference: ImageArray,
    made: ImageArray,
    *,
    sample: str,
    timestep: float,
    artefact: str,
    relative_to: Path | None,
) -> dict[str, Any]:
    """Writes the three PNGs of one new frame.

    Args:
        folder: Is made where it is missing.
        reference: (H, W, 3), floats in [0, 1].
        made: As `reference`.
        sample: Name of the sample.
        timestep: Of the new frame.
        artefact: Its name.
        relative_to: The file that names them; their paths are given from its folder.

    Returns:
        What they show, and their paths, as plain data.

    Raises:
        OSError: If they cannot be written.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.-]+", "_", f"{sample}_{timestep:g}_{artefact}")
    images = {
        "reference": np.rint(reference * 255).astype(np.uint8),
        "made": np.rint(made * 255).astype(np.uint8),
        "error": heat_map(reference, made),
    }
    base = Path() if relative_to is None else relative_to.parent
    found: dict[str, Any] = {
        "sample": sample,
        "timestep": timestep,
        "artefact": artefact,
        "psnr": psnr(made, reference),
    }
    for kind, image in images.items():
        path = folder / f"{stem}_{kind}.png"
        with written_beside(path) as beside:
            Image.fromarray(image).save(beside, optimize=True)
        found[kind] = Path(os.path.relpath(path, base)).as_posix()
    return found
