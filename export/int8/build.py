"""A float32 graph and a clip -> an int8 artefact that passed the gate, or the layers to blame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.candidate import CheckedModel, candidate_runners, default_tuning, finalise
from export.errors import ExportError, GateError
from export.gate.cases import GateCase, GroundTruthCase, gate_cases, spread_steps
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

STAGES = ("read frames", "calibrate", "compare")

_METHOD = (
    "extremes of the activations on the pairs, of which every other one moved apart too; uint8 "
    "for each tensor; weights int8 in [-64, 64] for each output channel"
)
_SKIPPED_AT_ONCE = 2
_SKIPPED_AT_MOST = 0.25
"""Of the layers: with more of them in float32 little would be left to gain."""
_NAMED = 4
"""Layers in a message."""
_REMEDY = "calibrate with frames that are more like those it will see, or use fp32"


def checked_int8(
    source: SourceGraph,
    clip: Path,
    *,
    tuned_for: TunedFor | None = None,
    backend: OnnxBackend = "onnxruntime",
    stages: Stages | None = None,
) -> CheckedModel:
    """Calibrates, quantises, compares; writes nothing.

    Where the gate refuses the result, the layers that cost most are left in float32, two at a time,
    up to a quarter of them; which ones is in the result's calibration.

    Args:
        source: A float32 graph, and what it is compared with.
        clip: A video or a folder of images; a part of its frames is held out for the gate.
        tuned_for: See `default_tuning`, which is the default.
        backend: What it is compared in, and what runs it by default.
        stages: Told about progress, and notes for the user.

    Raises:
        ExportError: If the graph is not float32, or the clip does not serve.
        VideoError: If the clip cannot be read.
        BackendError: If the backend is not installed.
        GateError: If too little of it could be int8; names the layers that cost most.
    """
    info = source.info
    if info.precision != "fp32":
        raise ExportError(
            f"int8 came with a graph in {info.precision}: give the float32 file of export.to_onnx"
        )
    stages = stages or Stages.silent()
    chosen, excluded = layer_names(source.model)
    stages.start(STAGES[0])
    frames = read_calibration_frames(clip, info)
    stages.start(STAGES[1])
    ranges = measured_ranges(source.model, _feeds(frames, info))
    stages.start(STAGES[2])
    cases = _gate_cases(frames, info)
    blame = _LayerCosts(source, ranges, chosen)
    skipped: list[str] = []
    while True:
        layers = [name for name in chosen if name not in skipped]
        model, made = finalise(
            quantised(source.model, ranges, layers),
            replace(info, precision="int8"),
            tuned_for or default_tuning("int8", backend),
        )
        try:
            report = gate(
                source.reference,
                candidate_runners(model, made, backend),
                cases,
                Requirements("int8"),
                Explanations(diagnose=blame, remedy=_REMEDY),
            )
            break
        except GateError as error:
            more = blame.costliest[len(skipped) : len(skipped) + _SKIPPED_AT_ONCE]
            if len(skipped) + len(more) > _SKIPPED_AT_MOST * len(chosen):
                raise
            stages.note(f"{error}; trying with {', '.join(more)} in float32")
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
    return CheckedModel(model, made, report, source.onnx_sha256, backend, calibration)


class _LayerCosts:
    """Says of a failed comparison which layers cost most; measured once, at the first failure."""

    def __init__(self, source: SourceGraph, ranges: Ranges, layers: list[str]) -> None:
        self._source, self._ranges, self._layers = source, ranges, layers
        self._costs: list[tuple[float, str]] = []

    @property
    def costliest(self) -> list[str]:
        """All layers, the one that costs most first."""
        return [name for _, name in self._costs]

    def __call__(self, images: ComparedImages) -> str:
        """See `gate`: each layer alone in int8, on the pair that came out worst."""
        if not self._costs:
            self._costs = sorted((self._alone(name, images), name) for name in self._layers)
        shown = ", ".join(f"{name} ({db:.1f} dB alone)" for db, name in self._costs[:_NAMED])
        return f"the layers that cost most are {shown}"

    def _alone(self, layer: str, images: ComparedImages) -> float:
        model = quantised(self._source.model, self._ranges, [layer])
        run = onnx_runner(model, self._source.info)
        made = run(images.frame0, images.frame1, images.timestep)
        return compare(images.expected, made)[0]


def _gate_cases(frames: CalibrationFrames, info: ModelInfo) -> list[GateCase | GroundTruthCase]:
    """Made frames, of which some move far, and the real ones that calibration has not seen."""
    made = gate_cases([info.size or frames.size], info)
    evenly = spread_steps(info.steps_per_call) * info.pairs_per_call
    real = [
        GroundTruthCase(
            f"{frames.source}, {number} of {len(frames.held_out)} held out", window, evenly
        )
        for number, window in enumerate(frames.held_out, 1)
    ]
    return [*made, *real]


def _feeds(frames: CalibrationFrames, info: ModelInfo) -> Iterator[dict[str, NDArray[Any]]]:
    """Each pair as it is, and every other one with the motion and the time steps of the gate too.

    A clip in which little moves would leave the decoders no room for flows that are larger.
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
