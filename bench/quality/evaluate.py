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

from bench.data.datasets import Found
from bench.data.protocols import Metric, Protocol
from bench.data.samples import DamagedError, Frames, Sample
from bench.environment import MeasurementError
from bench.quality.metrics import METRICS, Picture, check_picture, psnr
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


class Bench(NamedTuple):
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

    references: dict[Compared, list[Picture]]
    artefacts: dict[str, list[Picture]]


def make(bench: Bench, sample: str, frames: Frames) -> Made:
    """Lets PyTorch and every artefact make the new frames of a sample.

    Raises:
        MeasurementError: If one of them cannot take the frames, or makes NaN.
    """
    pairs = {kind: _pair_as(kind, frames) for kind in bench.references}
    height, width = frames.targets[0].shape[:2]

    def made_by(vfi: Interpolator, kind: Compared, name: str) -> list[Picture]:
        try:
            new = vfi.interpolate(*pairs[kind], timesteps=bench.timesteps)
        except FrameError as error:
            raise MeasurementError(f"{name} cannot take sample {sample}: {error}") from error
        pictures = [as_floats(picture[:height, :width]) for picture in new]
        for picture in pictures:
            check_picture(picture, f"what {name} made of sample {sample}")
        return pictures

    # "floats" first: bytes are the floats rounded, unless a rounded picture was put in again.
    references: dict[Compared, list[Picture]] = {}
    for kind in sorted(bench.references, reverse=True):
        if kind == "bytes" and "floats" in references and _rounding_is_last(bench, frames):
            references[kind] = [
                as_floats(np.rint(picture * np.float32(255)).astype(np.uint8))
                for picture in references["floats"]
            ]
        else:
            references[kind] = made_by(bench.references[kind], kind, "PyTorch")
    return Made(references, {a.name: made_by(a.vfi, a.compared, a.name) for a in bench.artefacts})


def _rounding_is_last(bench: Bench, frames: Frames) -> bool:
    """Whether nothing is computed from a rounded picture: no recursion, no resampled frame."""
    direct = bench.artefacts[0].vfi.info.time_steps == "arbitrary" or bench.protocol.factor == 2
    return direct and bool(frames.img0.dtype == np.uint8)


def _pair_as(kind: Compared, frames: Frames) -> tuple[NDArray[Any], NDArray[Any]]:
    """The two frames as bytes or as floats; those that were resampled are floats already."""
    if kind == "floats":
        return as_floats(frames.img0, np.float32), as_floats(frames.img1, np.float32)
    return tuple(  # type: ignore[return-value]  # Two go in, two come out.
        frame if frame.dtype == np.uint8 else np.rint(frame * 255).astype(np.uint8)
        for frame in frames[:2]
    )


def as_floats(picture: NDArray[Any], dtype: type = np.float64) -> Picture:
    """uint8 -> floats in [0, 1]; floats stay as they are."""
    if picture.dtype == np.uint8:
        scaled: Picture = picture.astype(dtype) / dtype(255)
        return scaled
    return picture


def measured(
    bench: Bench, targets: Sequence[NDArray[Any]], pictures: Sequence[Picture]
) -> dict[str, list[float]]:
    """Every metric of every new frame."""
    truth = [as_floats(target) for target in targets]

    def one(metric: Metric, picture: Picture, target: Picture) -> float:
        if metric == "psnr":
            return psnr(picture, target, rounded=bench.protocol.rounded)
        return METRICS[metric](picture, target)

    return {
        metric: [one(metric, *pair) for pair in zip(pictures, truth, strict=True)]
        for metric in bench.metrics
    }


def measure_sample(
    bench: Bench, sample: Sample, pool: ThreadPoolExecutor
) -> Future[dict[str, Any]]:
    """Makes a sample's new frames at once; gives its line, whose metrics the pool computes."""
    started = time.perf_counter()
    frames = sample.read()
    made = make(bench, sample.name, frames)
    seconds = time.perf_counter() - started

    def line() -> dict[str, Any]:
        began = time.perf_counter()
        artefacts = {}
        for artefact in bench.artefacts:
            pictures = made.artefacts[artefact.name]
            pairs = zip(made.references[artefact.compared], pictures, strict=True)
            artefacts[artefact.name] = {
                **measured(bench, frames.targets, pictures),
                "against_reference": [psnr(picture, reference) for reference, picture in pairs],
            }
        references = {
            kind: measured(bench, frames.targets, pictures)
            for kind, pictures in made.references.items()
        }
        return {
            "sample": sample.name,
            "seconds": round(seconds + time.perf_counter() - began, 4),
            "reference": references,
            "artefacts": artefacts,
        }

    return pool.submit(line)


def measure_all(
    bench: Bench, found: Found, done: set[str], workers: int
) -> Iterator[dict[str, Any]]:
    """The lines of the samples that are not done yet, in order."""
    under_way: deque[Future[dict[str, Any]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for sample in found.samples:
            if sample.name in done:
                continue
            try:
                under_way.append(measure_sample(bench, sample, pool))
            except DamagedError as error:
                failed: Future[dict[str, Any]] = Future()
                failed.set_result({"sample": sample.name, "damaged": str(error)})
                under_way.append(failed)
            while len(under_way) > _UNDER_WAY:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
