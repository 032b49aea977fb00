"""Where the time of a TensorRT engine goes, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Layers = Sequence[tuple[str, float]]
"""Name and milliseconds, in the order in which they run."""

_SHOWN = 30
_NAME_WIDTH = 72


def layer_lines(layers: Layers) -> Iterator[str]:
    """A table for a person: the slowest first, with their share of the whole."""
    total = sum(ms for _, ms in layers)
    yield f"{len(layers)} layers, {total:.3f} ms in sum, each timed apart"
    slowest = sorted(layers, key=lambda layer: -layer[1])
    for name, ms in slowest[:_SHOWN]:
        yield f"  {ms:8.4f} ms {ms / total if total else 0:6.1%}  {_shortened(name)}"
    if rest := slowest[_SHOWN:]:
        ms = sum(ms for _, ms in rest)
        yield f"  {ms:8.4f} ms {ms / total if total else 0:6.1%}  {len(rest)} more"


def _shortened(name: str) -> str:
    """Fused layers have the names of all that went into them: begin and end tell most."""
    if len(name) <= _NAME_WIDTH:
        return name
    half = (_NAME_WIDTH - 5) // 2
    return f"{name[:half]} ... {name[-half:]}"
