"""The gate: an artefact against its fp32 reference, on frames that move; what fails is refused.

Everything is compared before it is rounded to 8 bit, in [0, 1]: pictures that are 107 dB apart as
floats can be 76 dB apart as bytes, for a byte that flips differs by a whole level. That the bytes
of a graph with frame I/O are the rounded floats is checked apart, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from export.errors import GateError
from runtime.backends.base import NO_CACHE, Backend
from runtime.frames import to_planes
from runtime.machine import available_processors
from runtime.manifest import GateReport, ModelInfo, Precision
from runtime.telemetry import import_quietly

onnxruntime = import_quietly("onnxruntime")

REQUIRED_DB: dict[Precision, float] = {"fp32": 80.0, "fp16": 50.0, "int8": 40.0}
"""Worst PSNR against fp32 PyTorch. Measured: float32 in another order of operations 120 to 146 dB,
float16 with float32 coordinates 72 to 114, float16 coordinates about 40. int8 in the decoders 48
to 60: what that costs is seen against the truth, below; 40 dB is where a picture begins to show
it."""

ALLOWED_LOSS_DB = 0.1
"""Mean loss of PSNR to true frames, where there are some. The variants small and base are 0.2 dB
apart on Vimeo90K in the paper: a loss of half of that would undo the choice between them."""

REQUIRED_DB_OF_ENGINES: dict[Precision, float] = {"fp32": 70.0, "fp16": 50.0}
"""The same for engines, whose frames can be compared as bytes only. Measured in ONNX Runtime: where
pictures are 112 dB apart, one byte in 30 000 differs by a level, which is 83."""

Run = Callable[[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]], NDArray[np.float32]]
"""Two frames (H, W, 3) and time steps (T, 1, 1, 1) -> float32 (T, 3, H', W') in [0, 1]; H' and W'
are padded where the artefact has float I/O."""


@dataclass(frozen=True)
class GateCase:
    """One comparison: a size, a motion between the two frames in pixels, time steps."""

    height: int
    width: int
    motion: float
    timesteps: tuple[float, ...]

    def frames(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The pair."""
        return moving_frames(self.height, self.width, self.motion)

    def __str__(self) -> str:
        return f"{self.height}x{self.width} with motion of {self.motion:.0f} px"

    def as_record(self) -> dict[str, object]:
        """For JSON."""
        return {"size": f"{self.height}x{self.width}", "motion_px": self.motion}


@dataclass(frozen=True, eq=False)
class TrueCase:
    """One comparison on real frames between which the truth is known.

    Attributes:
        name: Where they are from.
        window: Consecutive frames (H, W, 3); all but the first and the last are the truth, at the
            first of the time steps.
        timesteps: As of `GateCase`.
    """

    name: str
    window: Sequence[NDArray[np.uint8]]
    timesteps: tuple[float, ...]

    def frames(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The pair."""
        return self.window[0], self.window[-1]

    def __str__(self) -> str:
        return f"{self._size} of {self.name}"

    def as_record(self) -> dict[str, object]:
        """For JSON."""
        return {"size": self._size, "motion_px": None, "frames": self.name}

    def loss_db(self, expected: NDArray[np.float32], made: NDArray[np.float32]) -> float:
        """By how much `made` is further from the truth than `expected`, both (B, 3, H', W')."""
        truth = np.concatenate([to_planes(frame, 1) for frame in self.window[1:-1]])
        height, width = truth.shape[-2:]
        top, left = ((n - m) // 2 for n, m in zip(made.shape[-2:], (height, width), strict=True))
        part = np.s_[: len(truth), :, top : top + height, left : left + width]
        # A picture that is the truth would be infinitely better than any other.
        best, found = (min(compare(truth, planes[part])[0], 100.0) for planes in (expected, made))
        return best - found

    @property
    def _size(self) -> str:
        height, width, _ = self.window[0].shape
        return f"{height}x{width}"


def gate_cases(sizes: Iterable[tuple[int, int]], info: ModelInfo) -> list[GateCase]:
    """Small and large motion at each (height, width): 2 pixels, and a tenth of the longer side.

    That is 45 pixels at 448x256; at most 128, from 1280 pixels on. Weights that know any time
    step are tried off the middle too. Where the number of pairs is free the first case has one
    and the second as many as a call may have.
    """
    few, many = (
        spread_steps(info.frames_per_call),
        spread_steps(info.max_pairs or info.frames_per_call),
    )
    early = tuple(t / 2 for t in many) if info.time_steps == "arbitrary" else many
    return [
        case
        for height, width in sizes
        for case in (
            GateCase(height, width, 2.0, few),
            GateCase(height, width, min(128.0, max(height, width) / 10), early),
        )
    ]


def spread_steps(count: int) -> tuple[float, ...]:
    """So many time steps, evenly inside (0, 1)."""
    return tuple(k / (count + 1) for k in range(1, count + 1))


def moving_frames(
    height: int, width: int, motion: float, *, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two frames of a made scene: a textured ground and a textured box that pass each other.

    Args:
        height: Of the frames.
        width: Of the frames.
        motion: Pixels that the ground moves between the frames; the box moves as far against it.
        seed: Of the texture.

    Returns:
        Two uint8 frames (height, width, 3).
    """
    rng = np.random.default_rng(seed)
    margin = math.ceil(motion) + 1
    ground = _texture(height + 2 * margin, width + 2 * margin, rng)
    box_height, box_width = max(4, height // 3), max(4, width // 4)
    box = 255 - _texture(box_height, box_width, rng)
    step_x, step_y = round(motion * 0.45), round(motion * 0.2)  # half the way, to either side

    def frame(direction: int) -> NDArray[np.uint8]:
        top, left = margin + direction * step_y, margin + direction * step_x
        picture = ground[top : top + height, left : left + width].copy()
        top = min(max(0, (height - box_height) // 2 + direction * step_y), height - box_height)
        left = min(max(0, (width - box_width) // 2 + direction * step_x), width - box_width)
        picture[top : top + box_height, left : left + box_width] = box
        return np.rint(picture).astype(np.uint8)

    return frame(-1), frame(1)


def onnx_run(model: ModelProto, info: ModelInfo, *, optimised: bool = True) -> Run:
    """An ONNX model in ONNX Runtime on the CPU, as a candidate or (unoptimised) as a reference.

    With frame I/O the picture is tapped before it is rounded, and the bytes must be exactly
    that picture rounded to nearest.

    Raises:
        GateError: From the returned function, if the bytes are not.
    """
    model, tap = _tapped(model, info)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return _run_of_graph(info, tap, lambda names, feed: session.run(names, feed))


def openvino_run(model: ModelProto, info: ModelInfo) -> Run:
    """An ONNX model in OpenVINO, compiled as the runtime does it; the rest as `onnx_run`.

    Raises:
        BackendError: If OpenVINO is not installed.
        GateError: From the returned function, if the bytes are not the rounded picture.
    """
    from runtime.backends.ov.backend import compiled_model, import_openvino

    model, tap = _tapped(model, info)
    request = compiled_model(
        import_openvino(),
        model.SerializeToString(),
        precision="fp32",
        streams=1,
        threads=available_processors(),
        cache=NO_CACHE,
    ).create_infer_request()

    def compute(names: list[str], feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        request.infer(feed)
        return [request.get_tensor(name).data.copy() for name in names]

    return _run_of_graph(info, tap, compute)


def _tapped(model: ModelProto, info: ModelInfo) -> tuple[ModelProto, str | None]:
    """With frame I/O a copy that gives the picture before it is rounded too, and its name."""
    if info.io == "float":
        return model, None
    model = _copy(model)
    (tap,) = (node.input[0] for node in model.graph.node if node.op_type == "Round")
    model.graph.output.append(onnx.helper.make_tensor_value_info(tap, onnx.TensorProto.FLOAT, None))
    return model, tap


def _run_of_graph(
    info: ModelInfo,
    tap: str | None,
    compute: Callable[[list[str], dict[str, NDArray[Any]]], list[NDArray[Any]]],
) -> Run:
    """A run by what gives the named outputs of a graph, tapped where it makes bytes."""

    def run(
        frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], timestep: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        img0, img1 = images_for(info, frame0, frame1, rows=len(timestep))
        feed = {"img0": img0, "img1": img1, "timestep": timestep}
        if tap is None:
            planes: NDArray[np.float32] = compute(["imgt"], feed)[0]
            return planes
        frames, picture = compute(["imgt", tap], feed)
        if not np.array_equal(frames, np.rint(picture).transpose(0, 2, 3, 1)):
            raise GateError("the graph's bytes are not its picture rounded to nearest")
        scaled: NDArray[np.float32] = picture.astype(np.float32) / np.float32(255)
        return scaled

    return run


def backend_run(backend: Backend) -> Run:
    """An opened artefact as a candidate; frames are compared as bytes / 255."""
    info = backend.info

    def run(
        frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], timestep: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        rows = zip(*images_for(info, frame0, frame1, rows=len(timestep)), strict=True)
        pairs = [(backend.put(img0[None]), backend.put(img1[None])) for img0, img1 in rows]
        waits = [backend.download(image) for image in backend.submit(pairs, timestep)]
        made = np.concatenate([wait() for wait in waits])
        if info.io == "float":
            return made
        return made.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)

    return run


def rounded_to_bytes(run: Run) -> Run:
    """The same picture as a frame of 8 bit would show it."""

    def rounded(
        frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], timestep: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        levels: NDArray[np.float32] = np.rint(run(frame0, frame1, timestep) * np.float32(255))
        return levels / np.float32(255)

    return rounded


def images_for(
    info: ModelInfo, frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], *, rows: int
) -> tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.uint8] | NDArray[np.float32]]:
    """Two frames (H, W, 3) as the inputs img0 and img1 of a model.

    A model that takes several pairs gets a different one in each place: the pair, and it turned
    around and shifted, so that a mix-up of the places shows. Where the number of pairs is free it
    is `rows`, that of the time steps.
    """
    pairs = [(frame0, frame1)]
    while len(pairs) < (rows if info.max_pairs else info.pairs_per_call):
        pairs.append((np.roll(pairs[-1][1], 5, 1), np.roll(pairs[-1][0], 5, 1)))
    if info.io == "frames":
        return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])
    img0, img1 = (np.concatenate([to_planes(p[k], info.divisor) for p in pairs]) for k in (0, 1))
    return img0, img1


def compare(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> tuple[float, float]:
    """PSNR in dB (inf where identical, -inf where not finite) and the largest difference.

    Args:
        reference: In [0, 1].
        candidate: In [0, 1], of the same shape.

    Raises:
        GateError: If the shapes differ.
    """
    if reference.shape != candidate.shape:
        raise GateError(
            f"the artefact made {candidate.shape}, its reference made {reference.shape}"
        )
    difference = np.abs(reference.astype(np.float64) - candidate)
    if not np.isfinite(difference).all():
        return -math.inf, math.inf
    error = float(np.square(difference).mean())
    psnr = math.inf if error == 0 else -10 * math.log10(error)
    return psnr, float(difference.max(initial=0.0))


def gate(
    reference: Run,
    candidates: Mapping[str, Run],
    cases: Iterable[GateCase | TrueCase],
    *,
    precision: Precision,
    reference_name: str,
    limits: Mapping[Precision, float] = REQUIRED_DB,
    look: Callable[[Pictures], dict[str, object]] = lambda _: {},
    diagnose: Callable[[Pictures], str] = lambda _: "",
    remedy: str = "report this with the versions of torch, onnx and what ran the model",
) -> GateReport:
    """Compares every candidate on every case; the report holds each comparison.

    Args:
        reference: What is right.
        candidates: What is compared with it, by name.
        cases: What on.
        precision: Of the candidates.
        reference_name: For the report.
        limits: What each precision must reach.
        look: Adds to the record of a comparison.
        diagnose: Says, in a sentence without a full stop, what a picture under the limit looks
            like; "" where it cannot tell.
        remedy: What to do where something fails.

    Raises:
        GateError: If any is under the limit of `precision`, or on average further from true frames
            than the reference by more than `ALLOWED_LOSS_DB`; names the worst.
    """
    required = limits[precision]
    measured: list[Measured] = []
    seen: Pictures | None = None  # Of the worst so far.
    lowest = math.inf
    for case in cases:
        frame0, frame1 = case.frames()
        timestep = np.array(case.timesteps, np.float32).reshape(-1, 1, 1, 1)
        expected = reference(frame0, frame1, timestep)
        for name, candidate in candidates.items():
            made = candidate(frame0, frame1, timestep)
            psnr, largest = compare(expected, made)
            pictures = Pictures(frame0, frame1, timestep, expected, made)
            if seen is None or psnr < lowest:
                seen, lowest = pictures, psnr
            loss = case.loss_db(expected, made) if isinstance(case, TrueCase) else None
            measured.append(Measured(name, case, psnr, largest, loss, look(pictures)))
    worst = min(measured, key=lambda m: m.psnr_db)
    losses: dict[str, list[float]] = {}
    for one in measured:
        if one.loss_db is not None:
            losses.setdefault(one.candidate, []).append(one.loss_db)
    loss, loser = max(((float(np.mean(v)), k) for k, v in losses.items()), default=(None, ""))
    wrong = ""
    if worst.psnr_db < required:
        wrong = (
            f"{worst.candidate} is {worst.psnr_db:.1f} dB from {reference_name} at {worst.case}, "
            f"{required:.0f} dB are required for {precision}"
        )
    elif loss is not None and not loss <= ALLOWED_LOSS_DB:
        wrong = (
            f"{loser} is on average {loss:.2f} dB further from the true frames than "
            f"{reference_name}, {ALLOWED_LOSS_DB:g} dB are allowed"
        )
    if wrong:
        assert seen is not None
        looks = diagnose(seen)
        raise GateError(f"{wrong}{looks and '; ' + looks}: nothing was written; {remedy}")
    return GateReport(
        psnr_db=_finite(worst.psnr_db),
        max_difference=max(m.max_difference for m in measured),
        required_db=required,
        reference=reference_name,
        cases=[m.as_record() for m in measured],
        loss_db=None if loss is None else round(loss, 3),
        allowed_loss_db=None if loss is None else ALLOWED_LOSS_DB,
    )


def report_lines(report: GateReport, info: ModelInfo, *, nodes: int) -> Iterator[str]:
    """The gate's figures for a person: a line a comparison, then what the model is."""
    for case in report.cases:
        db = "identical" if case["psnr_db"] is None else f"{case['psnr_db']:.1f} dB"
        motion = case["motion_px"]
        shown = f"frames of {case['frames']}" if motion is None else f"motion {motion:.0f} px"
        yield (
            f"  {case['candidate']}, {case['size']}, {shown}, "
            f"t = {', '.join(f'{t:g}' for t in case['timesteps'])}: {db}, "
            f"largest difference {case['max_difference']:.1e}"
        )
    if report.loss_db is not None:
        yield (
            f"  loss to the true frames: {report.loss_db:.3f} dB on average; allowed: "
            f"{report.allowed_loss_db:g} dB"
        )
    tuned = ", tuned for cpu" if info.tuned_for == "cpu" else ""
    yield (
        f"  {info.variant}, {info.precision}, {nodes} nodes{tuned}, time steps: "
        f"{info.time_steps}; required: {report.required_db:.0f} dB"
    )


@dataclass(frozen=True, eq=False)
class Pictures:
    """What went into one comparison: frames (H, W, 3), time steps (B, 1, 1, 1), both results."""

    frame0: NDArray[np.uint8]
    frame1: NDArray[np.uint8]
    timestep: NDArray[np.float32]
    expected: NDArray[np.float32]
    made: NDArray[np.float32]


@dataclass(frozen=True)
class Measured:
    """One comparison of the gate."""

    candidate: str
    case: GateCase | TrueCase
    psnr_db: float
    max_difference: float
    loss_db: float | None
    more: dict[str, object]

    def as_record(self) -> dict[str, object]:
        """For JSON; a PSNR of identical pictures is null."""
        return {
            "candidate": self.candidate,
            **self.case.as_record(),
            "timesteps": list(self.case.timesteps),
            "psnr_db": _finite(self.psnr_db),
            "max_difference": self.max_difference,
            **({} if self.loss_db is None else {"loss_db": round(self.loss_db, 3)}),
            **self.more,
        }


def _finite(psnr: float) -> float | None:
    return None if math.isinf(psnr) else round(psnr, 2)


def _copy(model: ModelProto) -> ModelProto:
    copied = ModelProto()
    copied.CopyFrom(model)
    return copied


def _texture(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth noise in octaves, (height, width, 3) in 0..255: edges and detail at every scale."""
    total = np.zeros((height, width, 3))
    for cell, weight in ((64, 8), (32, 6), (16, 4), (8, 3), (4, 2), (2, 1)):
        lattice = rng.random((height // cell + 2, width // cell + 2, 3)) - 0.5
        rows = _interpolate(lattice, np.arange(height) / cell)
        plane = _interpolate(rows.swapaxes(0, 1), np.arange(width) / cell).swapaxes(0, 1)
        total += weight * plane
    low, high = total.min(), total.max()
    stretched: NDArray[np.float64] = (total - low) / (high - low) * 255
    return stretched


def _interpolate(lattice: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear along the first axis at fractional positions."""
    below = at.astype(np.int64)
    share = (at - below)[:, None, None]
    lower, upper = lattice[below], lattice[below + 1]
    blended: NDArray[np.float64] = lower + share * (upper - lower)
    return blended
