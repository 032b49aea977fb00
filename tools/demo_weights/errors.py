"""The error of the training tool."""

from __future__ import annotations


class TrainingError(Exception):
    """Training cannot start or continue; the message is one sentence with the remedy."""
