"""`Interpolator`: an opened model that computes frames between two given ones."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, overload

import numpy as np

from runtime.backends.base import Backend, BackendName, OpenOptions, PrecisionChoice
from runtime.backends.cuda.arrays import DeviceFrame, device_pair
from runtime.backends.process import OpenedBackend
from runtime.backends.registry import open_backend
from runtime.batching import ImagePair, PairRequest, PairRunner
from runtime.errors import BackendError, FrameError, kind_of
from runtime.frames import (
    Channels,
    Frame,
    check_channels,
    check_frame,
    check_pair,
)
from runtime.live import Live, Time
from runtime.model_info import ModelInfo
from runtime.timesteps import MIDPOINT, checked_timesteps, timesteps_for_factor

T = TypeVar("T")


class Interpolator:
    """An opened model that computes frames between two given ones.

        with Interpolator.open("demo") as vfi:
            middle = vfi.interpolate(frame0, frame1)

    Several threads may share an instance: calls keep no state and may run at the same time. To give
    each thread its own CPUs, open one instance with `threads` for each. Returned frames are new
    arrays that belong to the caller. A process that is forked later must open its own instance.

    Create it with `Interpolator.open`; close it, or use it in a `with` statement.
    """

    def __init__(self, backend: Backend, *, channels: Channels = "rgb") -> None:
        """Wraps an opened backend; `Interpolator.open` opens one.

        Args:
            backend: The backend, which `close` closes.
            channels: Order of the channels of all frames, as for `Interpolator.open`.

        Raises:
            BackendError: If it is not a backend.
            FrameError: If the order is unknown.
        """
        if not hasattr(backend, "submit"):
            raise BackendError(
                f"Interpolator was given {kind_of(backend)}, it takes an opened backend: use "
                "Interpolator.open, which takes the path of a model"
            )
        self._opened = OpenedBackend(backend)
        self._runner = PairRunner(self._opened, channels)

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
        precision: PrecisionChoice | None = "auto",
        cache: str | Path | None = None,
        io_binding: bool | None = None,
        channels: Channels = "rgb",
    ) -> Interpolator:
        """Loads a model.

        Args:
            model: An artefact of `export.build_engine`, an ONNX file of `export.to_onnx`, "demo"
                for the model that is shipped (variant small, any size and time step), or
                "triton://HOST:PORT/NAME" for a model of `export.triton` that a Triton server
                serves; with "?shared_memory=system" or "=cuda" at the end if that server is on
                this machine.
            backend: "onnxruntime", "openvino" or "tensorrt". By default engines run in TensorRT,
                ONNX files on the CPU in the backend that their manifest names; without a manifest
                in OpenVINO if it is installed, else in ONNX Runtime.
            device: "cpu" (default for ONNX files), "cuda" (default for TensorRT engines; ONNX files
                need onnxruntime-gpu) or "cuda:N". There is no fallback to another device.
            threads: Number of CPUs to use; by default all that this process may use.
            streams: TensorRT and OpenVINO: number of inferences that run at the same time, each
                with its own working memory; default 1, with which a single pair takes the shortest
                time. On the CPU they share `threads`. Triton: number of pairs in flight, default 2.
            cuda_graph: TensorRT: replay recorded launches if the size is fixed; default True.
            precision: OpenVINO: type in which convolutions are computed. "auto" chooses the fastest
                type that the CPU supports and that the manifest of the model proves to be accurate
                enough; without a proof, "fp32". `export.build_engine` and `export.prove` write
                proofs. "bf16" and "fp16" need no proof; a type that the CPU does not support is an
                error. Coordinates, flow, sampling, mean and blend are float32 in any case.
            cache: OpenVINO: folder for compiled models, which open faster the next time; "none"
                for no cache. Default: `~/.cache/ifrnet-deploy/openvino`.
            io_binding: ONNX Runtime: keep images on the device between calls, so that a frame that
                belongs to two pairs is uploaded once; default True on a GPU and False on the CPU.
            channels: Order of the channels of NumPy frames, in and out: "rgb", or "bgr" as OpenCV
                has them. With "bgr" each uint8 frame in and out is copied, about 1 ms at
                1920x1080, where the model has uint8 I/O; otherwise it costs nothing.

        Raises:
            ModelError: If the file is missing, damaged, not from this package, or was built for
                another machine.
            BackendError: If the backend or the device is not available.
            FrameError: If the order of the channels is unknown.
        """
        check_channels(channels)
        if not isinstance(cache, str | os.PathLike | None):
            raise BackendError(f"cache is {kind_of(cache)}: give a folder, or 'none' for no cache")
        options = OpenOptions(
            device=device,
            threads=threads,
            streams=streams,
            cuda_graph=cuda_graph,
            precision=precision,
            cache=None if cache is None else str(cache),
            io_binding=io_binding,
        )
        return cls(open_backend(model, options, backend=backend), channels=channels)

    @property
    def info(self) -> ModelInfo:
        """Precision, size, time steps and I/O of the model."""
        return self._opened.info

    @property
    def backend(self) -> str:
        """Name of the backend and its device, for example "onnxruntime cpu".

        With OpenVINO also the type in which convolutions are computed: "openvino cpu bf16".
        """
        return self._opened.name

    @property
    def notes(self) -> Sequence[str]:
        """Notes for the user on how the model was opened, as sentences.

        For example why OpenVINO computes in float32 where the CPU could compute in bfloat16.
        """
        return self._opened.notes

    @property
    def channels(self) -> Channels:
        """Order of the channels of NumPy frames: "rgb" or "bgr"."""
        return self._runner.channels

    def with_channels(self, channels: Channels) -> Interpolator:
        """The same opened model for frames in another order of channels; closing one closes both.

        Args:
            channels: "rgb" or "bgr".

        Raises:
            FrameError: If the order is unknown.
            BackendError: If the model is closed.
        """
        _ = self._backend  # Raises BackendError.
        other = copy.copy(self)
        other._runner = PairRunner(self._opened, channels)
        return other

    @overload
    def interpolate(self, frame0: Frame, frame1: Frame) -> Frame: ...

    @overload
    def interpolate(
        self, frame0: Frame, frame1: Frame, *, timesteps: Sequence[float]
    ) -> list[Frame]: ...

    def interpolate(
        self, frame0: Frame, frame1: Frame, *, timesteps: Sequence[float] | None = None
    ) -> Frame | list[Frame]:
        """Computes the frame in the middle or, given `timesteps`, one frame for each of them.

        Args:
            frame0: (H, W, 3), RGB or in the order of `channels`: uint8, or uint16 and float32 in
                [0, 1] where the model has float I/O. At least 16x16. Any memory layout; never
                written to.
            frame1: The next frame, of the same size and type.
            timesteps: Positions between the two, each in (0, 1). Weights that know the midpoint
                only accept k / 2^n, n up to 6, which are computed by recursion.

        Returns:
            A new frame of the size and type of `frame0`; with `timesteps` a list of them, in that
            order.

        Raises:
            FrameError: If the frames do not fit each other or the model, or a time step is not
                possible.
            BackendError: If the inference fails.
        """
        check_pair(frame0, frame1)
        self._runner.check_takes_frame(frame0)
        steps = checked_timesteps(timesteps)
        pair = ImagePair(self._runner.put(frame0), self._runner.put(frame1), steps)
        frames = self._runner.frames_between(pair, frame0)
        return frames[0] if timesteps is None else frames

    def interpolate_on_device(
        self,
        frame0: object,
        frame1: object,
        *,
        timesteps: Sequence[float] = (MIDPOINT,),
        stream: int = 0,
    ) -> list[DeviceFrame]:
        """Computes frames on the GPU from frames on the GPU, without copies to the host.

        The call does not wait for the GPU. Its work is ordered with `stream`: it starts after the
        work that is queued on `stream`, and work that is queued on `stream` later sees the result.
        The returned frames belong to the caller; the memory of each is valid for as long as the
        object, or an array that shares its memory, exists, also after `close`.

            stream = torch.cuda.current_stream().cuda_stream
            (middle,) = vfi.interpolate_on_device(frame0, frame1, stream=stream)
            middle = torch.from_dlpack(middle)

        Args:
            frame0: uint8 RGB (H, W, 3) on the GPU of this model, at least 16x16, C-contiguous, with
                `__cuda_array_interface__` or DLPack (PyTorch, CuPy, JAX, Numba).
            frame1: The next frame, of the same size and type.
            timesteps: Positions between the two, each in (0, 1); by default the midpoint.
            stream: A cudaStream_t as a number, 0 for the default stream; with PyTorch
                `torch.cuda.current_stream().cuda_stream`.

        Returns:
            One frame for each time step, for `torch.from_dlpack(frame)` or `cupy.asarray(frame)`.

        Raises:
            FrameError: If the frames do not fit each other or the model, a time step is not
                possible, the model has float I/O, or was opened with channels="bgr".
            BackendError: If the model does not run in TensorRT, or the inference fails.
        """
        if self.channels != "rgb":
            raise FrameError(
                f"channels is {self.channels!r}, frames on a GPU are RGB: swap them there, and use "
                "with_channels('rgb')"
            )
        views = device_pair(frame0, frame1, stream=stream)
        if self.info.io != "frames":
            raise FrameError(
                "this model has float I/O, which is converted on the host: build one with "
                "--io frames for frames on the GPU"
            )
        height, width, _ = views[0].shape
        self.check_takes(height, width, views[0].dtype)
        steps = checked_timesteps(timesteps)
        image0, image1 = (self._backend.put_device(view, stream) for view in views)
        images = self._runner.images_between([ImagePair(image0, image1, steps)])
        return [self._backend.export_to_stream(image, stream) for image in images]

    def stream(self, frames: Iterable[Frame], *, factor: int = 2) -> Iterator[Frame]:
        """Multiplies the frame rate of a stream, lazily, in bounded memory.

        On the CPU two frames are in memory at a time. On a GPU, and with several `streams`, frames
        are read and uploaded while earlier ones are computed: up to two pairs ahead, and one more
        for each stream. To get every frame as soon as the next one is available, use `live`.

        Args:
            frames: The stream; all frames have one size and type.
            factor: New frame rate over old; 2^k with weights that know the midpoint only.

        Yields:
            Each frame of the input, the same object, and `factor` - 1 new frames before each but
            the first: n frames become (n - 1) * factor + 1.

        Raises:
            FrameError: If the factor is not possible or a frame does not fit the model.
        """
        steps = self.steps_for_factor(factor)
        if not isinstance(frames, Iterable):
            raise FrameError(f"frames is {kind_of(frames)}: give an iterable of frames")
        return self._stream(iter(frames), steps)

    def interpolate_each(self, pairs: Iterable[PairRequest | None]) -> Iterator[list[Frame]]:
        """Computes the frames between each of many pairs, lazily, in bounded memory.

        A frame that is in two consecutive pairs, as the same object, is uploaded once. On a GPU
        pairs are read and uploaded while earlier ones are computed: up to two pairs ahead, and one
        more for each stream.

        Args:
            pairs: In order; None for an entry without new frames.

        Yields:
            The new frames of each entry, in the order of its time steps; an empty list for None.

        Raises:
            FrameError: If frames do not fit each other or the model, or a time step is not
                possible.
            BackendError: If the inference fails.
        """
        if not isinstance(pairs, Iterable):
            raise FrameError(f"pairs is {kind_of(pairs)}: give an iterable of PairRequest")
        for _, frames in self.interpolate_tagged((None, pair) for pair in pairs):
            yield frames

    def interpolate_tagged(
        self, requests: Iterable[tuple[T, PairRequest | None]]
    ) -> Iterator[tuple[T, list[Frame]]]:
        """Computes the frames between each of many pairs, and yields the caller's tag with them.

        Lazy, with the memory and look-ahead of `interpolate_each`.

        Args:
            requests: In order, tuples of a tag, which may be any object, and a pair or None.

        Yields:
            Each tag with the new frames of its pair; an empty list for None.

        Raises:
            FrameError: If frames do not fit each other or the model, or a time step is not
                possible.
            BackendError: If the inference fails.
        """
        return self._runner.interpolate_tagged(requests)

    def live(self, *, factor: int = 2, max_gap: Time | None = None) -> Live:
        """Starts interpolation frame by frame, for players and capture loops.

        Args:
            factor: New frame rate over old; 2^k with weights that know the midpoint only.
            max_gap: The longest time between two frames that are interpolated, in the unit of the
                times that are pushed; None: no limit.

        Raises:
            FrameError: If `factor` or `max_gap` is out of range.
        """
        return Live(self._runner, factor=factor, max_gap=max_gap)

    def steps_for_factor(self, factor: int) -> tuple[float, ...]:
        """The time steps that multiply a frame rate by `factor`: 1/factor, 2/factor and so on.

        Raises:
            FrameError: If the factor is below 1, above 1000, or not 2^k with midpoint-only weights.
        """
        return timesteps_for_factor(factor, self.info.time_steps)

    def check_takes(self, height: int, width: int, dtype: np.dtype[Any]) -> None:
        """Checks that frames of a size, in pixels, and a type fit the model.

        Raises:
            FrameError: If they do not.
        """
        self._runner.check_takes(height, width, dtype)

    def close(self) -> None:
        """Frees the model; a second call does nothing.

        In a process that was forked after the model was opened, nothing is freed.
        """
        self._opened.close()

    def __enter__(self) -> Interpolator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _backend(self) -> Backend:
        return self._opened.backend

    def _stream(self, frames: Iterator[Frame], steps: tuple[float, ...]) -> Iterator[Frame]:
        try:
            first = next(frames)
        except StopIteration:
            return
        check_frame(first, "frame0")
        yield first
        if not steps:
            yield from frames
            return

        def requests() -> Iterator[tuple[Frame, PairRequest]]:
            """Each frame but the first, with the request for the frames before it."""
            previous = first
            for frame in frames:
                yield frame, PairRequest(previous, frame, steps)
                previous = frame

        for frame, new_frames in self.interpolate_tagged(requests()):
            yield from new_frames
            yield frame
