"""Two frames and time steps in, the frames between them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from runtime.backends.base import Backend, BackendName, Device, open_backend
from runtime.errors import FrameError
from runtime.frames import Frame, check_frame, check_pair, from_planes, padding, to_planes
from runtime.manifest import ModelInfo

MIDPOINT = 0.5
_MAXIMUM_DEPTH = 6
"""Levels of recursion with midpoint-only weights: 64 times the frame rate."""


class Interpolator:
    """A loaded model that makes frames.

    One instance may be shared by several threads: a call keeps no state, and the backends allow
    calls at the same time. Open one for each thread where each shall have processors of its own
    (`threads`). Frames that come back are new arrays and belong to the caller.

    Use `Interpolator.open`; close it, or use it in a `with` statement.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @classmethod
    def open(
        cls,
        model: str | Path,
        *,
        backend: BackendName | None = None,
        device: Device = "cpu",
        threads: int | None = None,
    ) -> Interpolator:
        """Loads a model.

        Args:
            model: An ONNX file of `export.to_onnx` or `export.build_engine`.
            backend: What runs it; by default what the file's suffix means.
            device: "cpu", or "cuda" with onnxruntime-gpu. Never replaced by another.
            threads: Processors to use; by default all that this process may use.

        Raises:
            ModelError: If the file is missing, damaged or not one of ours.
            BackendError: If the backend or the device is not available.
        """
        return cls(open_backend(model, backend=backend, device=device, threads=threads))

    @property
    def info(self) -> ModelInfo:
        """What the model says about itself."""
        return self._backend.info

    @property
    def backend(self) -> str:
        """Name of what runs the model, for example "onnxruntime cpu"."""
        return self._backend.name

    @overload
    def interpolate(self, frame0: Frame, frame1: Frame) -> Frame: ...

    @overload
    def interpolate(
        self, frame0: Frame, frame1: Frame, *, timesteps: Sequence[float]
    ) -> list[Frame]: ...

    def interpolate(
        self, frame0: Frame, frame1: Frame, *, timesteps: Sequence[float] | None = None
    ) -> Frame | list[Frame]:
        """Makes the frame in the middle or, given `timesteps`, one frame for each of them.

        Args:
            frame0: RGB (H, W, 3): uint8, or uint16 and float32 in [0, 1] where the model has
                float I/O. At least 16x16. Any memory layout; never written to.
            frame1: The next frame, of the same size and type.
            timesteps: Where between the two, each in (0, 1). Weights that know the midpoint
                only reach k / 2^n by recursion and nothing else.

        Returns:
            A new frame like `frame0`; with `timesteps` a list of them, in that order.

        Raises:
            FrameError: If frames or time steps do not fit each other or the model.
            BackendError: If the inference fails.
        """
        check_pair(frame0, frame1)
        self._check_fits_model(frame0)
        steps = [MIDPOINT] if timesteps is None else [float(t) for t in timesteps]
        for t in steps:
            if not 0.0 < t < 1.0:
                raise FrameError(f"time step {t} is not inside (0, 1): 0 and 1 are the frames")
        ends = self._to_model(frame0), self._to_model(frame1)
        if self.info.time_steps == "midpoint":
            made = self._by_recursion(*ends, steps)
        else:
            made = self._at_once(*ends, steps)
        frames = [self._from_model(sample, frame0) for sample in made]
        return frames[0] if timesteps is None else frames

    def stream(self, frames: Iterable[Frame], *, factor: int = 2) -> Iterator[Frame]:
        """Multiplies the frame rate of a stream, lazily, holding two frames at a time.

        Args:
            frames: The stream; all frames of one size and type.
            factor: New rate over old; 2^k with weights that know the midpoint only.

        Yields:
            Every frame of the input, the very same object, and `factor` - 1 new frames before
            each of them but the first: n frames become (n - 1) * factor + 1.

        Raises:
            FrameError: If the factor or a frame does not fit.
        """
        steps = self.steps_for_factor(factor)
        return self._stream(iter(frames), steps)

    def steps_for_factor(self, factor: int) -> tuple[float, ...]:
        """The time steps that multiply a frame rate by `factor`.

        Raises:
            FrameError: If the factor is below 1, or not 2^k with midpoint-only weights.
        """
        if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
            raise FrameError(f"factor is {factor!r}: it is a whole number, 2 or more")
        steps = tuple(k / factor for k in range(1, factor))
        if self.info.time_steps == "midpoint":
            for t in steps:
                _recursion_depth(t)
        return steps

    def close(self) -> None:
        """Frees the model."""
        self._backend.close()

    def __enter__(self) -> Interpolator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _stream(self, frames: Iterator[Frame], steps: tuple[float, ...]) -> Iterator[Frame]:
        previous: Frame | None = None
        for frame in frames:
            if previous is None:
                check_frame(frame, "frame0")
            elif steps:
                yield from self.interpolate(previous, frame, timesteps=steps)
            yield frame
            previous = frame

    def _check_fits_model(self, frame: Frame) -> None:
        height, width = frame.shape[:2]
        info = self.info
        if info.io == "frames":
            if frame.dtype != np.uint8:
                raise FrameError(
                    f"frames are {frame.dtype}, this model takes uint8: convert them, "
                    "or export with --io float to keep their depth"
                )
            fed = (height, width)
        else:
            rows, columns = padding(height, info.divisor), padding(width, info.divisor)
            fed = (height + sum(rows), width + sum(columns))
        if info.size is not None and fed != info.size:
            raise FrameError(
                f"frames are {height}x{width}, this model was exported for "
                f"{info.height}x{info.width}: export with --size {height}x{width} or --dynamic"
            )

    def _to_model(self, frame: Frame) -> NDArray[Any]:
        if self.info.io == "frames":
            return np.ascontiguousarray(frame)[None]
        return to_planes(frame, self.info.divisor)

    def _from_model(self, sample: NDArray[Any], like: Frame) -> Frame:
        if self.info.io == "frames":
            frame: Frame = sample[0]
            return frame
        return from_planes(sample[0], like, self.info.divisor)

    def _at_once(
        self, img0: NDArray[Any], img1: NDArray[Any], steps: Sequence[float]
    ) -> Iterator[NDArray[Any]]:
        """Runs the model with as many steps at a time as it was exported for."""
        per_call = self.info.steps_per_call
        for start in range(0, len(steps), per_call):
            wanted = steps[start : start + per_call]
            full = [*wanted, *[wanted[-1]] * (per_call - len(wanted))]
            timestep = np.array(full, dtype=np.float32).reshape(-1, 1, 1, 1)
            samples = self._backend.run(img0, img1, timestep)
            yield from (samples[k : k + 1] for k in range(len(wanted)))

    def _by_recursion(
        self, img0: NDArray[Any], img1: NDArray[Any], steps: Sequence[float]
    ) -> Iterator[NDArray[Any]]:
        """The middle of the middle: each frame on the way is made once."""
        known: dict[float, NDArray[Any]] = {0.0: img0, 1.0: img1}

        def frame_at(t: float) -> NDArray[Any]:
            if t not in known:
                half = 0.5 ** _recursion_depth(t)
                ends = frame_at(t - half), frame_at(t + half)
                (known[t],) = self._at_once(*ends, [MIDPOINT])
            return known[t]

        for t in steps:
            yield frame_at(t)


def _recursion_depth(t: float) -> int:
    """How many halvings lead to t: the n of t = k / 2^n with k odd."""
    for depth in range(1, _MAXIMUM_DEPTH + 1):
        if (t * 2**depth).is_integer():
            return depth
    raise FrameError(
        f"these weights know the midpoint only, so time steps are k/2^n up to n = "
        f"{_MAXIMUM_DEPTH} and factors are powers of two, not {t:g}: "
        "use weights trained for arbitrary time steps (GoPro, demo)"
    )
