"""Figures that were published for IFRNet, to be shown beside what is measured."""

from __future__ import annotations

from typing import Any

from ifrnet_model.weights.table import CHECKPOINTS, with_sha256


def published(dataset: str, *, sha256: str, variant: str, authors: bool) -> dict[str, Any] | None:
    """The figure to compare with, as plain data.

    Args:
        dataset: A name of `bench.data.protocols.PROTOCOLS`.
        sha256: Of the weights.
        variant: Of the network.
        authors: The user says that these are the authors' weights, whose hashes are unknown.

    Returns:
        The fields of `ifrnet_model.weights.Published`; None where nothing is known of these
        weights.
    """
    if authors:
        of_authors = (k for k in CHECKPOINTS if (k.publisher, k.variant) == ("authors", variant))
        known = next((k for k in of_authors if dataset in k.figures), None)
    else:
        known = with_sha256(sha256)
    figure = None if known is None else known.figures.get(dataset)
    return None if figure is None else figure._asdict()
