"""Assigns runs to cases by the frame sizes that each run accepts."""

from __future__ import annotations

from collections.abc import Sequence

from bench.environment import MeasurementError
from bench.runs.artefact import ArtefactRun, Run, calls_of_a_pair, is_engine
from bench.runs.case import Case
from bench.runs.plain_engine import PlainRun
from bench.runs.pytorch import PyTorchRun
from runtime.backends.build_command import build_command


def plan_runs(
    cases: Sequence[Case],
    artefacts: Sequence[ArtefactRun],
    baselines: Sequence[PyTorchRun],
    plains: Sequence[PlainRun] = (),
) -> list[tuple[Case, list[Run]]]:
    """Assigns runs to cases: each file to the sizes that it accepts, PyTorch to all sizes.

    Args:
        cases: Sizes and factors to measure.
        artefacts: Runs of artefacts.
        baselines: Runs of PyTorch.
        plains: Runs of a plain ONNX export.

    Returns:
        Each case with its runs, at least one.

    Raises:
        MeasurementError: If a file accepts none of the sizes, or a size has no run.
        FrameError: If the weights cannot interpolate at the factor of a case.
    """
    sizes = ", ".join(dict.fromkeys(case.size_text for case in cases))
    for artefact in artefacts:
        if not any(artefact.takes(case.size) for case in cases):
            raise MeasurementError(
                f"{artefact.file} accepts {artefact.sizes}, but not {sizes}: build a model with "
                f"{_command(artefact, cases[0])}, or leave it out"
            )
    for plain in plains:
        if not any(plain.takes(case.size) for case in cases):
            size = "{}x{}".format(*plain.file.size)
            raise MeasurementError(
                f"{plain.file.path.name} accepts {size}, but not {sizes}: give --size {size}"
            )
    plan = []
    for case in cases:
        fitting = [artefact for artefact in artefacts if artefact.takes(case.size)]
        runs: list[Run] = [*fitting, *baselines, *(p for p in plains if p.takes(case.size))]
        if not runs:
            build = f"build one with {_command(artefacts[0], case)}, or " if artefacts else ""
            raise MeasurementError(
                f"no artefact accepts {case.size_text}: {build}leave that size out"
            )
        if artefacts and not fitting:
            print(f"no artefact accepts {case.size_text}: only the baselines are measured there")
        for run in runs:
            calls_of_a_pair(
                run.info(case), case.factor
            )  # Raises FrameError for an impossible factor.
        plan.append((case, runs))
    return plan


def _command(artefact: ArtefactRun, case: Case) -> str:
    """The command that builds a model like `artefact` for the frames of `case`."""
    backend = "tensorrt" if is_engine(artefact.path) else artefact.backend or "onnxruntime"
    return build_command(artefact.model, backend, size=case.size)
