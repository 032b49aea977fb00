"""Figures that were published for IFRNet, to be shown beside what is measured."""

from __future__ import annotations

from typing import Any, NamedTuple

from bench.protocols import Metric


class Published(NamedTuple):
    """One published figure.

    Attributes:
        source: Who says so.
        psnr: In dB.
        ssim: As `ssim_kind` defines it.
        ssim_kind: The paper's SSIM or mmagic's; the two are not comparable.
        ie: Middlebury's interpolation error.
    """

    source: str
    psnr: float
    ssim: float | None = None
    ssim_kind: Metric = "ssim_3d"
    ie: float | None = None


_PAPER = "IFRNet, CVPR 2022, tables 1 to 3"


def _paper(psnr: float, ssim: float | None = None, *, ie: float | None = None) -> Published:
    return Published(_PAPER, psnr, ssim, ie=ie)


PAPER: dict[str, dict[str, Published]] = {
    "small": {
        "vimeo90k": _paper(35.59, 0.9786),
        "ucf101": _paper(35.28, 0.9691),
        "snufilm-easy": _paper(39.96, 0.9905),
        "snufilm-medium": _paper(35.92, 0.9792),
        "snufilm-hard": _paper(30.36, 0.9357),
        "snufilm-extreme": _paper(25.05, 0.8582),
        "middlebury": _paper(37.24, ie=1.995),
    },
    "base": {
        "vimeo90k": _paper(35.80, 0.9794),
        "ucf101": _paper(35.29, 0.9693),
        "snufilm-easy": _paper(40.03, 0.9905),
        "snufilm-medium": _paper(35.94, 0.9793),
        "snufilm-hard": _paper(30.41, 0.9358),
        "snufilm-extreme": _paper(25.05, 0.8587),
        "middlebury": _paper(37.50, ie=1.946),
        "gopro": _paper(29.84, 0.920),
        "adobe240": _paper(31.93, 0.943),
    },
    "large": {
        "vimeo90k": _paper(36.20, 0.9808),
        "ucf101": _paper(35.42, 0.9698),
        "snufilm-easy": _paper(40.10, 0.9906),
        "snufilm-medium": _paper(36.12, 0.9797),
        "snufilm-hard": _paper(30.63, 0.9368),
        "snufilm-extreme": _paper(25.27, 0.8609),
        "middlebury": _paper(38.18, ie=1.846),
    },
}
"""By variant and data set. Adobe240's list of videos is not said in the paper."""

_MMAGIC = "mmagic, pull request 1560"

BY_SHA256: dict[str, dict[str, Published]] = {
    "7a66b214": {"vimeo90k": Published(_MMAGIC, 35.7999, 0.9680, "ssim_2d")},
    "5d2f805a": {
        # Its "centre crop" is a random crop in the code: not to be met exactly.
        "gopro": Published(_MMAGIC, 29.9394, 0.8922, "ssim_2d"),
        "adobe240": Published(_MMAGIC, 30.0273, 0.9057, "ssim_2d"),
    },
}
"""By the first eight digits of the checkpoint's sha256, which its published name carries."""


def published(dataset: str, *, sha256: str, variant: str, authors: bool) -> dict[str, Any] | None:
    """The figure to compare with, as plain data.

    Args:
        dataset: A name of `bench.protocols.PROTOCOLS`.
        sha256: Of the weights.
        variant: Of the network.
        authors: The user says that these are the authors' weights, whose hashes are unknown.

    Returns:
        The fields of `Published`; None where nothing is known of these weights.
    """
    known = PAPER[variant] if authors else BY_SHA256.get(sha256[:8], {})
    figure = known.get(dataset)
    return None if figure is None else figure._asdict()
