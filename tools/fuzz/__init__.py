"""Feeds mutated files, values and servers to the package, and counts what happens."""
