"""Which backend is the fastest on this CPU: real pairs, timed in interleaved rounds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.backends.base import InferencePrecision
from runtime.errors import BackendError
from runtime.frames import Frame
from runtime.interpolator import Interpolator

SECONDS = 5.0
"""Time limit of a trial, without opening the models; each backend makes one pair in any case."""

_FREE_SIZE = (256, 448)


@dataclass(frozen=True)
class Trial:
    """The time that one backend took for a pair.

    Attributes:
        name: The value of `Interpolator.backend`.
        milliseconds: Shortest time of one pair, from frames to frame, on the host. The minimum,
            since other programs on the machine only add time.
        pairs: Number of pairs that were timed.
        size: Size of the frames, "HEIGHTxWIDTH".
    """

    name: str
    milliseconds: float
    pairs: int
    size: str


def trial_of(
    model: Path, computes_in: Sequence[str] = (), *, seconds: float = SECONDS
) -> list[Trial]:
    """Times a pair with each backend that is installed, on the CPU.

    Args:
        model: An ONNX file of `export.build_engine` or `export.to_onnx`.
        computes_in: OpenVINO's names of the CPU's capabilities; with "BF16" or "FP16" OpenVINO is
            also timed in that precision.
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
        wanted: list[tuple[str, InferencePrecision | None]] = [
            ("onnxruntime", None),
            ("openvino", None),
        ]
        if "BF16" in computes_in:
            wanted.append(("openvino", "bf16"))
        elif "FP16" in computes_in:
            wanted.append(("openvino", "fp16"))
        for backend, precision in wanted:
            try:
                vfi = Interpolator.open(
                    model,
                    backend=backend,  # type: ignore[arg-type]  # Both are names of backends.
                    device="cpu",
                    precision=precision,
                )
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
    taken: dict[str, list[float]] = {name: [] for name in opened}
    deadline = time.perf_counter() + seconds
    longest = 0.0
    while True:
        started = time.perf_counter()
        for name, vfi in opened.items():
            began = time.perf_counter()
            vfi.interpolate(*frames)
            taken[name].append(time.perf_counter() - began)
        now = time.perf_counter()
        longest = max(longest, now - started)
        if now + longest > deadline:
            break
    trials = [
        Trial(name, 1e3 * min(times), len(times), f"{size[0]}x{size[1]}")
        for name, times in taken.items()
    ]
    return sorted(trials, key=lambda one: one.milliseconds)


def _frames(size: tuple[int, int], dtype: str) -> tuple[Frame, Frame]:
    rng = np.random.default_rng(0)
    frame: Frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    if dtype == "float32":
        frame = frame.astype(np.float32) / np.float32(255)
    return frame, np.roll(frame, 4, axis=1)
