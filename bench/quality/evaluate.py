"""One sample after the other through PyTorch and the artefacts, and what is measured of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.datasets import DataSet
from bench.data.protocols import Metric, Protocol
from bench.data.samples import DamagedError, Frames, Sample
from bench.environment import MeasurementError
from bench.quality.metrics import METRICS, ImageArray, check_image, psnr
from runtime import Interpolator
from runtime.errors import FrameError

Compared = Literal["floats", "bytes"]
"""Pictures before they are rounded, or after: the two are never compared with each other."""

_UNDER_WAY = 2
"""Samples whose metrics are still computed while the next are made."""


class Artefact(NamedTuple):
    """An opened artefact; the pictures of it are compared as `compared`."""

    name: str
    path: Path
    vfi: Interpolator
    compared: Compared


class Comparison(NamedTuple):
    """All that a sample is put through.

    Attributes:
        protocol: What is measured, and how.
        metrics: What is measured of each new frame.
        references: PyTorch, once for each kind that is compared.
        artefacts: What is compared with it.
    """

    protocol: Protocol
    metrics: Sequence[Metric]
    references: Mapping[Compared, Interpolator]
    artefacts: Sequence[Artefact]

    @property
    def timesteps(self) -> list[float]:
        """Of the new frames of a sample."""
        factor = self.protocol.factor
        return [k / factor for k in range(1, factor)]


class Made(NamedTuple):
    """The new frames of one sample, floats in [0, 1], by what made them."""

    references: dict[Compared, list[ImageArray]]
    artefacts: dict[str, list[ImageArray]]


def make(comparison: Comparison, sample: str, frames: Frames) -> Made:
    """Lets PyTorch and every artefact make the new frames of a sample.

    Raises:
        MeasurementError: If one of them cannot take the frames, or makes NaN.
    """
    pairs = {kind: _pair_as(kind, frames) for kind in comparison.references}
    height, width = frames.targets[0].shape[:2]

    def made_by(vfi: Interpolator, kind: Compared, name: str) -> list[ImageArray]:
        try:
            new = vfi.interpolate(*pairs[kind], timesteps=comparison.timesteps)
        except FrameError as error:
            raise MeasurementError(f"{name} cannot take sample {sample}: {error}") from error
        images = [as_floats(image[:height, :width]) for image in new]
        for image in images:
            check_image(image, f"what {name} made of sample {sample}")
        return images

    # "floats" first: bytes are the floats rounded, unless a rounded picture was put in again.
    references: dict[Compared, list[ImageArray]] = {}
    for kind in sorted(comparison.references, reverse=True):
        if kind == "bytes" and "floats" in references and _rounding_is_last(comparison, frames):
            references[kind] = [
                as_floats(np.rint(image * np.float32(255)).astype(np.uint8))
                for image in references["floats"]
            ]
        else:
            references[kind] = made_by(comparison.references[kind], kind, "PyTorch")
    return Made(
        references, {a.name: made_by(a.vfi, a.compared, a.name) for a in comparison.artefacts}
    )


def _rounding_is_last(comparison: Comparison, frames: Frames) -> bool:
    """Whether nothing is computed from a rounded picture: no recursion, no resampled frame."""
    direct = (
        comparison.artefacts[0].vfi.info.time_steps == "arbitrary"
        or comparison.protocol.factor == 2
    )
    return direct and bool(frames.img0.dtype == np.uint8)


def _pair_as(kind: Compared, frames: Frames) -> tuple[NDArray[Any], NDArray[Any]]:
    """The two frames as bytes or as floats; those that were resampled are floats already."""
    if kind == "floats":
        return as_floats(frames.img0, np.float32), as_floats(frames.img1, np.float32)
    return tuple(  # type: ignore[return-value]  # Two go in, two come out.
        frame if frame.dtype == np.uint8 else np.rint(frame * 255).astype(np.uint8)
        for frame in frames[:2]
    )


def as_floats(image: NDArray[Any], dtype: type = np.float64) -> ImageArray:
    """uint8 -> floats in [0, 1]; floats stay as they are."""
    if image.dtype == np.uint8:
        scaled: ImageArray = image.astype(dtype) / dtype(255)
        return scaled
    return image


def measured(
    comparison: Comparison, targets: Sequence[NDArray[Any]], images: Sequence[ImageArray]
) -> dict[str, list[float]]:
    """Every metric of every new frame."""
    truth = [as_floats(target) for target in targets]

    def one(metric: Metric, image: ImageArray, target: ImageArray) -> float:
        if metric == "psnr":
            return psnr(image, target, rounded=comparison.protocol.rounded)
        return METRICS[metric](image, target)

    return {
        metric: [one(metric, *pair) for pair in zip(images, truth, strict=True)]
        for metric in comparison.metrics
    }


def measure_sample(
    comparison: Comparison, sample: Sample, pool: ThreadPoolExecutor
) -> Future[dict[str, Any]]:
    """Makes a sample's new frames at once; gives its line, whose metrics the pool computes."""
    started = time.perf_counter()
    frames = sample.read()
    made = make(comparison, sample.name, frames)
    seconds = time.perf_counter() - started

    def line() -> dict[str, Any]:
        began = time.perf_counter()
        artefacts = {}
        for artefact in comparison.artefacts:
            images = made.artefacts[artefact.name]
            pairs = zip(made.references[artefact.compared], images, strict=True)
            artefacts[artefact.name] = {
                **measured(comparison, frames.targets, images),
                "against_reference": [psnr(image, reference) for reference, image in pairs],
            }
        references = {
            kind: measured(comparison, frames.targets, images)
            for kind, images in made.references.items()
        }
        return {
            "sample": sample.name,
            "seconds": round(seconds + time.perf_counter() - began, 4),
            "reference": references,
            "artefacts": artefacts,
        }

    return pool.submit(line)


def measure_all(
    comparison: Comparison, found: DataSet, done: set[str], workers: int
) -> Iterator[dict[str, Any]]:
    """The lines of the samples that are not done yet, in order."""
    under_way: deque[Future[dict[str, Any]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for sample in found.samples:
            if sample.name in done:
                continue
            try:
                under_way.append(measure_sample(comparison, sample, pool))
            except DamagedError as error:
                failed: Future[dict[str, Any]] = Future()
                failed.set_result({"sample": sample.name, "damaged": str(error)})
                under_way.append(failed)
            while len(under_way) > _UNDER_WAY:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
