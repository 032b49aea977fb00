"""Makes the image of the model card: results of the demo weights where clips move fastest.

    python tools/demo_weights/stills.py in.mp4 another.mkv --output fast_motion.jpg

A row for each clip shows the square that changes most between two frames with one between them:
first frame, blending, interpolated frame, true frame, last frame.
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
"""Side of a still, in pixels of the clip."""

STEP = 16
"""Distance between the squares that are tried, in pixels."""


def decoded(clip: Path) -> list[NDArray[np.uint8]]:
    """All frames of a clip, uint8 RGB (H, W, 3)."""
    with open_for_reading(str(clip)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def fastest(frames: list[NDArray[np.uint8]]) -> tuple[int, int, int]:
    """The square that changes most within two frames: first frame, top and left in pixels."""
    squares = []
    for number in range(len(frames) - 2):
        first, last = (frames[n][::4, ::4].astype(np.int16) for n in (number, number + 2))
        change = np.abs(first - last).mean(2)
        total = np.pad(change.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        side, step = SIDE // 4, STEP // 4
        sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side]
        sums = (sums + total[:-side, :-side])[::step, ::step]
        y, x = np.unravel_index(int(sums.argmax()), sums.shape)
        squares.append((float(sums[y, x]), number, int(y) * STEP, int(x) * STEP))
    _, number, top, left = max(squares)
    return number, top, left


def row(vfi: Interpolator, clip: Path) -> NDArray[np.uint8]:
    """The row of stills for a clip, uint8 RGB (SIDE, 5 * SIDE, 3)."""
    frames = decoded(clip)
    number, top, left = fastest(frames)
    first, true, last = frames[number : number + 3]
    middle = vfi.interpolate(first, last)
    blended = np.rint((first.astype(np.float32) + last) / 2).astype(np.uint8)
    part = np.s_[top : top + SIDE, left : left + SIDE]
    return np.concatenate([frame[part] for frame in (first, blended, middle, true, last)], 1)


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
