"""Two frames and time steps in, the frames between them out."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from runtime.backends.base import Backend, BackendName, Image, InferencePrecision, OpenOptions
from runtime.backends.cuda.arrays import DeviceFrame, device_view
from runtime.backends.registry import open_backend
from runtime.errors import FrameError
from runtime.frames import (
    MINIMUM_SIDE,
    Frame,
    check_frame,
    check_pair,
    from_planes,
    padding,
    to_planes,
)
from runtime.live import Live, Time
from runtime.manifest import ModelInfo

MIDPOINT = 0.5
MAXIMUM_DEPTH = 6
"""Levels of recursion with midpoint-only weights: 64 times the frame rate."""

_ENTRIES_A_PAIR = 4
"""Entries without a pair that are held for one with a pair, at most, on average."""


class Between(NamedTuple):
    """Two frames, and where between them new ones are wanted; see `Interpolator.interpolate`."""

    frame0: Frame
    frame1: Frame
    timesteps: Sequence[float]


_Job = tuple[Image, Image, float]
"""Two images and the time step of the one that is wanted between them."""


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
        device: str | None = None,
        threads: int | None = None,
        streams: int | None = None,
        cuda_graph: bool | None = None,
        precision: InferencePrecision | None = None,
        cache: str | Path | None = None,
        io_binding: bool | None = None,
    ) -> Interpolator:
        """Loads a model.

        Args:
            model: An artefact of `export.build_engine`, an ONNX file of `export.to_onnx`, or
                "triton://HOST:PORT/NAME" for a model of `export.triton` that a Triton server
                serves; see `runtime.backends.triton.backend`.
            backend: "onnxruntime", "openvino" or "tensorrt". By default engines run in TensorRT,
                and ONNX files on a processor in the backend that their manifest names; without a
                manifest in OpenVINO where it is installed, else in ONNX Runtime. `backend` of
                what is returned says which it is.
            device: "cpu" (default for ONNX files; "cuda" with onnxruntime-gpu), "cuda" (default
                for TensorRT engines) or "cuda:N". Never replaced by another.
            threads: Processors to use; by default all that this process may use.
            streams: TensorRT and OpenVINO: inferences that run at the same time, each with
                working memory of its own; default 1, which is the shortest time for one pair.
                On a processor they share `threads`. Triton: pairs under way at a time, default 2.
            cuda_graph: TensorRT: replay recorded launches where the size is fixed; default True.
            precision: OpenVINO: what convolutions are computed in, "fp32" (default), "bf16" or
                "fp16"; refused where the processor has no such arithmetic. Coordinates, flow,
                sampling, mean and blend are float32 in any case.
            cache: OpenVINO: folder in which the compiled model is kept, by which it opens sooner
                the next time; "none" for none. Default: `~/.cache/ifrnet-deploy/openvino`.
            io_binding: ONNX Runtime: images stay on the device from call to call, so that a frame
                of two pairs goes up once; default True on a GPU and False on a processor.

        Raises:
            ModelError: If the file is missing, damaged, not one of ours, or was built for
                another machine.
            BackendError: If the backend or the device is not available.
        """
        kept = None if cache is None else str(cache)
        options = OpenOptions(device, threads, streams, cuda_graph, precision, kept, io_binding)
        return cls(open_backend(model, options, backend=backend))

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
        steps = _checked_steps(timesteps)
        pair = self._put(frame0), self._put(frame1)
        made = self._between([(*pair, steps)])
        frames = [self._from_model(sample, frame0) for sample in self._downloaded(made)]
        return frames[0] if timesteps is None else frames

    def interpolate_on_device(
        self,
        frame0: object,
        frame1: object,
        *,
        timesteps: Sequence[float] = (MIDPOINT,),
        stream: int = 0,
    ) -> list[DeviceFrame]:
        """Makes frames from frames on the GPU, without a copy and without waiting.

        All work is ordered with `stream`: it starts after what is queued there now, and what is
        queued there later finds the result. The frames that come back belong to the caller; each
        lives as long as the object, or an array made from it, does, beyond `close` too.

        Args:
            frame0: uint8 RGB (H, W, 3) on the GPU of this model, C-contiguous, with
                `__cuda_array_interface__` or DLPack (PyTorch, CuPy, JAX, Numba).
            frame1: The next frame.
            timesteps: As in `interpolate`.
            stream: A cudaStream_t as a number, 0 for the default stream; with PyTorch
                `torch.cuda.current_stream().cuda_stream`.

        Returns:
            One frame for each time step: `torch.from_dlpack(frame)`, `cupy.asarray(frame)`.

        Raises:
            FrameError: If frames or time steps do not fit each other or the model, or the model
                has float I/O.
            BackendError: If the model does not run on a GPU through TensorRT, or fails.
        """
        views = [
            device_view(frame, stream=stream, what=what)
            for frame, what in ((frame0, "frame0"), (frame1, "frame1"))
        ]
        first, second = views
        for view, what in zip(views, ("frame0", "frame1"), strict=True):
            if len(view.shape) != 3 or view.shape[2] != 3 or min(view.shape[:2]) < MINIMUM_SIDE:
                raise FrameError(
                    f"{what} has shape {view.shape}: expected RGB (H, W, 3), at least "
                    f"{MINIMUM_SIDE}x{MINIMUM_SIDE}"
                )
        if (first.shape, first.dtype) != (second.shape, second.dtype):
            raise FrameError(
                f"frame0 is {first.dtype} {first.shape}, frame1 is {second.dtype} "
                f"{second.shape}: both must be alike"
            )
        if self.info.io != "frames":
            raise FrameError(
                "this model has float I/O, whose conversion runs on the host: "
                "build it with --io frames to hand over frames on the GPU"
            )
        self.check_takes(first.shape[0], first.shape[1], first.dtype)
        steps = _checked_steps(timesteps)
        pair = tuple(self._backend.put_device(view, stream) for view in views)
        made = self._between([(pair[0], pair[1], steps)])
        return [self._backend.hand_over(image, stream) for image in made]

    def stream(self, frames: Iterable[Frame], *, factor: int = 2) -> Iterator[Frame]:
        """Multiplies the frame rate of a stream, lazily, in bounded memory.

        On a processor two frames are held at a time. On a GPU, and with several `streams`, the
        next frames are read, and sent up, while earlier ones are computed: up to two pairs ahead,
        and one more for each stream; where every frame must come out as soon as its successor is
        there, call `interpolate`.

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

    def interpolate_each(self, pairs: Iterable[Between | None]) -> Iterator[list[Frame]]:
        """Makes the frames between each of many pairs, lazily, in bounded memory.

        What `stream` and video files are made with. A frame that is part of the pair before too,
        the very same object, is sent to the device once. On a GPU pairs are read, and sent up,
        while earlier ones are computed: up to two ahead, and one more for each stream.

        Args:
            pairs: In order; None where nothing is to be made.

        Yields:
            For each entry its new frames, in the order of its time steps; none for None.

        Raises:
            FrameError: If frames or time steps do not fit each other or the model.
            BackendError: If the inference fails.
        """
        queued: deque[tuple[list[Callable[[], NDArray[Any]]], Frame | None]] = deque()
        per_call = self.info.pairs_per_call
        ahead = self._backend.lookahead * per_call
        pairs = iter(pairs)
        put: list[tuple[Frame, Image]] = []
        ended = False
        while not ended or queued:
            group = list(_group(pairs, per_call))
            ended = not group
            jobs: list[tuple[Image, Image, Sequence[float]]] = []
            for pair in group:
                if pair is not None:
                    check_pair(pair.frame0, pair.frame1)
                    self._check_fits_model(pair.frame0)
                    steps = _checked_steps(pair.timesteps)
                    put = self._put_pair(pair, put)
                    jobs.append((put[0][1], put[1][1], steps))
            made = self._between(jobs)
            for pair in group:
                count = 0 if pair is None else len(pair.timesteps)
                waits = [self._backend.download(next(made)) for _ in range(count)]
                queued.append((waits, None if pair is None else pair.frame0))
            under_way = sum(bool(waits) for waits, _ in queued)
            # What needs no waiting goes out; behind what does, not too many are held either.
            while queued and (
                ended
                or not queued[0][0]
                or under_way > ahead
                or len(queued) > _ENTRIES_A_PAIR * (ahead + 1)
            ):
                waits, like = queued.popleft()
                under_way -= bool(waits)
                yield [] if like is None else [self._from_model(wait(), like) for wait in waits]

    def live(self, *, factor: int = 2, max_gap: Time | None = None) -> Live:
        """For frames that come one by one, with their times; see `runtime.live.Live`."""
        return Live(self, factor=factor, max_gap=max_gap)

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

    def check_takes(self, height: int, width: int, dtype: np.dtype[Any]) -> None:
        """Says beforehand whether frames of a size and type fit the model.

        Raises:
            FrameError: If they do not.
        """
        info = self.info
        if info.io == "frames":
            if dtype != np.uint8:
                raise FrameError(
                    f"frames are {dtype}, this model takes uint8: convert them, "
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
        first = next(frames, None)
        if first is None:
            return
        check_frame(first, "frame0")
        yield first
        if not steps:
            yield from frames
            return
        waiting: deque[Frame] = deque()

        def pairs() -> Iterator[Between]:
            previous = first
            for frame in frames:
                waiting.append(frame)
                yield Between(previous, frame, steps)
                previous = frame

        for made in self.interpolate_each(pairs()):
            yield from made
            yield waiting.popleft()

    def _check_fits_model(self, frame: Frame) -> None:
        self.check_takes(frame.shape[0], frame.shape[1], frame.dtype)

    def _put(self, frame: Frame) -> Image:
        if self.info.io == "frames":
            return self._backend.put(np.ascontiguousarray(frame)[None])
        return self._backend.put(to_planes(frame, self.info.divisor))

    def _from_model(self, sample: NDArray[Any], like: Frame) -> Frame:
        if self.info.io == "frames":
            frame: Frame = sample[0]
            return frame
        return from_planes(sample[0], like, self.info.divisor)

    def _downloaded(self, images: Iterator[Image]) -> Iterator[NDArray[Any]]:
        """Waits for images in order, while those that follow are computed and come down."""
        under_way: deque[Callable[[], NDArray[Any]]] = deque()
        for image in images:
            under_way.append(self._backend.download(image))
            if len(under_way) > self._backend.lookahead:
                yield under_way.popleft()()
        while under_way:
            yield under_way.popleft()()

    def _put_pair(
        self, pair: Between, known: list[tuple[Frame, Image]]
    ) -> list[tuple[Frame, Image]]:
        """Both frames with their images; one that is known by identity keeps its own."""
        return [
            next((one for one in known if one[0] is frame), None) or (frame, self._put(frame))
            for frame in (pair.frame0, pair.frame1)
        ]

    def _between(self, jobs: Sequence[tuple[Image, Image, Sequence[float]]]) -> Iterator[Image]:
        """All images wanted between each pair, pair by pair, in the order of its time steps."""
        if self.info.time_steps == "arbitrary":
            return self._made((first, second, t) for first, second, steps in jobs for t in steps)
        alike = itertools.groupby(jobs, key=lambda job: tuple(job[2]))
        return itertools.chain.from_iterable(
            self._by_recursion([(first, second) for first, second, _ in group], steps)
            for steps, group in alike
        )

    def _made(self, jobs: Iterable[_Job]) -> Iterator[Image]:
        """Runs the model with as many jobs at a time as one call takes; one image for each.

        A call that is not full is filled up with its last job.
        """
        several_steps = self.info.steps_per_call > 1
        per_call = self.info.frames_per_call
        # The time steps of one call are those of one pair; otherwise jobs mix as they come.
        for _, alike in itertools.groupby(
            jobs, key=lambda job: (id(job[0]), id(job[1])) if several_steps else None
        ):
            while wanted := list(itertools.islice(alike, per_call)):
                full = [*wanted, *[wanted[-1]] * (per_call - len(wanted))]
                timestep = np.array([t for *_, t in full], dtype=np.float32).reshape(-1, 1, 1, 1)
                pairs = [(image0, image1) for image0, image1, _ in full]
                images = self._backend.submit(pairs[:1] if several_steps else pairs, timestep)
                yield from images[: len(wanted)]

    def _by_recursion(
        self, pairs: Sequence[tuple[Image, Image]], steps: Sequence[float]
    ) -> Iterator[Image]:
        """The middle of the middle: each image on the way is made once, a level at a time."""
        known: list[dict[float, Image]] = [{0.0: image0, 1.0: image1} for image0, image1 in pairs]
        for half, level in _levels(steps):
            made = self._made(
                (images[t - half], images[t + half], MIDPOINT) for images in known for t in level
            )
            # zip asks for the images in the very order in which their jobs were given.
            for images in known:
                images.update(zip(level, itertools.islice(made, len(level)), strict=True))
        return (images[t] for images in known for t in steps)


def _group(pairs: Iterator[Between | None], count: int) -> Iterator[Between | None]:
    """As many pairs as one call of the model takes, with what stands between; fewer at the end."""
    for pair in itertools.islice(pairs, _ENTRIES_A_PAIR * count if count > 1 else 1):
        yield pair
        count -= pair is not None
        if count == 0:
            return


def _checked_steps(timesteps: Sequence[float] | None) -> list[float]:
    steps = [MIDPOINT] if timesteps is None else [float(t) for t in timesteps]
    for t in steps:
        if not 0.0 < t < 1.0:
            raise FrameError(f"time step {t} is not inside (0, 1): 0 and 1 are the frames")
    return steps


def _levels(steps: Sequence[float]) -> Iterator[tuple[float, list[float]]]:
    """What recursion makes on the way to `steps`: half the distance of a level, its time steps."""
    needed: dict[int, set[float]] = {}
    wanted = set(steps)
    while wanted:
        t = wanted.pop()
        depth = _recursion_depth(t)
        if t in needed.setdefault(depth, set()):
            continue
        needed[depth].add(t)
        half = 0.5**depth
        wanted |= {end for end in (t - half, t + half) if 0.0 < end < 1.0}
    for depth in sorted(needed):
        yield 0.5**depth, sorted(needed[depth])


def _recursion_depth(t: float) -> int:
    """How many halvings lead to t: the n of t = k / 2^n with k odd."""
    for depth in range(1, MAXIMUM_DEPTH + 1):
        if (t * 2**depth).is_integer():
            return depth
    raise FrameError(
        f"these weights know the midpoint only, so time steps are k/2^n up to n = "
        f"{MAXIMUM_DEPTH} and factors are powers of two, not {t:g}: "
        "use weights trained for arbitrary time steps (GoPro, demo)"
    )
