import pytest

from runtime.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\none reason\nand a page of details\n"), "one reason"),
        (ValueError(), "ValueError"),
        (RuntimeError(" \n"), "RuntimeError"),
    ],
)
def test_the_first_line_of_an_error(error, line):
    assert first_line(error) == line
