"""Measures methods in interleaved rounds, and compares their frames with the true ones."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from bench.alternatives.clips import HalvedClip
from bench.alternatives.methods import Images, Method
from bench.environment import MeasurementError
from bench.harness.interleave import interleaved_order, ratio
from bench.quality.metrics import psnr
from bench.records.alternatives import ClipPsnr, MethodRecord


def measure(
    methods: Sequence[Method], clip: HalvedClip, rounds: int, reference: str
) -> list[MethodRecord]:
    """Runs every method once for its frames, and then in `rounds` rounds for its time.

    Args:
        methods: The methods; their names are unique.
        clip: The clip.
        rounds: Number of rounds; in each, every method interpolates the whole clip once.
        reference: Name of the method that the others are compared with.

    Returns:
        The evidence of each method, in their order.
    """
    quality = {one.name: _quality(one.name, one.run()[1], clip) for one in methods}
    by_name = {one.name: one for one in methods}
    seconds: dict[str, list[float]] = {name: [] for name in by_name}
    for name in interleaved_order(list(by_name), rounds):
        seconds[name].append(by_name[name].run()[0])
    return [
        {
            "name": name,
            "how": one.how,
            "seconds": seconds[name],
            "frames_per_second": len(clip.true) / statistics.median(seconds[name]),
            "psnr": quality[name],
            "ratio": ratio([[s] for s in seconds[reference]], [[s] for s in seconds[name]])
            if name != reference
            else None,
        }
        for name, one in by_name.items()
    ]


def _quality(name: str, images: Images, clip: HalvedClip) -> ClipPsnr:
    if len(images) != len(clip.true):
        raise MeasurementError(
            f"{name} returned {len(images)} new frames instead of {len(clip.true)}: report this as "
            "a bug"
        )
    each = [psnr(a / 255, b / 255) for a, b in zip(images, clip.true, strict=True)]
    return {
        "mean": float(np.mean(each)), "min": min(each), "each": [round(value, 3) for value in each],
    }  # fmt: skip
