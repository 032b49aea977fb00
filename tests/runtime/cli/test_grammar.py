import pytest

from runtime.cli.grammar import with_current_names

ALIASES = {"--fps": "--rate", "--version": "--model-version"}


@pytest.mark.parametrize(
    ("given", "current"),
    [
        ("in.mp4 --fps 60 -x", "in.mp4 --rate 60 -x"),
        ("--fps=60 --fpsy 1 --factor=--fps", "--rate=60 --fpsy 1 --factor=--fps"),
        ("--version", "--version"),
        ("--version --fps 2", "--version --rate 2"),
        ("--version 2 --version=3", "--model-version 2 --model-version=3"),
        ("--fps 1 -- --fps", "--rate 1 -- --fps"),
    ],
)
def test_earlier_names_become_current_ones(given, current):
    assert with_current_names(given.split(), ALIASES) == current.split()
