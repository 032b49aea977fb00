"""Writes the worst frames as PNG files: PyTorch's, the artefact's, and a map of the error."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.quality.metrics import ImageArray, psnr
from bench.records.parity import Picture
from runtime.files import written_beside

ERROR_GAIN = 16
"""Gain of the heat map: an error of 1/16 of the range has the brightest colour."""


def heat_map(reference: ImageArray, image: ImageArray) -> NDArray[np.uint8]:
    """Draws the largest error of the three colours of each pixel, times `ERROR_GAIN`.

    Args:
        reference: (H, W, 3), floats in [0, 1].
        image: Like `reference`.

    Returns:
        uint8 (H, W, 3) in matplotlib's perceptually uniform colours "inferno"; black is no error.
    """
    from matplotlib import colormaps

    error = np.abs(image - reference).max(axis=2) * ERROR_GAIN
    coloured: NDArray[np.uint8] = colormaps["inferno"](error.clip(0, 1), bytes=True)[..., :3]
    return np.ascontiguousarray(coloured)


def write_images(
    folder: Path,
    reference: ImageArray,
    image: ImageArray,
    *,
    sample: str,
    timestep: float,
    artefact: str,
    relative_to: Path | None,
) -> Picture:
    """Writes the three PNGs of one new frame.

    Args:
        folder: Folder of the files; it is created if it is missing.
        reference: New frame of PyTorch, (H, W, 3), floats in [0, 1].
        image: New frame of the artefact, like `reference`.
        sample: Name of the sample.
        timestep: Time step of the new frame.
        artefact: Name of the artefact.
        relative_to: File from whose folder the returned paths start; None: the current folder.

    Returns:
        "sample", "timestep", "artefact" and "psnr" of the new frame; paths of the files as
        "reference", "made" and "error".

    Raises:
        OSError: If a file cannot be written.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.-]+", "_", f"{sample}_{timestep:g}_{artefact}")
    images = {
        "reference": np.rint(reference * 255).astype(np.uint8),
        "made": np.rint(image * 255).astype(np.uint8),
        "error": heat_map(reference, image),
    }
    base = Path() if relative_to is None else relative_to.parent
    written: dict[str, str] = {}
    for kind, pixels in images.items():
        path = folder / f"{stem}_{kind}.png"
        with written_beside(path) as beside:
            Image.fromarray(pixels).save(beside, optimize=True)
        written[kind] = Path(os.path.relpath(path, base)).as_posix()
    return {
        "sample": sample,
        "timestep": timestep,
        "artefact": artefact,
        "psnr": psnr(image, reference),
        "reference": written["reference"],
        "made": written["made"],
        "error": written["error"],
    }
