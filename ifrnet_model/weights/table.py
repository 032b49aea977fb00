"""The known checkpoints as data: what they are, where they are, what was published of them.

The one place that knows them. No PyTorch.
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
"""Our own small demo weights, shipped with the package; see MODEL_CARD.md beside them."""


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
    ssim_kind: SsimKind = "ssim_3d"
    ie: float | None = None


@dataclass(frozen=True)
class KnownCheckpoint:
    """A published checkpoint.

    Attributes:
        name: Of its file; also what `download` takes, with or without the suffix.
        publisher: Whose it is.
        variant: A name of `ifrnet_model.VARIANTS`.
        training_set: What it was trained on.
        time_steps: What it knows of the time between two frames.
        licence: Of the repository that publishes it.
        place: Where a person gets it.
        megabytes: Size of the file, 10^6 bytes, rounded to a tenth; None where unknown.
        sha256: The whole or its first digits, eight at least; None where unknown.
        url: Where a program gets it; None where no such place is known.
        figures: What was published of it, by data set (a name of `bench.parity`).
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
            "https://github.com/ltkong218/IFRNet links to a shared folder (Download Pre-trained "
            f"Models); there it is checkpoints/{folder}/{stem}.pth"
        ),
        megabytes=megabytes,
        figures=figures,
    )


def _mmagic(
    name: str, training_set: str, time_steps: TimeSteps, figures: Mapping[str, Published]
) -> KnownCheckpoint:
    """OpenMMLab's names carry the first eight digits of the sha256."""
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
        # Adobe240's list of videos is not said in the paper.
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
            # Its "centre crop" is a random crop in the code: not to be met exactly.
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
    """Which known checkpoint a file is, and what tells."""

    known: KnownCheckpoint
    by: Literal["sha256", "source_sha256", "name"]


def with_name(file_name: str) -> KnownCheckpoint | None:
    """The checkpoint whose file has this name, with any suffix, in upper or lower case."""
    stem = Path(file_name).stem.lower()
    return next((k for k in CHECKPOINTS if Path(k.name).stem.lower() == stem), None)


def with_sha256(sha256: str) -> KnownCheckpoint | None:
    """The checkpoint whose hash is known and is this one."""
    return next((k for k in CHECKPOINTS if k.sha256 and sha256.startswith(k.sha256)), None)


def identify(
    file_name: str, *, sha256: str, variant: str, metadata: Mapping[str, str]
) -> Identity | None:
    """Which known checkpoint a file is.

    Args:
        file_name: A name counts only where the network is of the variant that it promises.
        sha256: Of the file.
        variant: Of the network in it.
        metadata: Of a .safetensors file; `convert` notes the hash of its source there.
    """
    if known := with_sha256(sha256):
        return Identity(known, "sha256")
    if known := with_sha256(metadata.get("source_sha256", "")):
        return Identity(known, "source_sha256")
    known = with_name(file_name)
    return Identity(known, "name") if known and known.variant == variant else None


def checkpoint_named(name: str) -> KnownCheckpoint:
    """The checkpoint that a user asks for: by its file's name without the suffix, or "demo".

    Raises:
        CheckpointError: If there is none; the message names those that are near.
    """
    known = with_name(DEMO_WEIGHTS.name if name.lower() == "demo" else name)
    if known is None:
        stems = [Path(k.name).stem for k in CHECKPOINTS]
        near = difflib.get_close_matches(name, stems, n=2) or stems
        raise CheckpointError(
            f"no known checkpoint is called {name}: did you mean {' or '.join(near)}? "
            "python -m ifrnet_model.weights list shows all"
        )
    return known
