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
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.base import OpenOptions
from runtime.backends.cuda import (
    OUT_OF_MEMORY,
    Buffer,
    Cuda,
    CudaError,
    Event,
    Graph,
    Pool,
    Stream,
    StreamHandle,
    host_view,
)
from runtime.backends.trt_engine import Engine, checked_manifest, gpu_at, import_tensorrt
from runtime.device_arrays import DeviceFrame, DeviceView
from runtime.errors import BackendError, FrameError
from runtime.manifest import ModelInfo

_ALIGNMENT = 256
"""Of the addresses that TensorRT takes, in bytes."""

_TIMES = 64
"""Time steps kept on the device; a stream needs one for each new frame of a pair."""

_STAGING = 3
"""Pinned buffers to upload from: one is filled while one goes up, and one to spare."""


class _Memory:
    """A buffer in use; gives it back with the last reference to an image in it."""

    def __init__(self, pool: Pool, buffer: Buffer) -> None:
        self._pool = pool
        self.buffer = buffer

    def used(self, stream: StreamHandle, event: Event) -> None:
        """Notes that `stream` may use the buffer until `event`."""
        self.buffer.uses[stream] = event

    def __del__(self) -> None:
        self._pool.give_back(self.buffer)


@dataclass(frozen=True, eq=False)
class DeviceImage:
    """A batch of one on the GPU.

    Attributes:
        pointer: Address of the first byte.
        shape: (1, H, W, 3) or (1, 3, H, W).
        dtype: uint8 or float32.
        ready: When its content is there.
        memory: Keeps the content alive: our buffer, or whatever owns the memory of a caller.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    ready: Event
    memory: object = field(repr=False)

    @property
    def is_the_callers(self) -> bool:
        """Whether the memory is not ours."""
        return not isinstance(self.memory, _Memory)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def used(self, stream: StreamHandle, event: Event) -> None:
        """Notes that `stream` may read the image until `event`.

        Nothing is noted for a caller's memory: the caller's stream waits for the result.
        """
        if isinstance(self.memory, _Memory):
            self.memory.used(stream, event)


@dataclass(frozen=True)
class _Call:
    """Where one inference finds its inputs and leaves its result."""

    img0: int
    img1: int
    timestep: int
    imgt: int


class _Lane:
    """One execution context with a stream and, where launches are recorded, a graph of its own."""

    def __init__(self, cuda: Cuda, engine: Engine) -> None:
        self.stream = Stream(cuda)
        self._cuda = cuda
        self._context = engine.context()
        self._shape: tuple[int, ...] | None = None
        self._graph: Graph | None = None
        self._warm = False

    def run(self, call: _Call, free_shape: tuple[int, ...] | None = None) -> None:
        """Queues one inference; `free_shape` is that of both images where the engine's is free."""
        if free_shape != self._shape:
            for name in ("img0", "img1"):
                if not self._context.set_input_shape(name, free_shape):
                    raise BackendError(f"TensorRT refused {name} of shape {free_shape}")
            self._shape = free_shape
        for name, address in vars(call).items():
            if not self._context.set_tensor_address(name, address):
                raise BackendError(f"TensorRT refused the address {address:#x} for {name}")
        if not self._context.execute_async_v3(self.stream.handle):
            raise BackendError("TensorRT could not queue the inference")

    def replay(self, call: _Call) -> None:
        """Queues the inference that is recorded at the second call; it is always the same one."""
        if self._graph is None and self._warm:
            with self._cuda.capture(self.stream) as captured:
                self.run(call)
            (self._graph,) = captured
        if self._graph is not None:
            self._graph.launch(self.stream)
        else:
            self.run(call)  # What TensorRT prepares at its first call cannot be recorded.
            self._warm = True

    def close(self) -> None:
        """Frees context, graph and stream; the stream's work must be done."""
        if self._graph is not None:
            self._graph.close()
        self._graph = None
        self._context = None
        self.stream.close()


class TensorRTBackend:
    """An engine on one GPU; see `Backend`. Calls from several threads are put in order.

    Args:
        engine: What to run.
        info: Its self-description.
        cuda: The device that it was deserialised on.
        streams: Inferences that may run at the same time, each with a context of its own.
        cuda_graph: Record the launches where shapes are fixed.
    """

    def __init__(
        self, engine: Engine, info: ModelInfo, cuda: Cuda, *, streams: int, cuda_graph: bool
    ) -> None:
        self.name = f"tensorrt {engine.version} cuda:{cuda.device}"
        self.info = info
        self.lookahead = streams + 1
        self._engine: Engine | None = engine
        self._cuda = cuda
        self._lock = threading.RLock()
        self._turn = 0
        self._times: OrderedDict[tuple[float, ...], DeviceImage] = OrderedDict()
        self._staging: dict[int, list[Buffer]] = {}
        self._device = Pool(cuda, pinned=False)
        self._pinned = Pool(cuda, pinned=True)
        self._lanes: list[_Lane] = []
        self._copies: list[Stream] = []
        self._recorded = cuda_graph and info.size is not None
        self._fixed: dict[_Lane, dict[str, _Memory]] = {}
        with self._guarded():
            self._copies = [Stream(cuda), Stream(cuda)]
            self._upload, self._download = self._copies
            for _ in range(streams):
                self._lanes.append(_Lane(cuda, engine))

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
        first = 0 if self.info.io == "frames" else 1
        return best[first], best[first + 1]

    def put(self, image: NDArray[Any]) -> DeviceImage:
        """See `Backend.put`. The array may be changed once this returns."""
        with self._guarded():
            self._check_size(image.shape)
            staging = self._next_staging(image.nbytes)
            np.copyto(host_view(staging, image.shape, image.dtype), image)
            memory = self._take(image.nbytes, self._upload)
            self._cuda.copy(
                self._upload, memory.buffer.pointer, staging.pointer, image.nbytes, "HostToDevice"
            )
            ready = self._upload.record()
            staging.uses[self._upload.handle] = ready
            memory.used(self._upload.handle, ready)
            return DeviceImage(memory.buffer.pointer, image.shape, image.dtype, ready, memory)

    def submit(
        self, pairs: Sequence[tuple[DeviceImage, DeviceImage]], timestep: NDArray[np.float32]
    ) -> list[DeviceImage]:
        """See `Backend.submit`."""
        with self._guarded():
            lane = self._lanes[self._turn % len(self._lanes)]
            self._turn += 1
            return self._submit(lane, pairs, timestep)

    def _submit(
        self,
        lane: _Lane,
        pairs: Sequence[tuple[DeviceImage, DeviceImage]],
        timestep: NDArray[np.float32],
    ) -> list[DeviceImage]:
        stream = lane.stream
        times = self._times_on_device(timestep)
        images = [image for pair in pairs for image in pair]
        for image in (*images, times):
            stream.wait_for(image.ready)
        shape, dtype, row_bytes = images[0].shape[1:], images[0].dtype, images[0].nbytes
        result = self._take(len(timestep) * row_bytes, stream)
        columns = [[pair[k] for pair in pairs] for k in (0, 1)]
        held: list[_Memory] = [result]
        if self._recorded and not any(image.is_the_callers for image in images):
            fixed = self._fixed_buffers(lane, len(pairs) * row_bytes, times.nbytes, result)
            for name, rows in (("img0", columns[0]), ("img1", columns[1]), ("timestep", [times])):
                self._lay(stream, rows, fixed[name].buffer)
            lane.replay(_Call(**{name: memory.buffer.pointer for name, memory in fixed.items()}))
            self._cuda.copy(
                stream,
                result.buffer.pointer,
                fixed["imgt"].buffer.pointer,
                result.buffer.size,
                "DeviceToDevice",
            )
        else:
            addresses: list[int] = []
            for rows in columns:
                address = rows[0].pointer
                if len(rows) > 1 or address % _ALIGNMENT:
                    memory = self._take(len(rows) * row_bytes, stream)
                    self._lay(stream, rows, memory.buffer)
                    address = memory.buffer.pointer
                    held.append(memory)
                addresses.append(address)
            free = None if self.info.size else (len(pairs), *shape)
            img0, img1 = addresses
            lane.run(_Call(img0, img1, times.pointer, result.buffer.pointer), free)
        done = stream.record()
        for image in (*images, times):
            image.used(stream.handle, done)
        for memory in held:
            memory.used(stream.handle, done)
        first = result.buffer.pointer
        return [
            DeviceImage(first + row * row_bytes, (1, *shape), dtype, done, result)
            for row in range(len(timestep))
        ]

    def download(self, image: DeviceImage) -> Callable[[], NDArray[Any]]:
        """See `Backend.download`."""
        with self._guarded():
            pinned = _Memory(self._pinned, self._pinned.take(image.nbytes))
            for event in pinned.buffer.uses.values():
                event.wait()  # Of a download that nobody waited for.
            pinned.buffer.uses.clear()
            self._download.wait_for(image.ready)
            self._cuda.copy(
                self._download, pinned.buffer.pointer, image.pointer, image.nbytes, "DeviceToHost"
            )
            done = self._download.record()
            image.used(self._download.handle, done)
            pinned.used(self._download.handle, done)

        def result() -> NDArray[Any]:
            with self._guarded(locked=False):
                done.wait()
            return host_view(pinned.buffer, image.shape, image.dtype).copy()

        return result

    def put_device(self, view: DeviceView, stream: int) -> DeviceImage:
        """See `Backend.put_device`: the caller's memory itself, no copy."""
        with self._guarded():
            shape = (1, *view.shape)
            self._check_size(shape)
            handle = StreamHandle(stream)
            if view.stream is not None and view.stream != stream:
                made = self._cuda.record(StreamHandle(view.stream))
                self._cuda.call("cudaStreamWaitEvent", handle, made.handle, 0)
            ready = self._cuda.record(handle)
            return DeviceImage(view.pointer, shape, view.dtype, ready, view.owner)

    def hand_over(self, image: DeviceImage, stream: int) -> DeviceFrame:
        """See `Backend.hand_over`."""
        cuda, held = self._cuda, [image]
        with self._guarded():
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

    def timed(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> dict[str, float]:
        """Milliseconds on the GPU of one pair, each part with nothing beside it.

        Args:
            img0: As of `put`.
            img1: As of `put`.
            timestep: As of `submit`.

        Returns:
            "h2d": both frames up; "compute": the network; "d2h": the result down.
        """
        with self._guarded():
            images = [self.put(image) for image in (img0, img1)]
            sources = [self._next_staging(image.nbytes) for image in images]
            for source, image in zip(sources, (img0, img1), strict=True):
                np.copyto(host_view(source, image.shape, image.dtype), image)
            times = [self._upload.record(timed=True)]
            for source, there in zip(sources, images, strict=True):
                self._cuda.copy(
                    self._upload, there.pointer, source.pointer, source.size, "HostToDevice"
                )
            times.append(self._upload.record(timed=True))
            self._upload.synchronize()
            lane = self._lanes[0]
            pairs = [(images[0], images[1])] * self.info.pairs_per_call
            # The first keeps the GPU busy until the host has queued the second with its events.
            self._submit(lane, pairs, timestep)
            times.append(lane.stream.record(timed=True))
            made = self._submit(lane, pairs, timestep)
            times.append(lane.stream.record(timed=True))
            lane.stream.synchronize()
            target = _Memory(self._pinned, self._pinned.take(made[0].nbytes))
            times.append(self._download.record(timed=True))
            for row in made:
                self._cuda.copy(
                    self._download,
                    target.buffer.pointer,
                    row.pointer,
                    row.nbytes,
                    "DeviceToHost",
                )
            times.append(self._download.record(timed=True))
            self._download.synchronize()
            parts = zip(("h2d", "compute", "d2h"), times[::2], times[1::2], strict=True)
            return {name: end.milliseconds_since(start) for name, start, end in parts}

    def close(self) -> None:
        """Frees everything but the device frames that callers still hold."""
        with self._lock:
            if self._engine is None:
                return
            engine, self._engine = self._engine, None
            # After a lost device every call fails, and all is freed already.
            with contextlib.suppress(CudaError), self._cuda.current():
                for stream in (*self._copies, *(lane.stream for lane in self._lanes)):
                    with contextlib.suppress(CudaError):
                        stream.synchronize()
            for lane in self._lanes:
                lane.close()
            for stream in self._copies:
                stream.close()
            self._lanes.clear()
            self._fixed.clear()
            self._times.clear()
            engine.close()
            for buffers in self._staging.values():
                for buffer in buffers:
                    self._pinned.give_back(buffer)
            self._staging.clear()
            self._device.close()
            self._pinned.close()

    @contextlib.contextmanager
    def _guarded(self, *, locked: bool = True) -> Iterator[None]:
        """Runs what is inside on our device; an error of the device closes the model."""
        if self._engine is None:
            raise BackendError("the model is closed: open it again")
        try:
            with self._lock if locked else contextlib.nullcontext(), self._cuda.current():
                yield
        except FrameError:
            raise
        except BackendError as error:
            said = self._engine.said() if self._engine is not None else ""
            self.close()
            raise BackendError(f"{self.name}: {error}{said}; the model is closed") from error

    def _check_size(self, shape: tuple[int, ...]) -> None:
        assert self._engine is not None
        limits = self._engine.limits
        if limits is not None and not all(
            low <= n <= high for low, n, high in zip(limits[0], shape[-3:], limits[1], strict=True)
        ):
            spatial = slice(0, 2) if self.info.io == "frames" else slice(1, 3)
            found, low, high = (
                "x".join(map(str, s[spatial])) for s in (shape[-3:], limits[0], limits[1])
            )
            raise FrameError(
                f"frames are {found}, this engine takes {low} to {high}: "
                "build one with other --min and --max"
            )

    def _take(self, size: int, stream: Stream) -> _Memory:
        """Device memory that `stream` may write to."""
        try:
            memory = _Memory(self._device, self._device.take(size))
        except CudaError as error:
            # Frames of another size may have left buffers behind.
            if error.name != OUT_OF_MEMORY or not self._device.free_idle():
                raise
            memory = _Memory(self._device, self._device.take(size))
        for handle, event in memory.buffer.uses.items():
            if handle != stream.handle:
                stream.wait_for(event)
        memory.buffer.uses.clear()
        return memory

    def _next_staging(self, size: int) -> Buffer:
        """The pinned buffer that has been going up for the longest; waits until it is there."""
        ring = self._staging.setdefault(size, [])
        if len(ring) < _STAGING:
            ring.append(self._pinned.take(size))
        else:
            ring.append(ring.pop(0))
        for event in ring[-1].uses.values():
            event.wait()
        ring[-1].uses.clear()
        return ring[-1]

    def _times_on_device(self, timestep: NDArray[np.float32]) -> DeviceImage:
        key = tuple(timestep.ravel().tolist())
        known = self._times.get(key)
        if known is None:
            staging = self._next_staging(timestep.nbytes)
            np.copyto(host_view(staging, timestep.shape, timestep.dtype), timestep)
            memory = self._take(timestep.nbytes, self._upload)
            pointer = memory.buffer.pointer
            self._cuda.copy(self._upload, pointer, staging.pointer, timestep.nbytes, "HostToDevice")
            ready = self._upload.record()
            staging.uses[self._upload.handle] = ready
            memory.used(self._upload.handle, ready)
            known = DeviceImage(pointer, timestep.shape, timestep.dtype, ready, memory)
            self._times[key] = known
            if len(self._times) > _TIMES:
                self._times.popitem(last=False)
        self._times.move_to_end(key)
        return known

    def _fixed_buffers(
        self, lane: _Lane, image_bytes: int, time_bytes: int, result: _Memory
    ) -> dict[str, _Memory]:
        """What the recorded launches of a lane work on; the lane's stream alone touches it."""
        if lane not in self._fixed:
            sizes = {"img0": image_bytes, "img1": image_bytes, "timestep": time_bytes}
            sizes["imgt"] = result.buffer.size
            self._fixed[lane] = {
                name: self._take(size, lane.stream) for name, size in sizes.items()
            }
        return self._fixed[lane]

    def _lay(self, stream: Stream, rows: Sequence[DeviceImage], target: Buffer) -> None:
        """Queues copies of images into a buffer, one behind the other."""
        address = target.pointer
        for image in rows:
            self._cuda.copy(stream, address, image.pointer, image.nbytes, "DeviceToDevice")
            address += image.nbytes

    def profile_layers(
        self,
        img0: NDArray[Any],
        img1: NDArray[Any],
        timestep: NDArray[np.float32],
        runs: int,
    ) -> list[tuple[str, float]]:
        """Mean milliseconds of each layer in the order in which they run, without a CUDA graph.

        Each layer is timed apart, by which their sum is more than `timed` gives.

        Args:
            img0: As of `put`.
            img1: As of `put`.
            timestep: As of `submit`.
            runs: How many are averaged, after one that is not counted.
        """
        total: dict[str, float] = {}
        trt = import_tensorrt()

        class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]  # loaded just now
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                total[layer_name] = total.get(layer_name, 0.0) + ms

        with self._guarded():
            profiler = Profiler()
            lane = _Lane(self._cuda, self.engine)  # With a context that reports to nobody else.
            try:
                lane._context.profiler = profiler
                # Held as a caller's images are: with those there is no graph.
                pair = tuple(
                    replace(image, memory=[image.memory])
                    for image in (self.put(img0), self.put(img1))
                )
                for number in range(runs + 1):
                    self._submit(lane, [(pair[0], pair[1])] * self.info.pairs_per_call, timestep)
                    lane.stream.synchronize()
                    if number == 0:
                        total.clear()
            finally:
                with contextlib.suppress(CudaError):
                    lane.stream.synchronize()
                lane.close()
            return [(name, ms / runs) for name, ms in total.items()]


def open_model(path: Path, options: OpenOptions) -> TensorRTBackend:
    """Loads an engine of ours with the manifest beside it.

    Raises:
        ModelError: If the manifest is missing, or the engine is not the manifest's, or was built
            for another TensorRT or another GPU.
        BackendError: If TensorRT, cuda-python or a GPU is missing.
    """
    options.refuse("threads", "is for processors: leave it out with a TensorRT engine")
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
