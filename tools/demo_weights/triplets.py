"""Draws real samples: two frames of a clip, and one frame between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from demo_weights.draws import Draws
from demo_weights.errors import TrainingError
from demo_weights.store import FrameStore

SPANS = {2: 4, 3: 1, 4: 1, 8: 1}
"""Span of a triplet in frames, from the first to the last -> relative frequency."""

NEXT_TO_AN_END = 0.5
"""Share of the longer spans whose middle frame is next to the first or the last, t = 1/8 or 7/8:
there blending is best, and a network that knows midpoints only is worst."""

ANYWHERE_SHARE = 0.5
"""Share of the crops from anywhere in the frame; the others are from where it changes most."""

STILL = 1.0
"""Mean change in 8-bit levels below which a crop is still."""

STILL_SHARE = 0.4
"""Share of the still crops that are accepted."""

COARSE_SHARE = 0.5
"""Share of the samples at half the resolution, if the frame is large enough."""

CANDIDATES = 4
"""Number of crops drawn for each sample; the first accepted one is used, else the first."""

CORNERS = 3
"""Number of positions that are tried for the crop that changes most."""

STEP = 4
"""Distance, in pixels, of the samples that measure change."""


def without_cut(frames: int, cuts: frozenset[int], span: int) -> list[int]:
    """The numbers of the frames that are followed by `span` frames without a cut."""
    return [
        first
        for first in range(frames - span)
        if not cuts.intersection(range(first + 1, first + span + 1))
    ]


class Triplets:
    """Draws triplets from clips of a store.

    Every clip has the same weight, in it each span that of `SPANS`, and for a span each first
    frame the same. No triplet crosses a cut.
    """

    def __init__(self, store: FrameStore, clips: Sequence[int], size: int) -> None:
        """Lists the possible triplets.

        Args:
            store: The frames.
            clips: Items of the store to draw from.
            size: Side of the crops in pixels, a multiple of 16.

        Raises:
            TrainingError: If a clip is smaller than the crops, or cuts leave no triplet.
        """
        self.store, self.size = store, size
        small = [store.names[c] for c in clips if _shortest(store, c) < size]
        if small:
            raise TrainingError(
                f"crops of {size} pixels do not fit the frames of {', '.join(small)}: remove these "
                "clips or give a smaller --crop"
            )
        rows, weights = [], []
        for clip in clips:
            for span, weight in SPANS.items():
                frames = store.sizes[clip].frames
                for first in without_cut(frames, store.cuts[clip], span):
                    rows.append((clip, first, span))
                    weights.append(weight / (frames - span))
        if not rows:
            raise TrainingError(
                "the clips hold no three frames without a cut between them: give other clips"
            )
        self._table = torch.tensor(rows).to(store.device).T.contiguous()
        total = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        self._cumulative = (total / total[-1]).to(store.device)

    def draw(self, count: int, draws: Draws) -> tuple[Tensor, Tensor]:
        """Draws samples.

        Returns:
            Frames, float32 (count, 3, 3, size, size) in [0, 1]: first, middle, last; and the times
            of the middle frames, float32 (count,).
        """
        drawn = count * CANDIDATES
        row = torch.searchsorted(self._cumulative, draws.uniform(drawn).double(), right=True)
        clip, first, span = self._table[:, row.clamp(max=len(self._cumulative) - 1)]
        height, width = self.store.heights[clip], self.store.widths[clip]
        large = torch.minimum(height, width) >= 2 * self.size
        coarse = 1 + (large & draws.chance(COARSE_SHARE, drawn)).long()
        room = torch.stack((height, width), 1) - self.size * coarse[:, None] + 1
        corners = draws.below(room[:, None].expand(-1, CORNERS, -1))
        change = self._change(clip, first, span, corners, coarse)
        anywhere = draws.chance(ANYWHERE_SHARE, drawn)
        change[:, 1:].masked_fill_(anywhere[:, None], -1.0)
        largest, place = change.max(1)
        taken = (largest >= STILL) | draws.chance(STILL_SHARE, drawn)
        chosen = taken.view(count, CANDIDATES).byte().argmax(1)
        chosen = chosen + CANDIDATES * torch.arange(count, device=chosen.device)
        clip, first, span, coarse = (v[chosen] for v in (clip, first, span, coarse))
        corner = corners[chosen, place[chosen]]
        offset = _between(span, draws)
        numbers = torch.stack((first, first + offset, first + span), 1)
        frames = self.store.crops(
            clip.repeat_interleave(3),
            numbers.flatten(),
            corner.repeat_interleave(3, 0),
            coarse.float().repeat_interleave(3),
            self.size,
        )
        frames = frames.round().view(count, 3, 3, self.size, self.size) / 255
        return frames, offset / span

    def _change(
        self, clip: Tensor, first: Tensor, span: Tensor, corners: Tensor, coarse: Tensor
    ) -> Tensor:
        """Mean absolute difference of first and last frame in 8-bit levels: (n, CORNERS)."""
        ends = [
            self.store.crops(
                clip.repeat_interleave(CORNERS),
                number.repeat_interleave(CORNERS),
                corners.flatten(0, 1),
                (STEP * coarse).float().repeat_interleave(CORNERS),
                self.size // STEP,
                taps=1,
            )
            for number in (first, first + span)
        ]
        return (ends[0] - ends[1]).abs().mean((1, 2, 3)).view(-1, CORNERS)


def _shortest(store: FrameStore, clip: int) -> int:
    return min(store.sizes[clip].height, store.sizes[clip].width)


def _between(span: Tensor, draws: Draws) -> Tensor:
    """Draws the distance of the middle frame from the first, 1 .. span - 1 frames."""
    count = len(span)
    anywhere = 1 + draws.below(span - 1)
    end = torch.where(draws.chance(0.5, count), 1, span - 1)
    next_to_end = (span > 2) & draws.chance(NEXT_TO_AN_END, count)
    return torch.where(next_to_end, end, anywhere)
