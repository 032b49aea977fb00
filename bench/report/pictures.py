"""The images of a report's viewer: reference, artefact and error of the same new frame."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any, NamedTuple

from bench.environment import MeasurementError
from bench.report.evidence import Evidence
from bench.report.text import one_line


class Pictures(NamedTuple):
    """The data of the viewer.

    Attributes:
        groups: A label and numbered options for each parity file.
        data: "images", data URIs, and "views", whose "reference", "made" and "error" are indices
            of images; a view's number in `groups` is its index plus 1.
    """

    groups: list[tuple[str, list[tuple[int, str]]]]
    data: dict[str, list[Any]]


def read_pictures(evidence: Evidence) -> Pictures:
    """Reads the images of all parity files.

    Raises:
        MeasurementError: If an image is missing, is not a PNG file, or is outside the folder of its
            parity file.
    """
    images: dict[str, int] = {}
    views: list[dict[str, Any]] = []
    groups = []
    for parity in evidence.parities:
        title = parity.configuration["title"]
        options = []
        for picture in parity.summary["pictures"]:
            kinds = {
                "reference": picture["reference"],
                "made": picture["made"],
                "error": picture["error"],
            }
            view: dict[str, Any] = {}
            for kind, relative in kinds.items():
                uri, size = _read_png(parity.path, relative)
                # The same image, such as the reference of several artefacts, is stored once.
                view[kind] = images.setdefault(uri, len(images))
                view["width"], view["height"] = size
            decibel = picture["psnr"]
            agreement = "identical" if decibel is None else f"{decibel:.1f} dB"
            name = f"{picture['sample']}, t = {picture['timestep']:g}, {picture['artefact']}"
            views.append({**view, "title": one_line(f"{title}, {name}"), "agreement": agreement})
            options.append((len(views), f"{name}: {agreement}"))
        if options:
            groups.append((f"{title}, {parity.configuration['weights']['variant']}", options))
    return Pictures(groups, {"images": list(images), "views": views})


def _read_png(evidence: Path, relative: str) -> tuple[str, tuple[int, int]]:
    """A PNG file as a data URI, and its width and height."""
    from PIL import Image, UnidentifiedImageError

    path = evidence.parent / relative
    # A page with evidence of somebody else must not publish other files of this machine.
    if not path.resolve().is_relative_to(evidence.parent.resolve()):
        raise MeasurementError(
            f"{evidence} names the image {relative}, which is not in its folder: measure again "
            "with --pictures"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MeasurementError(
            f"{path}, an image of {evidence}, cannot be read ({error.strerror}): "
            "copy the folder of images next to that file, or measure again"
        ) from error
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            size = image.size
    except UnidentifiedImageError as error:
        raise MeasurementError(
            f"{path}, an image of {evidence}, is not a PNG file: measure again with --pictures"
        ) from error
    return f"data:image/png;base64,{base64.b64encode(content).decode()}", size
