"""The table of known checkpoints: origin, hashes, published results.

Imports no PyTorch.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from ifrnet_model.errors import CheckpointError

TimeSteps = Literal["midpoint", "arbitrary"]
SsimKind = Literal["ssim_3d", "ssim_2d"]
Publisher = Literal["authors", "mmagic", "ifrnet-deploy"]

DEMO_WEIGHTS = Path(__file__).parent / "ifrnet_small_demo.safetensors"
"""The demo weights, variant small, shipped with the package; see MODEL_CARD.md beside them."""


class Published(NamedTuple):
    """The published results of a checkpoint on one data set.

    Attributes:
        source: The publication.
        psnr: PSNR in dB.
        ssim: SSIM of the kind `ssim_kind`; None if not published.
        ssim_kind: "ssim_3d" in the paper, "ssim_2d" in mmagic; the two are not comparable.
        ie: Middlebury's interpolation error in 8-bit levels; None for other data sets.
    """

    source: str
    psnr: float
    ssim: float | None = None
    ssim_kind: SsimKind = "ssim_3d"
    ie: float | None = None


@dataclass(frozen=True)
class KnownCheckpoint:
    """A published checkpoint.

    Attributes:
        name: Name of the file; `download` accepts it with or without the suffix.
        publisher: Who publishes it.
        variant: A name of `ifrnet_model.VARIANTS`.
        training_set: Name of the data set that it was trained on.
        time_steps: "midpoint" if it was trained for t = 1/2 only, else "arbitrary".
        licence: The licence of the repository that publishes it.
        place: Where to get it, as text for the user.
        megabytes: Size of the file in 10^6 bytes, rounded to a tenth; None if unknown.
        sha256: The SHA-256 of the file or its first digits, at least eight; None if unknown.
        url: Direct URL of the file; None if there is none.
        figures: Published results by data set (a name of `bench.parity`).
    """

    name: str
    publisher: Publisher
    variant: str
    training_set: str
    time_steps: TimeSteps
    licence: str
    place: str
    megabytes: float | None = None
    sha256: str | None = None
    url: str | None = None
    figures: Mapping[str, Published] = field(default_factory=dict)


_PAPER = "IFRNet, CVPR 2022, tables 1 to 3"
_MMAGIC = "mmagic, pull request 1560"
_OPENMMLAB = "https://download.openmmlab.com/mmediting/ifrnet/"


def _paper(psnr: float, ssim: float | None = None, *, ie: float | None = None) -> Published:
    return Published(_PAPER, psnr, ssim, ie=ie)


def _authors(
    stem: str, variant: str, megabytes: float, folder: str, figures: Mapping[str, Published]
) -> KnownCheckpoint:
    """The Vimeo90K weights ignore the time step (the author, IFRNet issue 34)."""
    training_set = stem.rpartition("_")[2]
    return KnownCheckpoint(
        name=f"{stem}.pth",
        publisher="authors",
        variant=variant,
        training_set=training_set,
        time_steps="midpoint" if training_set == "Vimeo90K" else "arbitrary",
        licence="MIT",
        place=(
            f"checkpoints/{folder}/{stem}.pth in the shared folder to which 'Download Pre-trained "
            "Models' on https://github.com/ltkong218/IFRNet leads"
        ),
        megabytes=megabytes,
        figures=figures,
    )


def _mmagic(
    name: str, training_set: str, time_steps: TimeSteps, figures: Mapping[str, Published]
) -> KnownCheckpoint:
    """OpenMMLab's file names contain the first eight digits of the SHA-256."""
    return KnownCheckpoint(
        name=name,
        publisher="mmagic",
        variant="base",
        training_set=training_set,
        time_steps=time_steps,
        licence="Apache-2.0",
        place=_OPENMMLAB + name,
        sha256=Path(name).stem.rpartition("-")[2],
        url=_OPENMMLAB + name,
        figures=figures,
    )


CHECKPOINTS: tuple[KnownCheckpoint, ...] = (
    _authors(
        "IFRNet_S_Vimeo90K",
        "small",
        11.2,
        "IFRNet_small",
        {
            "vimeo90k": _paper(35.59, 0.9786),
            "ucf101": _paper(35.28, 0.9691),
            "snufilm-easy": _paper(39.96, 0.9905),
            "snufilm-medium": _paper(35.92, 0.9792),
            "snufilm-hard": _paper(30.36, 0.9357),
            "snufilm-extreme": _paper(25.05, 0.8582),
            "middlebury": _paper(37.24, ie=1.995),
        },
    ),
    _authors("IFRNet_S_GoPro", "small", 11.2, "IFRNet_small", {}),
    _authors(
        "IFRNet_Vimeo90K",
        "base",
        19.8,
        "IFRNet",
        {
            "vimeo90k": _paper(35.80, 0.9794),
            "ucf101": _paper(35.29, 0.9693),
            "snufilm-easy": _paper(40.03, 0.9905),
            "snufilm-medium": _paper(35.94, 0.9793),
            "snufilm-hard": _paper(30.41, 0.9358),
            "snufilm-extreme": _paper(25.05, 0.8587),
            "middlebury": _paper(37.50, ie=1.946),
        },
    ),
    _authors(
        "IFRNet_GoPro",
        "base",
        19.8,
        "IFRNet",
        # The paper does not list the videos of Adobe240 that it used.
        {"gopro": _paper(29.84, 0.920), "adobe240": _paper(31.93, 0.943)},
    ),
    _authors(
        "IFRNet_L_Vimeo90K",
        "large",
        78.8,
        "IFRNet_large",
        {
            "vimeo90k": _paper(36.20, 0.9808),
            "ucf101": _paper(35.42, 0.9698),
            "snufilm-easy": _paper(40.10, 0.9906),
            "snufilm-medium": _paper(36.12, 0.9797),
            "snufilm-hard": _paper(30.63, 0.9368),
            "snufilm-extreme": _paper(25.27, 0.8609),
            "middlebury": _paper(38.18, ie=1.846),
        },
    ),
    _authors("IFRNet_L_GoPro", "large", 78.8, "IFRNet_large", {}),
    _mmagic(
        "IFRNet_vimeo90k-7a66b214.pth",
        "Vimeo90K",
        "midpoint",
        {"vimeo90k": Published(_MMAGIC, 35.7999, 0.9680, "ssim_2d")},
    ),
    _mmagic(
        "IFRNet_gopro-5d2f805a.pth",
        "GoPro",
        "arbitrary",
        {
            # Its "centre crop" is a random crop in the code: these cannot be reproduced exactly.
            "gopro": Published(_MMAGIC, 29.9394, 0.8922, "ssim_2d"),
            "adobe240": Published(_MMAGIC, 30.0273, 0.9057, "ssim_2d"),
        },
    ),
    KnownCheckpoint(
        name=DEMO_WEIGHTS.name,
        publisher="ifrnet-deploy",
        variant="small",
        training_set="own, see MODEL_CARD.md",
        time_steps="arbitrary",
        licence="MIT",
        place="shipped with this package: --weights demo",
        megabytes=5.6,
        sha256="0e57d82bbc8e9cff87ac624e38032ba3fc920a282770fe75b590ea2944dc1c5f",
    ),
)


class Identity(NamedTuple):
    """The entry in the table of known checkpoints that a file corresponds to.

    Attributes:
        known: The entry.
        by: The criterion that matched: the hash of the file, the hash of the source that a
            converted file states, or the file name.
    """

    known: KnownCheckpoint
    by: Literal["sha256", "source_sha256", "name"]


def find_by_name(file_name: str) -> KnownCheckpoint | None:
    """The checkpoint with this file name, compared without suffix and case; None if unknown."""
    stem = Path(file_name).stem.lower()
    return next((k for k in CHECKPOINTS if Path(k.name).stem.lower() == stem), None)


def find_by_sha256(sha256: str) -> KnownCheckpoint | None:
    """The checkpoint whose published SHA-256, or its first digits, match; None if there is none."""
    return next((k for k in CHECKPOINTS if k.sha256 and sha256.startswith(k.sha256)), None)


def identify(
    file_name: str, *, sha256: str, variant: str, metadata: Mapping[str, str]
) -> Identity | None:
    """Looks a checkpoint file up in the table; None if it is not a known one.

    Args:
        file_name: Name of the file; it only matches if `variant` is that of the entry.
        sha256: The SHA-256 of the file.
        variant: The variant of the network in the file.
        metadata: The metadata of a .safetensors file; `convert` records the hash of its source.
    """
    if known := find_by_sha256(sha256):
        return Identity(known, "sha256")
    if known := find_by_sha256(metadata.get("source_sha256", "")):
        return Identity(known, "source_sha256")
    known = find_by_name(file_name)
    return Identity(known, "name") if known and known.variant == variant else None


def checkpoint_named(name: str) -> KnownCheckpoint:
    """The known checkpoint with this file name, compared without suffix and case, or "demo".

    Raises:
        CheckpointError: If there is none; the message proposes similar names.
    """
    known = find_by_name(DEMO_WEIGHTS.name if name.lower() == "demo" else name)
    if known is None:
        stems = [Path(k.name).stem for k in CHECKPOINTS]
        similar = difflib.get_close_matches(name, stems, n=2) or stems
        raise CheckpointError(
            f"{name} is not a known checkpoint: use one of {', '.join(similar)} "
            "(python -m ifrnet_model.weights list shows all)"
        )
    return known
