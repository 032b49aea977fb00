"""Notes about the samples of a parity run."""

import pytest

from bench.data.notes import recorded_notes, sample_notes


def configuration(samples, official, *, every=1, limit=None, notes=()):
    return {
        "samples": samples, "official_samples": official, "every": every, "limit": limit,
        "notes": [*notes],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("samples", "official", "options", "expected"),
    [
        (379, 379, {}, []),
        (12, 12, {"limit": 20}, []),
        (7, None, {}, []),
        (None, None, {}, []),  # A video whose container does not store the number of frames.
        (3, 12, {}, ["3 of the official 12 samples"]),
        (3, 12, {"limit": 5}, ["3 of the official 12 samples"]),
        (5, 12, {"limit": 5}, ["the first 5 samples of the official 12"]),
        (5, None, {"limit": 5}, ["the first 5 samples"]),
        (3, None, {"limit": 5}, []),
        (None, None, {"limit": 5}, ["at most the first 5 samples"]),
        (48, 379, {"every": 8}, ["every 8th sample, 48 of the official 379"]),
        (19, None, {"every": 2}, ["every 2nd sample, 19 in all"]),
        (None, None, {"every": 3}, ["every 3rd sample"]),
        (None, None, {"every": 21, "limit": 5}, ["every 21st sample, at most 5"]),
        (8, None, {"every": 12, "limit": 8}, ["every 12th sample, 8 in all"]),
    ],
)
def test_the_selected_samples_are_described_unless_they_are_all(
    samples, official, options, expected
):
    assert sample_notes(configuration(samples, official, **options)) == expected


def test_notes_of_earlier_versions_are_computed_again_and_others_are_kept():
    notes = [
        "1 of the official 11 videos missing: GOPR0384_11_00",
        "6 of the official 379 samples are here",
        "one sample of 8, 48 in all, not the whole set",
        "forced: another flow scale",
    ]
    others = [notes[0], notes[3]]
    assert recorded_notes(notes) == others
    found = sample_notes(configuration(48, 379, every=8, notes=notes))
    assert found == ["every 8th sample, 48 of the official 379", *others]
