"""Published figures of IFRNet, for comparison with measured ones."""

from __future__ import annotations

import math

from bench.records.parity import PublishedRecord
from ifrnet_model.weights.table import CHECKPOINTS, Identity, Published

METRIC_TITLES = {"ssim_3d": "SSIM (3D)", "ssim_2d": "SSIM (2D)", "ie": "IE"}
"""Titles of metrics in tables, besides PSNR."""


def published(
    dataset: str, *, identity: Identity | None, variant: str, authors: bool
) -> Published | None:
    """The published figure of some weights on a data set.

    Args:
        dataset: Name of the data set in `bench.data.protocols.PROTOCOLS`.
        identity: The known checkpoint that the weights are, also after a conversion; None for
            others. One that was recognised by its name alone is not used.
        variant: Variant of the network.
        authors: Whether the user declares the weights to be the authors', whose hashes are not
            known.

    Returns:
        The figure; None if there is none.
    """
    if authors:
        of_authors = (k for k in CHECKPOINTS if (k.publisher, k.variant) == ("authors", variant))
        known = next((k for k in of_authors if dataset in k.figures), None)
    else:
        known = identity.known if identity is not None and identity.by != "name" else None
    return None if known is None else known.figures.get(dataset)


def published_text(record: PublishedRecord) -> tuple[str, str]:
    """The published figure with its source, and the same measured here; "" in earlier evidence."""
    kind = METRIC_TITLES.get(record["ssim_kind"], record["ssim_kind"])
    published = _figures(record["psnr"], record["ssim"], record["ie"], kind)
    if (found := record.get("measured")) is None:
        return f"{published} ({record['source']})", ""
    measured = _figures(found["psnr"], found["ssim"], found["ie"], kind)
    return f"{published} ({record['source']})", measured


def _figures(psnr: float | None, ssim: float | None, ie: float | None, kind: str) -> str:
    parts = ["identical" if psnr is None or math.isinf(psnr) else f"{psnr:.2f} dB"]
    if ssim is not None:
        parts.append(f"{kind} {ssim:.4f}")
    if ie is not None:
        parts.append(f"IE {ie:.3f}")
    return ", ".join(parts)
