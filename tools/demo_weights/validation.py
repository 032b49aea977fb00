"""Measures the PSNR of the network and of blending on clips that are not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from demo_weights.errors import TrainingError
from demo_weights.store import FrameStore
from demo_weights.triplets import without_cut
from ifrnet_model import IFRNet

WINDOW = 8
"""Span of a window in frames, from the first to the last: its times are 1/8 .. 7/8."""

LOSS_DB = 0.3
"""A frame counts as below blending if its PSNR is lower by more than this, in dB."""

_MULTIPLE = 16


class Validation:
    """Measures on windows of nine frames, evenly spread over the clips.

    The method is that of tools/demo_weights/quality.py: the frames between the ends of a window at
    1/8 .. 7/8, and the middle one of its three middle frames; mean PSNR of unrounded floats. Frames
    are cropped in the centre to multiples of 16.
    """

    def __init__(self, store: FrameStore, clips: Sequence[int], windows: int) -> None:
        """Chooses the windows.

        Args:
            store: The frames.
            clips: Items of the store to measure on.
            windows: Maximum number of windows.

        Raises:
            TrainingError: If the clips hold no window without a cut.
        """
        found = [
            (clip, first)
            for clip in clips
            for first in without_cut(store.sizes[clip].frames, store.cuts[clip], WINDOW)
        ]
        if not found:
            names = ", ".join(store.names[clip] for clip in clips)
            raise TrainingError(
                f"no nine frames without a cut in the held-out clips ({names}): hold out others "
                "with --held-out"
            )
        count = min(windows, len(found))
        self.store = store
        self.windows = [found[(2 * k + 1) * len(found) // (2 * count)] for k in range(count)]

    @torch.no_grad()
    def run(self, network: IFRNet) -> dict[str, Any]:
        """Measures a network in float32.

        Returns:
            For "middle" and for each time of the windows: the means of both PSNRs in dB, and the
            numbers of frames that were measured and that are below blending.
        """
        rows: dict[str, list[Tensor]] = {}
        for clip, first in self.windows:
            frames = [_cropped(self.store.frame(clip, first + k)) for k in range(WINDOW + 1)]
            half = WINDOW // 2
            rows.setdefault("middle", []).append(
                _pair(network, frames[half - 1], frames[half + 1], frames[half : half + 1])[0]
            )
            pairs = _pair(network, frames[0], frames[-1], frames[1:-1])
            for k, pair in enumerate(pairs, 1):
                rows.setdefault(f"t = {k / WINDOW:g}", []).append(pair)
        return {name: _summary(torch.stack(pairs).cpu()) for name, pairs in rows.items()}


def _cropped(frame: Tensor) -> Tensor:
    height, width = (side // _MULTIPLE * _MULTIPLE for side in frame.shape[-2:])
    top, left = (frame.shape[-2] - height) // 2, (frame.shape[-1] - width) // 2
    return frame[..., top : top + height, left : left + width].contiguous()


def _pair(network: IFRNet, img0: Tensor, img1: Tensor, true: list[Tensor]) -> Tensor:
    """PSNR in dB of the network and of blending at evenly spaced times: (T, 2)."""
    count = len(true)
    t = torch.arange(1, count + 1, device=img0.device).view(-1, 1, 1, 1) / (count + 1)
    target = torch.cat(true)
    blended = torch.lerp(img0, img1, t)
    return torch.stack([_psnr(x, target) for x in (network(img0, img1, t), blended)], 1)


def _psnr(images: Tensor, target: Tensor) -> Tensor:
    squared = (images - target).square().mean((1, 2, 3), dtype=torch.float64)
    return -10 * torch.log10(squared.clamp(min=1e-12))


def _summary(pairs: Tensor) -> dict[str, Any]:
    made, blended = pairs.mean(0).tolist()
    worse = int((pairs[:, 0] < pairs[:, 1] - LOSS_DB).sum())
    return {
        "samples": len(pairs),
        "psnr_db": made,
        "blending_db": blended,
        "gain_db": made - blended,
        f"below_blending_by_more_than_{LOSS_DB}_db": worse,
    }
