"""Samples for the tests of tools/demo_weights: the brightness of a frame tells its number."""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demo_weights.batches import BatchMaker
from demo_weights.clips import Size
from demo_weights.draws import Draws
from demo_weights.store import FrameStore
from demo_weights.synthetic import SyntheticMotion
from demo_weights.trainer import Settings, Trainer
from demo_weights.triplets import Triplets
from ifrnet_model import load_checkpoint

CPU = torch.device("cpu")
CUT = 9
SETTINGS = Settings(32, 3, 8.0, 1e-3, 5, "float32", ("counting",))


def smooth(height: int, width: int, *, seed: int = 0) -> Tensor:
    """An image in [0, 1] without detail, (1, 3, H, W)."""
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)


def store_of(*clips: Tensor, cuts: tuple[frozenset[int], ...] = ()) -> FrameStore:
    """A store of uint8 clips (N, H, W, 3)."""
    sizes = [Size(*clip.shape[:3]) for clip in clips]
    base = np.cumsum([0, *(size.pixels for size in sizes)])[:-1].tolist()
    pixels = torch.cat([clip.reshape(-1, 3) for clip in clips])
    names = ["counting", "second", "third"][: len(clips)]
    return FrameStore(pixels, sizes, base, [*cuts, *[frozenset()] * len(clips)], names)


@functools.cache
def counting_store() -> FrameStore:
    """A store of two clips of 20 frames and a smooth photograph.

    The brightness of a frame is 10 times its number, plus noise. The clips are 48x64 and 70x66; in
    the first a new scene begins with frame `CUT`.
    """
    generator = torch.Generator().manual_seed(0)
    clips = []
    for height, width in ((48, 64), (70, 66)):
        noise = torch.randint(0, 8, (20, height, width, 3), generator=generator)
        clips.append((noise + 10 * torch.arange(20).view(20, 1, 1, 1)).byte())
    photo = (smooth(90, 120) * 255).byte().permute(0, 2, 3, 1)
    return store_of(*clips, photo, cuts=(frozenset({CUT}), frozenset()))


def batch_maker(store: FrameStore, *, seed: int = 5, batch: int = 3) -> BatchMaker:
    """A maker of 32x32 samples from everything in `counting_store`."""
    return BatchMaker(
        Triplets(store, [0, 1], 32),
        SyntheticMotion(store, [0, 1], [2], size=32, motion=8.0),
        batch,
        Draws(store.device, seed),
    )


def trainer_of(store: FrameStore, settings: Settings = SETTINGS) -> Trainer:
    """A trainer that starts from the demo weights."""
    maker = batch_maker(store, seed=settings.seed, batch=settings.batch)
    return Trainer(load_checkpoint("demo").network, maker, settings, device=CPU)
