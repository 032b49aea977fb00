"""Measures the PSNR of the demo weights and of blending, data set by data set.

    python tools/demo_weights/quality.py --set middlebury DIR --set ucf101 DIR --clip in.mp4 \
        --windows in_60fps.mp4 --json quality.json

Data sets follow their published protocols (`bench.parity --list`). With --clip the middle frame of
each three frames is interpolated, with --windows those of nine at t = 1/8 .. 7/8. Blending is
(1 - t) * img0 + t * img1. PSNR is that of unrounded floats, averaged over the images.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.data.datasets import find
from bench.data.protocols import PROTOCOLS, Protocol
from bench.environment import environment_record, write_evidence
from bench.quality.evaluate import as_floats
from bench.quality.metrics import mean_db, psnr
from bench.runs.torch_backend import TorchBackend, our_forward, reference_info
from ifrnet_model import Checkpoint, load_checkpoint
from runtime import Interpolator


def quality(vfi: Interpolator, protocol: Protocol, root: Path) -> dict[str, Any]:
    """Measures the network and blending on all samples of a data set.

    Returns:
        Both mean PSNRs in dB for each time step, and the sample with the least gain over blending.
    """
    dataset = find(protocol, root)
    steps = [k / protocol.factor for k in range(1, protocol.factor)]
    interpolated: dict[float, list[float]] = {t: [] for t in steps}
    blended: dict[float, list[float]] = {t: [] for t in steps}
    gains: list[tuple[float, str]] = []
    for sample in tqdm(dataset.samples, total=dataset.count, disable=None, leave=False):
        frames = sample.read()
        img0, img1 = as_floats(frames.img0, np.float32), as_floats(frames.img1, np.float32)
        height, width = frames.targets[0].shape[:2]
        images = vfi.interpolate(img0, img1, timesteps=steps)
        for t, image, target in zip(steps, images, frames.targets, strict=True):
            truth = as_floats(target)
            blend = ((1 - t) * img0 + t * img1)[:height, :width]
            interpolated[t].append(psnr(image[:height, :width], truth))
            blended[t].append(psnr(blend, truth))
            gains.append((interpolated[t][-1] - blended[t][-1], f"{sample.name}, t = {t:g}"))
    least, name = min(gains)
    return {
        "title": protocol.title,
        "samples": len(blended[steps[0]]),
        "steps": {
            f"{t:g}": {"psnr_db": mean_db(interpolated[t]), "blending_db": mean_db(blended[t])}
            for t in steps
        },
        "least_gain_db": least,
        "least_gain_of": name,
        "below_blending_by_more_than_0.3_db": sum(gain < -0.3 for gain, _ in gains),
    }


def _reference(checkpoint: Checkpoint) -> Interpolator:
    info = reference_info(checkpoint, checkpoint.time_steps or "midpoint", io="float")
    return Interpolator(TorchBackend(our_forward(checkpoint.network), info, name="PyTorch"))


def _jobs(args: argparse.Namespace) -> list[tuple[Protocol, Path]]:
    folder = PROTOCOLS["folder"]
    return [
        *((PROTOCOLS[name], Path(root)) for name, root in args.set),
        *((replace(folder, title=f"{clip.name}, middle frames"), clip) for clip in args.clip),
        *(
            (replace(folder, title=f"{clip.name}, windows of nine", factor=8), clip)
            for clip in args.windows
        ),
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("NAME", "DIR"))
    parser.add_argument("--clip", type=Path, action="append", default=[])
    parser.add_argument("--windows", type=Path, action="append", default=[])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    checkpoint = load_checkpoint(args.weights)
    results = []
    with _reference(checkpoint) as vfi:
        for protocol, root in _jobs(args):
            result = quality(vfi, protocol, root)
            results.append(result)
            print(f"{result['title']}, {result['samples']} samples")
            for t, step in result["steps"].items():
                gain = step["psnr_db"] - step["blending_db"]
                print(
                    f"  t = {t:5}  {step['psnr_db']:.2f} dB, blending {step['blending_db']:.2f}, "
                    f"{gain:+.2f}"
                )
            print(f"  least: {result['least_gain_db']:+.2f} dB ({result['least_gain_of']})")
    if args.json is not None:
        record = {
            "weights_sha256": checkpoint.sha256,
            "results": results,
            "environment": environment_record(),
        }
        write_evidence(args.json, record)


if __name__ == "__main__":
    main()
