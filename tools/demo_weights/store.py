"""Holds all frames of clips and photographs in one tensor in the memory of the device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demo_weights.clips import (
    Clip,
    Size,
    check_length,
    decoded,
    probe_clip,
    probe_photo,
    read_photo,
)
from demo_weights.errors import TrainingError

MEMORY_SHARE = 0.5
"""Share of the free memory of the device for frames, by default."""

_BLOCK = 32
"""Number of frames that are copied to the device at once."""


class FrameStore:
    """The frames of N items: of clips, then of photographs, which are clips of one frame.

    Attributes:
        pixels: uint8 (P, 3), RGB, row by row, frame by frame, item by item.
        base: int64 (N,), index of the first pixel of each item.
        frames: int64 (N,), number of frames of each item.
        heights: int64 (N,), in pixels.
        widths: int64 (N,), in pixels.
        cuts: For each item the numbers of the frames that begin a scene.
        names: For each item its name.
    """

    def __init__(
        self,
        pixels: Tensor,
        sizes: Sequence[Size],
        base: Sequence[int],
        cuts: Sequence[frozenset[int]],
        names: Sequence[str],
    ) -> None:
        device = pixels.device
        self.pixels = pixels
        self.sizes = list(sizes)
        self._starts = list(base)
        self.base = torch.tensor(base).to(device)
        self.frames = torch.tensor([size.frames for size in sizes]).to(device)
        self.heights = torch.tensor([size.height for size in sizes]).to(device)
        self.widths = torch.tensor([size.width for size in sizes]).to(device)
        self.cuts = list(cuts)
        self.names = list(names)

    @property
    def device(self) -> torch.device:
        """The device of the frames."""
        return self.pixels.device

    def frame(self, item: int, number: int) -> Tensor:
        """One whole frame, float32 (1, 3, H, W) in [0, 1]."""
        size = self.sizes[item]
        area = size.height * size.width
        start = self._starts[item] + number * area
        pixels = self.pixels[start : start + area].view(1, size.height, size.width, 3)
        return pixels.permute(0, 3, 1, 2).float() / 255

    def crops(
        self,
        item: Tensor,
        frame: Tensor,
        corner: Tensor,
        ratio: Tensor,
        size: int,
        *,
        taps: int = 2,
    ) -> Tensor:
        """Reads a square from each of n frames, scaled by sampling.

        A pixel of the result is the mean of `taps` x `taps` samples that are spread evenly over
        the `ratio` x `ratio` pixels it covers. With two taps a ratio of 1 copies pixels, and a
        ratio of 2 averages blocks of 2 x 2.

        Args:
            item: int64 (n,), index of the clip or photograph.
            frame: int64 (n,), number of the frame in it.
            corner: int64 (n, 2), y and x of the square in the frame.
            ratio: float32 (n,), pixels of the frame for each pixel of the result.
            size: Side of the result in pixels. Outside the frame its border is repeated.
            taps: Number of samples in each direction.

        Returns:
            float32 (n, 3, size, size) in 0..255.
        """
        height, width = self.heights[item], self.widths[item]
        steps = (torch.arange(size * taps, device=self.device) + 0.5) / taps
        reach = steps * ratio[:, None]
        rows = (corner[:, :1] + reach).long().clamp(min=0).minimum(height[:, None] - 1)
        columns = (corner[:, 1:] + reach).long().clamp(min=0).minimum(width[:, None] - 1)
        start = self.base[item] + frame * height * width
        index = (start[:, None] + rows * width[:, None])[:, :, None] + columns[:, None, :]
        taken = self.pixels.index_select(0, index.flatten())
        blocks = taken.view(len(item), size, taps, size, taps, 3)
        return blocks.mean((2, 4), dtype=torch.float32).permute(0, 3, 1, 2).contiguous()


def load_store(
    clips: Sequence[Clip],
    photos: Sequence[Path],
    *,
    device: torch.device,
    short_side: int,
    memory: int | None = None,
) -> FrameStore:
    """Decodes clips and photographs into the memory of the device, once.

    Args:
        clips: Decoded by several threads.
        photos: Follow the clips in the store, in their own size.
        device: Where the frames are stored.
        short_side: Limit of the shorter side of a frame of a clip, in pixels.
        memory: Limit of the size of all frames in bytes; None: `MEMORY_SHARE` of what is free.

    Raises:
        TrainingError: If a file cannot be read, a clip is too short or differs from its index, or
            the frames need more memory.
    """
    bounds = [*(probe_clip(c, short_side) for c in clips), *(probe_photo(p) for p in photos)]
    limit = int(MEMORY_SHARE * free_memory(device)) if memory is None else memory
    pixels = _allocate(sum(bound.pixels for bound in bounds), limit, device)
    base = np.cumsum([0, *(bound.pixels for bound in bounds)])[:-1].tolist()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        jobs = [
            pool.submit(_decode_into, clip, bound, pixels[start : start + bound.pixels], short_side)
            for clip, bound, start in zip(clips, bounds, base, strict=False)
        ]
        try:
            done = [job.result() for job in jobs]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    sizes, cuts = [size for size, _ in done], [found for _, found in done]
    for path, bound, start in zip(photos, bounds[len(clips) :], base[len(clips) :], strict=True):
        photo = torch.from_numpy(read_photo(path).copy()).view(-1, 3)
        pixels[start : start + bound.pixels] = photo.to(device)
        sizes.append(bound)
        cuts.append(frozenset())
    names = [*(clip.name for clip in clips), *(path.stem for path in photos)]
    return FrameStore(pixels, sizes, base, cuts, names)


def _allocate(pixels: int, limit: int, device: torch.device) -> Tensor:
    need = 3 * pixels
    if need > limit:
        raise TrainingError(
            f"the frames need {need / 2**30:.1f} GiB and may take {limit / 2**30:.1f} GiB: raise "
            "--frames-memory, lower --short-side, or give fewer clips"
        )
    try:
        return torch.empty(pixels, 3, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the frames need {need / 2**30:.1f} GiB, which the GPU does not have: lower "
            "--short-side, or give fewer clips"
        ) from error


def _decode_into(
    clip: Clip, bound: Size, pixels: Tensor, short_side: int
) -> tuple[Size, frozenset[int]]:
    """Decodes a clip into its part of the store; returns its true size and its cuts."""
    room = pixels.view(bound.frames, bound.height, bound.width, 3)
    count, cuts = 0, set()
    block: list[NDArray[np.uint8]] = []
    for frame, cut in decoded(clip, short_side):
        number = count + len(block)
        if number == bound.frames or frame.shape != room.shape[1:]:
            raise TrainingError(
                f"{clip.path} decodes to other frames than its container or its index declares "
                f"(frame {number}, {frame.shape[1]}x{frame.shape[0]}): encode it again, or pack it "
                "again"
            )
        block.append(frame)
        if cut:
            cuts.add(number)
        if len(block) == _BLOCK:
            count = _copy(block, room, count)
    count = _copy(block, room, count)
    check_length(clip, count)
    if clip.frames is not None and count != clip.frames:
        raise TrainingError(
            f"{clip.path} has {count} frames and its index declares {clip.frames}: pack it again"
        )
    return Size(count, bound.height, bound.width), frozenset(cuts)


def _copy(block: list[NDArray[np.uint8]], room: Tensor, count: int) -> int:
    """Copies frames to the device behind `count` others and empties the list."""
    if not block:
        return count
    end = count + len(block)
    room[count:end] = torch.from_numpy(np.stack(block)).to(room.device)
    block.clear()
    return end


def free_memory(device: torch.device) -> int:
    """Free bytes of the memory of a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
