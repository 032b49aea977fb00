"""The gate: compares an artefact with its float32 reference on moving frames, and may refuse it.

`export.gate.compare` compares the images before they are rounded. For graphs with frame I/O,
`export.gate.runners.onnx_runner` also checks that the bytes are exactly those images rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from export.errors import GateError
from export.gate.cases import GateCase, GroundTruthCase
from export.gate.compare import ComparedImages, compare, decibels
from export.gate.runners import Runner
from runtime.manifest import GateReport
from runtime.model_info import ModelInfo, Precision

REQUIRED_DB: dict[Precision, float] = {"fp32": 80.0, "fp16": 50.0, "int8": 40.0}
"""Minimum PSNR against fp32 PyTorch in dB. Measured: float32 in another order of operations 120 to
146, float16 with float32 coordinates 72 to 114, float16 coordinates about 40, int8 in the decoders
48 to 60. The loss of int8 is judged against true frames (`ALLOWED_LOSS_DB`); below 40 dB it becomes
visible."""

ALLOWED_LOSS_DB = 0.1
"""Maximum mean loss of PSNR to true frames, if there are any. In the paper, base is 0.2 dB better
than small on Vimeo90K: half of that is the most that an artefact may lose."""

REQUIRED_DB_OF_ENGINES: dict[Precision, float] = {"fp32": 70.0, "fp16": 50.0}
"""Minimum PSNR of TensorRT engines in dB, whose frames can only be compared as bytes. Measured in
ONNX Runtime: between images at 112 dB, one byte in 30,000 differs by a level, which is 83 dB."""


@dataclass(frozen=True)
class Reference:
    """Computes the correct results.

    Attributes:
        run: Computes them in float32.
        name: Name for reports and messages.
    """

    run: Runner
    name: str


@dataclass(frozen=True)
class Requirements:
    """The requirements of the gate.

    Attributes:
        precision: Precision of the candidates.
        required_db: Minimum PSNR in dB by precision.
    """

    precision: Precision
    required_db: Mapping[Precision, float] = field(default_factory=lambda: REQUIRED_DB)

    @property
    def psnr_db(self) -> float:
        """Minimum PSNR of the candidates in dB."""
        return self.required_db[self.precision]


@dataclass(frozen=True)
class Explanations:
    """Parts of the message about an artefact that fails.

    Attributes:
        diagnose: Describes the worst images in a sentence without a full stop, or returns "".
        remedy: What to do.
    """

    diagnose: Callable[[ComparedImages], str] = lambda _: ""
    remedy: str = "report this with the versions of torch, onnx and the backend"


@dataclass(frozen=True)
class GateComparison:
    """The result of one comparison.

    Attributes:
        candidate: Name of the candidate.
        case: The frames and time steps.
        psnr_db: PSNR to the reference in dB; inf for identical images.
        max_difference: Largest absolute difference, in [0, 1].
        loss_db: PSNR to the true frames lost against the reference in dB; None without true frames.
    """

    candidate: str
    case: GateCase | GroundTruthCase
    psnr_db: float
    max_difference: float
    loss_db: float | None

    def as_record(self) -> dict[str, object]:
        """The comparison as a dictionary for JSON; the PSNR of identical images is null."""
        return {
            "candidate": self.candidate,
            **self.case.as_record(),
            "timesteps": list(self.case.timesteps),
            "psnr_db": decibels(self.psnr_db),
            "max_difference": self.max_difference,
            **({} if self.loss_db is None else {"loss_db": round(self.loss_db, 3)}),
        }


def gate(
    reference: Reference,
    candidates: Mapping[str, Runner],
    cases: Iterable[GateCase | GroundTruthCase],
    requirements: Requirements,
    explanations: Explanations | None = None,
) -> GateReport:
    """Compares every candidate with the reference on every case.

    Args:
        reference: Computes the correct results.
        candidates: The candidates by name.
        cases: The frames and time steps.
        requirements: The PSNR that the candidates must reach.
        explanations: Parts of the message about a candidate that fails.

    Returns:
        A report with every comparison.

    Raises:
        GateError: If a candidate is below the required PSNR, or its PSNR to true frames is on
            average more than `ALLOWED_LOSS_DB` below that of the reference; names the worst.
    """
    explanations = explanations or Explanations()
    comparisons, worst_images = compare_all(reference, candidates, cases)
    worst = min(comparisons, key=lambda one: one.psnr_db)
    loss, loser = _largest_loss(comparisons)
    problem = ""
    if worst.psnr_db < requirements.psnr_db:
        problem = (
            f"{worst.candidate} has a PSNR of {worst.psnr_db:.1f} dB to {reference.name} at "
            f"{worst.case}, but {requirements.psnr_db:.0f} dB are required for "
            f"{requirements.precision}"
        )
    elif loss is not None and not loss <= ALLOWED_LOSS_DB:
        problem = (
            f"the PSNR of {loser} to the true frames is on average {loss:.2f} dB below that of "
            f"{reference.name}, but only {ALLOWED_LOSS_DB:g} dB are allowed"
        )
    if problem:
        diagnosis = explanations.diagnose(worst_images)
        raise GateError(
            f"{problem}{diagnosis and '; ' + diagnosis}: nothing was written; {explanations.remedy}"
        )
    return GateReport(
        psnr_db=decibels(worst.psnr_db),
        max_difference=max(one.max_difference for one in comparisons),
        required_db=requirements.psnr_db,
        reference=reference.name,
        cases=[one.as_record() for one in comparisons],
        loss_db=None if loss is None else round(loss, 3),
        allowed_loss_db=None if loss is None else ALLOWED_LOSS_DB,
    )


def compare_all(
    reference: Reference,
    candidates: Mapping[str, Runner],
    cases: Iterable[GateCase | GroundTruthCase],
) -> tuple[list[GateComparison], ComparedImages]:
    """Compares every candidate with the reference on every case, without a verdict.

    Returns:
        The comparisons, and the images of the one with the lowest PSNR.
    """
    comparisons: list[GateComparison] = []
    worst: tuple[float, ComparedImages] | None = None
    for case in cases:
        frame0, frame1 = case.frames()
        timestep = np.array(case.timesteps, np.float32).reshape(-1, 1, 1, 1)
        expected = reference.run(frame0, frame1, timestep)
        for name, candidate in candidates.items():
            actual = candidate(frame0, frame1, timestep)
            psnr, largest = compare(expected, actual)
            images = ComparedImages(frame0, frame1, timestep, expected, actual)
            if worst is None or psnr < worst[0]:
                worst = psnr, images
            loss = case.loss_db(expected, actual) if isinstance(case, GroundTruthCase) else None
            comparisons.append(GateComparison(name, case, psnr, largest, loss))
    assert worst is not None  # There is at least one case and one candidate.
    return comparisons, worst[1]


def _largest_loss(comparisons: Iterable[GateComparison]) -> tuple[float | None, str]:
    """The largest mean loss of a candidate in dB, and its name; None without true frames."""
    losses: dict[str, list[float]] = {}
    for one in comparisons:
        if one.loss_db is not None:
            losses.setdefault(one.candidate, []).append(one.loss_db)
    return max(((float(np.mean(v)), k) for k, v in losses.items()), default=(None, ""))


def report_lines(report: GateReport, info: ModelInfo, *, nodes: int) -> Iterator[str]:
    """The report as lines for the user: one for each comparison, then one about the model."""
    for case in report.cases:
        db = "identical" if case["psnr_db"] is None else f"PSNR {case['psnr_db']:.1f} dB"
        motion = case["motion_px"]
        content = f"frames of {case['frames']}" if motion is None else f"motion {motion:.0f} px"
        yield (
            f"  {case['candidate']}, {case['size']}, {content}, "
            f"t = {', '.join(f'{t:g}' for t in case['timesteps'])}: {db}, "
            f"largest difference {case['max_difference']:.1e}"
        )
    if report.loss_db is not None:
        yield (
            f"  mean loss of PSNR to the true frames: {report.loss_db:.3f} dB; allowed: "
            f"{report.allowed_loss_db:g} dB"
        )
    yield f"  required PSNR: {report.required_db:.0f} dB"
    tuned = ", tuned for CPUs" if info.tuned_for == "cpu" else ""
    tta = ", mean with flipped frames" if info.tta else ""
    yield (
        f"  model: {info.variant}, {info.precision}, {nodes} nodes{tuned}{tta}, time steps: "
        f"{info.time_steps}"
    )
