"""Finds the fastest backend on this CPU: times pairs of frames in interleaved rounds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.backends.base import BackendName, PrecisionChoice
from runtime.errors import BackendError
from runtime.frames import Frame
from runtime.interpolator import Interpolator

SECONDS = 5.0
"""Time limit of a trial, without opening the models; each backend runs at least one pair."""

_FREE_SIZE = (256, 448)


@dataclass(frozen=True)
class Trial:
    """The time of a pair in one backend.

    Attributes:
        name: Name of the backend, as `Interpolator.backend`.
        milliseconds: Shortest time of one pair, from frames to frame, on the host. The minimum,
            since other programs on the machine only add time.
        pairs: Number of pairs that were timed.
        size: Size of the frames, "HEIGHTxWIDTH".
    """

    name: str
    milliseconds: float
    pairs: int
    size: str


def time_backends(
    model: str | Path, capabilities: Sequence[str] = (), *, seconds: float = SECONDS
) -> list[Trial]:
    """Times a pair in each backend that is installed, on the CPU.

    Args:
        model: An ONNX file of `export.build_engine` or `export.to_onnx`, or "demo" for the shipped
            model of each backend.
        capabilities: OpenVINO's names of the types that the CPU computes in; with "BF16" or "FP16"
            OpenVINO is also timed in that precision.
        seconds: Time limit of all rounds together.

    Returns:
        One trial for each backend and precision, the fastest first.

    Raises:
        ModelError: If the file cannot be loaded.
        BackendError: If no backend is installed.
    """
    problems = []
    with contextlib.ExitStack() as owner:
        opened: dict[str, Interpolator] = {}
        candidates: list[tuple[BackendName, PrecisionChoice]] = [
            ("onnxruntime", "auto"),
            ("openvino", "fp32"),
        ]
        if "BF16" in capabilities:
            candidates.append(("openvino", "bf16"))
        elif "FP16" in capabilities:
            candidates.append(("openvino", "fp16"))
        for backend, precision in candidates:
            try:
                vfi = Interpolator.open(model, backend=backend, device="cpu", precision=precision)
            except BackendError as error:
                problems.append(str(error))
                continue
            opened[vfi.backend] = owner.enter_context(vfi)
        if not opened:
            raise BackendError("; ".join(problems))
        return _timed(opened, seconds)


def _timed(opened: dict[str, Interpolator], seconds: float) -> list[Trial]:
    info = next(iter(opened.values())).info
    size = info.size or _FREE_SIZE
    frames = _frames(size, info.layout.dtype)
    times: dict[str, list[float]] = {name: [] for name in opened}
    deadline = time.perf_counter() + seconds
    longest_round = 0.0
    while True:
        round_start = time.perf_counter()
        for name, vfi in opened.items():
            start = time.perf_counter()
            vfi.interpolate(*frames)
            times[name].append(time.perf_counter() - start)
        now = time.perf_counter()
        longest_round = max(longest_round, now - round_start)
        if now + longest_round > deadline:
            break
    trials = [
        Trial(name, 1e3 * min(pairs), len(pairs), f"{size[0]}x{size[1]}")
        for name, pairs in times.items()
    ]
    return sorted(trials, key=lambda trial: trial.milliseconds)


def _frames(size: tuple[int, int], dtype: str) -> tuple[Frame, Frame]:
    rng = np.random.default_rng(0)
    frame: Frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    if dtype == "float32":
        frame = frame.astype(np.float32) / np.float32(255)
    return frame, np.roll(frame, 4, axis=1)
