"""Chooses the channel layout in which an audio track is encoded as AAC."""

from __future__ import annotations

from typing import NamedTuple

from av.audio.layout import AudioLayout

_KEPT = ("mono", "stereo", "2.1", "3.0", "3.0(back)", "4.0", "quad", "5.0", "5.1", "7.1")
"""Layouts that FFmpeg's encoder and decoder of AAC keep, channel for channel."""

_RENAMED = {"downmix": "stereo", "quad(side)": "quad", "5.0(side)": "5.0", "5.1(side)": "5.1"}
"""Layouts whose channels AAC has by other names."""

_HELD = {"3.1": "5.1", "4.1": "5.1", "6.0": "7.1", "6.1": "7.1", "7.0": "7.1"}
"""Layouts -> a larger one that holds their channels without mixing two; a single back channel is
played by both back speakers."""

_BY_COUNT = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
"""Number of channels -> the layout that players assume where none is declared."""


class AacLayout(NamedTuple):
    """The layout of an encoded track.

    Attributes:
        name: FFmpeg's name of the layout.
        change: What happens to the channels, for a note; empty where all are kept.
    """

    name: str
    change: str


def aac_layout(layout: AudioLayout) -> AacLayout | None:
    """The layout in which AAC keeps most of the channels of `layout`.

    Returns:
        None where the channels have no known positions, so that they can be neither kept nor mixed.
    """
    name, count = layout.name, layout.nb_channels
    if name in _KEPT or name in _RENAMED:
        return AacLayout(_RENAMED.get(name, name), "")
    if name in _HELD:
        return AacLayout(_HELD[name], f"in the layout {_HELD[name]}, which holds all of {name}")
    if name == f"{count} channels":
        known = _BY_COUNT.get(count)
        return None if known is None else AacLayout(known, "")
    if name.startswith("ambisonic"):
        return None
    target = "7.1" if count > 6 else "5.1"
    return AacLayout(target, f"mixed down from {name} to {target}")
