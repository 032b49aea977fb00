"""Interpolates samples with PyTorch and the artefacts, and computes the metrics."""

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
"""Whether images are compared as floats or after rounding to 8 bits; the two are not mixed."""

_MAX_PENDING = 2
"""Number of samples whose metrics may be pending while the next sample is interpolated."""


class Artefact(NamedTuple):
    """An opened artefact; `compared` is the type in which its images are compared."""

    name: str
    path: Path
    vfi: Interpolator
    compared: Compared


class Comparison(NamedTuple):
    """The artefacts and references that interpolate a sample, and the metrics of the result.

    Attributes:
        protocol: Protocol of the data set.
        metrics: Metrics of each new frame.
        references: PyTorch, opened once for each way in which artefacts are compared.
        artefacts: The artefacts.
    """

    protocol: Protocol
    metrics: Sequence[Metric]
    references: Mapping[Compared, Interpolator]
    artefacts: Sequence[Artefact]

    @property
    def timesteps(self) -> list[float]:
        """Time steps in (0, 1) of the new frames of a sample."""
        factor = self.protocol.factor
        return [k / factor for k in range(1, factor)]


class InterpolatedSample(NamedTuple):
    """New frames of one sample, floats (H, W, 3) in [0, 1], by kind of reference and artefact."""

    references: dict[Compared, list[ImageArray]]
    artefacts: dict[str, list[ImageArray]]


def interpolate_sample(comparison: Comparison, sample: str, frames: Frames) -> InterpolatedSample:
    """Interpolates the new frames of a sample with PyTorch and with every artefact.

    Args:
        comparison: References and artefacts.
        sample: Name of the sample, for error messages.
        frames: The frames of the sample.

    Raises:
        MeasurementError: If one of them does not accept the frames, or returns NaN.
    """
    pairs = {kind: _pair_as(kind, frames) for kind in comparison.references}
    height, width = frames.targets[0].shape[:2]

    def interpolate(vfi: Interpolator, kind: Compared, name: str) -> list[ImageArray]:
        try:
            new = vfi.interpolate(*pairs[kind], timesteps=comparison.timesteps)
        except FrameError as error:
            raise MeasurementError(f"{name} cannot interpolate sample {sample}: {error}") from error
        images = [as_floats(image[:height, :width]) for image in new]
        for image in images:
            check_image(
                image,
                f"the new frame of {name} for sample {sample}",
                remedy="build the model again",
            )
        return images

    # "floats" first: its images, rounded, are those of "bytes" unless rounded frames are inputs.
    references: dict[Compared, list[ImageArray]] = {}
    for kind in sorted(comparison.references, reverse=True):
        if kind == "bytes" and "floats" in references and _rounding_is_last(comparison, frames):
            references[kind] = [
                as_floats(np.rint(image * np.float32(255)).astype(np.uint8))
                for image in references["floats"]
            ]
        else:
            references[kind] = interpolate(comparison.references[kind], kind, "PyTorch")
    return InterpolatedSample(
        references, {a.name: interpolate(a.vfi, a.compared, a.name) for a in comparison.artefacts}
    )


def _rounding_is_last(comparison: Comparison, frames: Frames) -> bool:
    """Whether no call has a rounded frame as input: without recursion and resampled frames."""
    direct = (
        comparison.artefacts[0].vfi.info.time_steps == "arbitrary"
        or comparison.protocol.factor == 2
    )
    return direct and bool(frames.img0.dtype == np.uint8)


def _pair_as(kind: Compared, frames: Frames) -> tuple[NDArray[Any], NDArray[Any]]:
    """The first and last frame as uint8 or as float32; resampled frames are float32 already."""
    if kind == "floats":
        return as_floats(frames.img0, np.float32), as_floats(frames.img1, np.float32)
    return tuple(  # type: ignore[return-value]  # There are two frames.
        frame if frame.dtype == np.uint8 else np.rint(frame * 255).astype(np.uint8)
        for frame in frames[:2]
    )


def as_floats(image: NDArray[Any], dtype: type = np.float64) -> ImageArray:
    """Converts uint8 to floats of `dtype` in [0, 1]; returns floats unchanged."""
    if image.dtype == np.uint8:
        scaled: ImageArray = image.astype(dtype) / dtype(255)
        return scaled
    return image


def measured(
    comparison: Comparison, targets: Sequence[NDArray[Any]], images: Sequence[ImageArray]
) -> dict[str, list[float]]:
    """Computes every metric of every new frame, in order of time."""
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
    """Interpolates a sample, and returns its line as a future: the pool computes the metrics."""
    started = time.perf_counter()
    frames = sample.read()
    interpolated = interpolate_sample(comparison, sample.name, frames)
    seconds = time.perf_counter() - started

    def line() -> dict[str, Any]:
        began = time.perf_counter()
        artefacts = {}
        for artefact in comparison.artefacts:
            images = interpolated.artefacts[artefact.name]
            pairs = zip(interpolated.references[artefact.compared], images, strict=True)
            artefacts[artefact.name] = {
                **measured(comparison, frames.targets, images),
                "against_reference": [psnr(image, reference) for reference, image in pairs],
            }
        references = {
            kind: measured(comparison, frames.targets, images)
            for kind, images in interpolated.references.items()
        }
        return {
            "sample": sample.name,
            "seconds": round(seconds + time.perf_counter() - began, 4),
            "reference": references,
            "artefacts": artefacts,
        }

    return pool.submit(line)


def measure_all(
    comparison: Comparison, data_set: DataSet, done: set[str], workers: int
) -> Iterator[dict[str, Any]]:
    """Yields the lines of the samples that are not done, in order.

    Args:
        comparison: References, artefacts and metrics.
        data_set: The data set.
        done: Names of the samples to skip.
        workers: Number of threads that compute metrics.

    Yields:
        "sample", "seconds", "reference" and "artefacts"; "sample" and "damaged" for a sample that
        cannot be read.
    """
    pending: deque[Future[dict[str, Any]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for sample in data_set.samples:
            if sample.name in done:
                continue
            try:
                pending.append(measure_sample(comparison, sample, pool))
            except DamagedError as error:
                failed: Future[dict[str, Any]] = Future()
                failed.set_result({"sample": sample.name, "damaged": str(error)})
                pending.append(failed)
            while len(pending) > _MAX_PENDING:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
