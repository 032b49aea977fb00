"""Sentences about the samples of a parity run, for reports."""

from __future__ import annotations

from collections.abc import Sequence

from bench.records.parity import Configuration

_EARLIER_COUNTS = ("samples are here", "not the whole set")
"""Ends of notes in evidence of earlier versions, which recorded the counts as sentences too."""


def sample_notes(configuration: Configuration) -> list[str]:
    """Sentences on which samples were selected, none for a whole data set, and recorded notes."""
    return [*_selection(configuration), *recorded_notes(configuration["notes"])]


def recorded_notes(notes: Sequence[str]) -> list[str]:
    """The notes of a configuration without those that repeat its counts."""
    return [note for note in notes if not note.endswith(_EARLIER_COUNTS)]


def _selection(configuration: Configuration) -> list[str]:
    """One sentence on which samples were selected or exist on disk; none for a whole data set."""
    samples, official = configuration["samples"], configuration["official_samples"]
    every, limit = configuration["every"], configuration["limit"]
    of = "" if official is None else f" of the official {official}"
    if every > 1:
        which = f"every {_ordinal(every)} sample"
        if samples is not None:
            return [f"{which}, {samples}{of or ' in all'}"]
        return [which if limit is None else f"{which}, at most {limit}"]
    if samples is None:
        return [] if limit is None else [f"at most the first {limit} samples"]
    if samples == official:
        return []
    if samples == limit:
        return [f"the first {limit} samples{of}"]
    return [] if official is None else [f"{samples}{of} samples"]


def _ordinal(number: int) -> str:
    teen = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
