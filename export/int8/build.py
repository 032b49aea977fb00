"""Quantises a float32 graph to int8 with the frames of a clip, until it passes the gate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.candidate import CheckedModel, candidate_runners, default_tuning, finalise
from export.errors import ExportError, GateError
from export.gate.cases import GateCase, GroundTruthCase, gate_cases, ground_truth_cases
from export.gate.compare import ComparedImages, compare
from export.gate.gate import Explanations, Requirements, gate
from export.gate.runners import images_for, onnx_runner
from export.int8.calibration import CalibrationFrames, read_calibration_frames, with_more_motion
from export.int8.quantise import Ranges, layer_names, measured_ranges, quantised
from export.progress import Stages
from export.request import OnnxBackend
from export.source import SourceGraph
from runtime.manifest import Calibration
from runtime.model_info import ModelInfo, TunedFor

STAGES = ("read frames", "calibrate", "compare with float32")
"""The stages of `checked_int8`."""

_METHOD = (
    "extremes of the activations on all pairs, and on every other pair with added motion; uint8 "
    "with one scale per tensor; weights int8 in [-64, 64] with one scale per output channel"
)
_SKIPPED_PER_ATTEMPT = 2
_MAXIMUM_SKIPPED = 0.25
"""Share of the layers; with more of them in float32, int8 would gain little."""
_LAYERS_SHOWN = 4
"""Number of layers in a message."""
_REMEDY = "calibrate with frames more like those that the model will process, or use fp32"


def checked_int8(
    source: SourceGraph,
    clip: Path,
    *,
    tuned_for: TunedFor | None = None,
    compact: bool = False,
    backend: OnnxBackend = "onnxruntime",
    stages: Stages | None = None,
) -> CheckedModel:
    """Calibrates and quantises a graph, and compares the result; writes nothing.

    If the gate refuses the result, the layers with the largest error stay in float32, two more in
    each attempt, up to a quarter of all. The calibration of the result lists them.

    Args:
        source: A float32 graph, and its reference.
        clip: A video or a folder of images; a part of its frames is held out for the gate.
        tuned_for: The kind of device to rewrite the graph for; by default `default_tuning`.
        compact: Stores weights as float16 where no value changes.
        backend: The backend that will run it, in which it is compared.
        stages: Shows the progress, in the stages `STAGES`, and notes for the user.

    Raises:
        ExportError: If the graph is not float32, or the frames of the clip cannot be used.
        VideoError: If the clip cannot be read.
        BackendError: If the backend is not installed.
        GateError: If it fails with a quarter of the layers in float32; names the layers with the
            largest error.
    """
    info = source.info
    if info.precision != "fp32":
        raise ExportError(
            f"--precision int8 was given with a graph in {info.precision}: give the float32 file "
            "of export.to_onnx"
        )
    stages = stages or Stages.silent()
    candidates, excluded = layer_names(source.model)
    stages.start(STAGES[0])
    frames = read_calibration_frames(clip, info)
    stages.start(STAGES[1])
    ranges = measured_ranges(source.model, _feeds(frames, info))
    stages.start(STAGES[2])
    cases = _gate_cases(frames, info)
    costs = _LayerCosts(source, ranges, candidates)
    skipped: list[str] = []
    while True:
        layers = [name for name in candidates if name not in skipped]
        model, int8_info = finalise(
            quantised(source.model, ranges, layers),
            replace(info, precision="int8"),
            tuned_for or default_tuning("int8", backend),
            compact=compact,
        )
        try:
            report = gate(
                source.reference,
                candidate_runners(model, int8_info, backend),
                cases,
                Requirements("int8"),
                Explanations(diagnose=costs, remedy=_REMEDY),
            )
            break
        except GateError as error:
            more = costs.costliest[len(skipped) : len(skipped) + _SKIPPED_PER_ATTEMPT]
            if len(skipped) + len(more) > _MAXIMUM_SKIPPED * len(candidates):
                raise
            stages.note(f"trying again with {', '.join(more)} in float32: {error}")
            skipped += more
    stages.finish()
    calibration = Calibration(
        source=frames.source,
        frames=frames.count,
        frames_sha256=frames.sha256,
        method=_METHOD,
        quantised=layers,
        excluded=excluded,
        skipped=skipped,
    )
    return CheckedModel(model, int8_info, report, source.onnx_sha256, backend, calibration)


class _LayerCosts:
    """Finds the layers with the largest error in int8; measured once, at the first failure."""

    def __init__(self, source: SourceGraph, ranges: Ranges, layers: list[str]) -> None:
        self._source, self._ranges, self._layers = source, ranges, layers
        self._costs: list[tuple[float, str]] = []

    @property
    def costliest(self) -> list[str]:
        """All layers, the one with the largest error first; empty before the first failure."""
        return [name for _, name in self._costs]

    def __call__(self, images: ComparedImages) -> str:
        """Describes the layers of a failed comparison, as `Explanations.diagnose`."""
        if not self._costs:
            self._costs = sorted((self._alone(name, images), name) for name in self._layers)
        shown = ", ".join(f"{name} ({db:.1f} dB)" for db, name in self._costs[:_LAYERS_SHOWN])
        return f"the layers with the largest error, each alone in int8, are {shown}"

    def _alone(self, layer: str, images: ComparedImages) -> float:
        """PSNR in dB with only this layer in int8, on the frames of the comparison."""
        model = quantised(self._source.model, self._ranges, [layer])
        run = onnx_runner(model, self._source.info)
        actual = run(images.frame0, images.frame1, images.timestep)
        return compare(images.expected, actual)[0]


def _gate_cases(frames: CalibrationFrames, info: ModelInfo) -> list[GateCase | GroundTruthCase]:
    """Cases with generated frames, some with large motion, and with the held-out real frames."""
    generated = gate_cases([info.size or frames.size], info)
    return [*generated, *ground_truth_cases(frames.held_out, frames.source, info)]


def _feeds(frames: CalibrationFrames, info: ModelInfo) -> Iterator[dict[str, NDArray[Any]]]:
    """Inputs of the model: each pair, and every other one again with the gate's large motion.

    Without added motion, the ranges of a clip with little motion would be too small for larger
    flows.
    """
    small, large = gate_cases([frames.size], info)

    def feed(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]], case: GateCase) -> dict[str, Any]:
        img0, img1 = images_for(info, *pair, rows=len(case.timesteps))
        timestep = np.array(case.timesteps, np.float32).reshape(-1, 1, 1, 1)
        return {"img0": img0, "img1": img1, "timestep": timestep}

    for number, window in enumerate(frames.calibration):
        yield feed((window[0], window[-1]), small)
        if number % 2 == 0:
            yield feed(with_more_motion(window[0], window[-1], large.motion), large)
