"""The table of docs/video.md that says which properties each output keeps, measured again."""

import av
import pytest

from video_table import KEPT, LOST, OUTPUTS, PAGE, PROPERTIES, markdown, measured, with_table

MEASURED_WITH = "18.1"
"""Release of PyAV of the table; other releases of FFmpeg keep more or less."""


@pytest.fixture(scope="module")
def cells():
    return measured()


def test_no_property_is_lost_without_a_note(cells):
    lost = [(row, head) for row, line in cells.items() for head in line if line[head] == LOST]
    assert lost == []


def test_every_cell_is_measured_and_every_property_is_kept_somewhere(cells):
    assert list(cells) == list(OUTPUTS)
    assert all(set(line) == set(PROPERTIES) for line in cells.values())
    for head in PROPERTIES:
        assert any(line[head] == KEPT for line in cells.values()), head


def test_the_page_has_the_table(cells):
    if not av.__version__.startswith(MEASURED_WITH):
        pytest.skip(f"the table was made with PyAV {MEASURED_WITH}")
    page = PAGE.read_text()
    assert f"PyAV {MEASURED_WITH}" in page
    assert with_table(page, markdown(cells)) == page, "run python tools/video_table.py"
