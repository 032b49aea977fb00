"""TensorRT: an engine, its contexts, and the way of frames to the GPU and back.

Frames are images on the GPU from `put` to `download`: a frame of a stream goes up once, though two
pairs read it, and a frame that recursion makes goes into the next call without coming down. Copies
up, computation and copies down have streams of their own and are ordered by events alone, so that
one frame goes up and another comes down while a third is computed.

Where sizes are fixed the launches of a lane are recorded once as a CUDA graph, on buffers of its
own. Frames are copied into these and results out of them on the device: one graph serves all, at
the price of microseconds. Without a graph, and for frames that a caller holds on the GPU, nothing
is copied there.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.base import OpenOptions
from runtime.backends.cuda.arrays import DeviceFrame, DeviceView
from runtime.backends.cuda.runtime import (
    Cuda,
    CudaError,
    StreamHandle,
)
from runtime.backends.trt.engine import Engine, checked_manifest, gpu_at, import_tensorrt
from runtime.backends.trt.execution import Call, DeviceImage, Lane, Memory
from runtime.backends.trt.transfers import Transfers
from runtime.errors import BackendError, FrameError
from runtime.model_info import ModelInfo

_ALIGNMENT = 256
"""Of the addresses that TensorRT takes, in bytes."""

_TIMES = 64
"""Time steps kept on the device; a stream needs one for each new frame of a pair."""


class TensorRTBackend:
    """An engine on one GPU; see `Backend`. Calls from several threads are put in order.

    Args:
        engine: What to run.
        info: Its self-description.
        cuda: The device that it was deserialised on.
        streams: Inferences that may run at the same time, each with a context of its own.
        cuda_graph: Record the launches where shapes are fixed.

    Attributes:
        cuda: See above.
        transfers: The way of images to the GPU and back. For use inside `guarded` only, as are
            `lanes` and `submit_on`; `runtime.backends.trt.profiling` needs them.
        lanes: The execution contexts, one for each stream; none once the model is closed.
    """

    def __init__(
        self, engine: Engine, info: ModelInfo, cuda: Cuda, *, streams: int, cuda_graph: bool
    ) -> None:
        self.name = f"tensorrt {engine.version} cuda:{cuda.device}"
        self.info = info
        self.lookahead = streams + 1
        self.cuda = cuda
        self._engine: Engine | None = engine
        self._lock = threading.RLock()
        self._turn = 0
        self._times: OrderedDict[tuple[float, ...], DeviceImage] = OrderedDict()
        self.transfers = Transfers(cuda)
        self.lanes: list[Lane] = []
        self._recorded = cuda_graph and info.size is not None and info.max_pairs is None
        self._fixed: dict[Lane, list[Memory]] = {}
        with self.guarded():
            self.transfers.open()
            for _ in range(streams):
                self.lanes.append(Lane(cuda, engine))

    def __enter__(self) -> TensorRTBackend:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def engine(self) -> Engine:
        """What is run.

        Raises:
            BackendError: If the model is closed.
        """
        if self._engine is None:
            raise BackendError("the model is closed: open it again")
        return self._engine

    @property
    def best_size(self) -> tuple[int, int]:
        """(height, width) of the frames that it is fastest for."""
        if self.info.size is not None:
            return self.info.size
        best = self.engine.best
        assert best is not None  # Engines without a size have a profile.
        return self.info.layout.size_of(best)

    @property
    def cuda_graph_problem(self) -> str | None:
        """Why inferences are launched without the CUDA graph that was asked for.

        None while nothing has failed: a graph is recorded at the second inference of each stream.
        """
        return next((lane.graph_problem for lane in self.lanes if lane.graph_problem), None)

    def put(self, image: NDArray[Any]) -> DeviceImage:
        """See `Backend.put`. The array may be changed once this returns."""
        with self.guarded():
            self._check_size(image.shape)
            return self.transfers.put(image)

    def submit(
        self, pairs: Sequence[tuple[DeviceImage, DeviceImage]], timestep: NDArray[np.float32]
    ) -> list[DeviceImage]:
        """See `Backend.submit`."""
        with self.guarded():
            lane = self.lanes[self._turn % len(self.lanes)]
            self._turn += 1
            return self.submit_on(lane, pairs, timestep)

    def submit_on(
        self,
        lane: Lane,
        pairs: Sequence[tuple[DeviceImage, DeviceImage]],
        timestep: NDArray[np.float32],
    ) -> list[DeviceImage]:
        """As `submit`, on one of the execution contexts; call it inside `guarded`."""
        stream = lane.stream
        times = self._times_on_device(timestep)
        images = [image for pair in pairs for image in pair]
        for image in (*images, times):
            stream.wait_for(image.ready)
        shape, dtype, row_bytes = images[0].shape[1:], images[0].dtype, images[0].nbytes
        result = self.transfers.take(len(timestep) * row_bytes, stream)
        sides = [[pair[k] for pair in pairs] for k in (0, 1)]
        held = [result]
        if self._recorded and not any(image.is_the_callers for image in images):
            self._replay(lane, sides, times, result)
        else:
            held += self._run(lane, sides, times, result)
        done = stream.record()
        for used in (*images, times):
            used.used(stream.handle, done)
        for memory in held:
            memory.used(stream.handle, done)
        first = result.buffer.pointer
        return [
            DeviceImage(first + row * row_bytes, (1, *shape), dtype, done, result)
            for row in range(len(timestep))
        ]

    def _replay(
        self, lane: Lane, sides: Sequence[list[DeviceImage]], times: DeviceImage, result: Memory
    ) -> None:
        """Queues the recorded launches, with copies into their buffers and out of them."""
        fixed = self._fixed.get(lane)
        if fixed is None:
            image_bytes = len(sides[0]) * sides[0][0].nbytes
            sizes = (image_bytes, image_bytes, times.nbytes, result.buffer.size)
            fixed = self._fixed[lane] = [self.transfers.take(size, lane.stream) for size in sizes]
        for rows, target in zip((*sides, [times]), fixed[:3], strict=True):
            self.transfers.lay(lane.stream, rows, target.buffer)
        img0, img1, timestep, imgt = (memory.buffer.pointer for memory in fixed)
        lane.replay(Call(img0, img1, timestep, imgt))
        self.cuda.copy(
            lane.stream, result.buffer.pointer, imgt, result.buffer.size, "DeviceToDevice"
        )

    def _run(
        self, lane: Lane, sides: Sequence[list[DeviceImage]], times: DeviceImage, result: Memory
    ) -> list[Memory]:
        """Queues the launches on the images as they lie; returns what had to be laid together."""
        laid: list[Memory] = []
        addresses: list[int] = []
        for rows in sides:
            address = rows[0].pointer
            if len(rows) > 1 or address % _ALIGNMENT:
                memory = self.transfers.take(len(rows) * rows[0].nbytes, lane.stream)
                self.transfers.lay(lane.stream, rows, memory.buffer)
                address = memory.buffer.pointer
                laid.append(memory)
            addresses.append(address)
        img0, img1 = addresses
        lane.run(
            Call(img0, img1, times.pointer, result.buffer.pointer), self._free_shapes(sides, times)
        )
        return laid

    def _free_shapes(
        self, sides: Sequence[list[DeviceImage]], times: DeviceImage
    ) -> dict[str, tuple[int, ...]]:
        """Of one call, the shapes of the inputs that the engine leaves free."""
        image = (len(sides[0]), *sides[0][0].shape[1:])
        if self.info.max_pairs is not None:
            return {"img0": image, "img1": image, "timestep": times.shape}
        return {} if self.info.size else {"img0": image, "img1": image}

    def download(self, image: DeviceImage) -> Callable[[], NDArray[Any]]:
        """See `Backend.download`."""
        with self.guarded():
            done, taken = self.transfers.download(image)

        def result() -> NDArray[Any]:
            with self.guarded(locked=False):
                done.wait()
            return taken()

        return result

    def put_device(self, view: DeviceView, stream: int) -> DeviceImage:
        """See `Backend.put_device`: the caller's memory itself, no copy."""
        with self.guarded():
            shape = (1, *view.shape)
            self._check_size(shape)
            if view.device not in (None, self.cuda.device):
                raise FrameError(
                    f"a frame is on GPU {view.device}, this model is on GPU {self.cuda.device}: "
                    "copy it there, or open the model with that device"
                )
            handle = StreamHandle(stream)
            if view.stream is not None and view.stream != stream:
                made = self.cuda.record(StreamHandle(view.stream))
                self.cuda.call("cudaStreamWaitEvent", handle, made.handle, 0)
            ready = self.cuda.record(handle)
            return DeviceImage(view.pointer, shape, view.dtype, ready, view.owner)

    def hand_over(self, image: DeviceImage, stream: int) -> DeviceFrame:
        """See `Backend.hand_over`."""
        cuda, held = self.cuda, [image]
        with self.guarded():
            cuda.call("cudaStreamWaitEvent", stream, image.ready.handle, 0)

        def wait(other: int) -> None:
            with cuda.current():
                cuda.call("cudaStreamWaitEvent", other, image_ready.handle, 0)

        def release() -> None:
            # What the caller has queued by now may still read the frame.
            try:
                with cuda.current():
                    held[0].used(StreamHandle(stream), cuda.record(StreamHandle(stream)))
            except CudaError:
                cuda.api.cudaDeviceSynchronize()  # The caller's stream is gone.
            held.clear()

        image_ready = image.ready
        return DeviceFrame(
            image.pointer,
            image.shape[1:],
            image.dtype,
            device=cuda.device,
            stream=stream,
            release=release,
            wait=wait,
        )

    def close(self) -> None:
        """Frees everything but the device frames that callers still hold."""
        with self._lock:
            if self._engine is None:
                return
            engine, self._engine = self._engine, None
            with contextlib.ExitStack() as stack:
                # After a lost device every call fails, and all is freed already.
                with contextlib.suppress(CudaError):
                    stack.enter_context(self.cuda.current())
                for lane in self.lanes:
                    with contextlib.suppress(CudaError):
                        lane.stream.synchronize()
                    lane.close()
                self.lanes.clear()
                self._fixed.clear()
                self._times.clear()
                engine.close()
                self.transfers.close()

    @contextlib.contextmanager
    def guarded(self, *, locked: bool = True) -> Iterator[None]:
        """Makes this model's GPU the current one; an error of the device closes the model.

        Args:
            locked: Make other threads wait meanwhile.

        Raises:
            BackendError: If the model is closed, or what is inside fails on the device.
        """
        with self._lock if locked else contextlib.nullcontext():
            engine = self.engine  # Or it is closed.
            try:
                with self.cuda.current():
                    yield
            except FrameError:
                raise
            except BackendError as error:
                said = engine.said()
                self.close()
                raise BackendError(f"{self.name}: {error}{said}; the model is closed") from error

    def _check_size(self, shape: tuple[int, ...]) -> None:
        limits = self.engine.limits
        if limits is not None and not all(
            low <= n <= high for low, n, high in zip(limits[0], shape[-3:], limits[1], strict=True)
        ):
            found, low, high = (
                "{}x{}".format(*self.info.layout.size_of(one)) for one in (shape, *limits)
            )
            raise FrameError(
                f"frames are {found}, this engine takes {low} to {high}: "
                "build one with other --min and --max"
            )

    def _times_on_device(self, timestep: NDArray[np.float32]) -> DeviceImage:
        key = tuple(timestep.ravel().tolist())
        if key not in self._times:
            self._times[key] = self.transfers.put(timestep)
            if len(self._times) > _TIMES:
                self._times.popitem(last=False)
        self._times.move_to_end(key)
        return self._times[key]


def open_model(path: Path, options: OpenOptions) -> TensorRTBackend:
    """Loads an engine of ours with the manifest beside it.

    Raises:
        ModelError: If the manifest is missing, or the engine is not the manifest's, or was built
            for another TensorRT or another GPU.
        BackendError: If TensorRT, cuda-python or a GPU is missing.
    """
    for name in ("threads", "precision", "cache"):
        options.refuse(name, "is for processors: leave it out with a TensorRT engine")
    options.refuse("io_binding", "belongs to ONNX Runtime: leave it out")
    device = options.cuda_device()
    if device is None:
        raise BackendError(f"{path.name} is a TensorRT engine: use device='cuda'")
    gpu = gpu_at(device)
    trt = import_tensorrt()
    manifest = checked_manifest(path, trt.__version__, gpu)
    return backend_from_plan(
        path.read_bytes(),
        manifest.model,
        device=device,
        portable=manifest.engine is not None and manifest.engine.portable,
        streams=options.streams or 1,
        cuda_graph=options.cuda_graph is not False,
    )


def backend_from_plan(
    plan: bytes,
    info: ModelInfo,
    *,
    device: int,
    portable: bool,
    streams: int = 1,
    cuda_graph: bool = True,
) -> TensorRTBackend:
    """Loads a serialised engine that is known to fit this machine.

    Raises:
        ModelError: If TensorRT cannot load it, or it is not what `info` says.
        BackendError: If the device has no memory for it.
    """
    cuda = Cuda(device)
    with cuda.current():
        engine = Engine(plan, info, portable=portable)
    return TensorRTBackend(engine, info, cuda, streams=streams, cuda_graph=cuda_graph)
