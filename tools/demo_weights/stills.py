"""The model card's picture: where clips move fastest, what the demo weights make of it.

    python tools/demo_weights/stills.py in.mp4 another.mkv --output fast_motion.jpg

A row for each clip: first frame, blending, made, true, last frame, of the square that changes most
between two frames of which the one in the middle is known.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.runs.torch_backend import TorchBackend, our_forward, reference_info
from ifrnet_model import load_checkpoint
from runtime import Interpolator
from runtime.video.reading.tags import open_for_reading

SIDE = 320
"""Of a still, in pixels of the clip."""

STEP = 16
"""Squares are tried this far apart."""


def decoded(clip: Path) -> list[NDArray[np.uint8]]:
    """All frames, (H, W, 3)."""
    with open_for_reading(str(clip)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def fastest(frames: list[NDArray[np.uint8]]) -> tuple[int, int, int]:
    """Number of the first frame, top and left of the square that changes most two frames on."""
    found = []
    for number in range(len(frames) - 2):
        first, last = (frames[n][::4, ::4].astype(np.int16) for n in (number, number + 2))
        change = np.abs(first - last).mean(2)
        total = np.pad(change.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        side, step = SIDE // 4, STEP // 4
        sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side]
        sums = (sums + total[:-side, :-side])[::step, ::step]
        y, x = np.unravel_index(int(sums.argmax()), sums.shape)
        found.append((float(sums[y, x]), number, int(y) * STEP, int(x) * STEP))
    _, number, top, left = max(found)
    return number, top, left


def row(vfi: Interpolator, clip: Path) -> NDArray[np.uint8]:
    """(SIDE, 5 * SIDE, 3)."""
    frames = decoded(clip)
    number, top, left = fastest(frames)
    first, true, last = frames[number : number + 3]
    made = vfi.interpolate(first, last)
    blended = np.rint((first.astype(np.float32) + last) / 2).astype(np.uint8)
    part = np.s_[top : top + SIDE, left : left + SIDE]
    return np.concatenate([frame[part] for frame in (first, blended, made, true, last)], 1)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip", nargs="+", type=Path)
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args()
    checkpoint = load_checkpoint(args.weights)
    info = reference_info(checkpoint, checkpoint.time_steps or "midpoint", io="frames")
    with Interpolator(TorchBackend(our_forward(checkpoint.network), info, name="PyTorch")) as vfi:
        rows = [row(vfi, clip) for clip in args.clip]
    Image.fromarray(np.concatenate(rows)).save(args.output, quality=88)


if __name__ == "__main__":
    main()
