"""Published figures of IFRNet, for comparison with measured ones."""

from __future__ import annotations

from bench.records.parity import PublishedRecord
from ifrnet_model.weights.table import CHECKPOINTS, find_by_sha256


def published(dataset: str, *, sha256: str, variant: str, authors: bool) -> PublishedRecord | None:
    """The published figure of some weights on a data set.

    Args:
        dataset: Name of the data set in `bench.data.protocols.PROTOCOLS`.
        sha256: SHA-256 of the weights.
        variant: Variant of the network.
        authors: Whether the user declares the weights to be the authors', whose hashes are not
            known.

    Returns:
        The fields of `ifrnet_model.weights.table.Published`; None if there is no figure.
    """
    if authors:
        of_authors = (k for k in CHECKPOINTS if (k.publisher, k.variant) == ("authors", variant))
        known = next((k for k in of_authors if dataset in k.figures), None)
    else:
        known = find_by_sha256(sha256)
    figure = None if known is None else known.figures.get(dataset)
    if figure is None:
        return None
    return {
        "source": figure.source,
        "psnr": figure.psnr,
        "ssim": figure.ssim,
        "ssim_kind": figure.ssim_kind,
        "ie": figure.ie,
    }
