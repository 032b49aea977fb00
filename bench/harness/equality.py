"""Compares the new frames of artefacts with those of a PyTorch run of the same case."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench.harness.opening import OpenedRun
from bench.records.latency import ImageAgreement
from bench.runs.agreement import agreement_of_frames
from bench.runs.artefact import ArtefactRun
from bench.runs.case import Case
from bench.runs.pytorch import PyTorchRun


def compare_with_pytorch(opened: Mapping[str, OpenedRun], case: Case) -> dict[str, ImageAgreement]:
    """Compares each artefact with the first PyTorch run in float32 that computes the same.

    The same means: the same weights, flow scale, time steps and number of passes. Both get uint8
    frames, those in `Case.compared`, and return uint8 frames, as in a program that uses them.

    Args:
        opened: The opened runs of the case by name.
        case: The case.

    Returns:
        The evidence's "agreement" by name of the run; artefacts without such a PyTorch run are
        left out.
    """
    references = [
        one
        for one in opened.values()
        if isinstance(one.run, PyTorchRun) and one.run.form.precision == "fp32"
    ]
    expected: dict[str, list[np.ndarray]] = {}
    compared = {}
    for name, one in opened.items():
        if not isinstance(one.run, ArtefactRun):
            continue
        found = next((r for r in references if _computed(r) == _computed(one)), None)
        if found is not None:
            if found.run.name not in expected:
                expected[found.run.name] = _new_frames(found, case)
            compared[name] = agreement_of_frames(
                expected[found.run.name], _new_frames(one, case), found.run.name
            )
    return compared


def _computed(one: OpenedRun) -> tuple[object, ...]:
    """What two runs must have in common to return equal frames."""
    info = one.vfi.info
    return info.weights_sha256, info.flow_scale, info.time_steps, info.tta


def _new_frames(one: OpenedRun, case: Case) -> list[np.ndarray]:
    """The new frames of all compared pairs, uint8 (H, W, 3) RGB."""
    steps = one.vfi.steps_for_factor(case.factor)
    return [
        np.array(frame)  # A backend may write the next frames to the same memory.
        for pair in case.compared
        for frame in one.vfi.interpolate(*pair, timesteps=steps)
    ]
