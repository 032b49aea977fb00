"""The TensorRT backend.

Images stay on the GPU from `put` to `download`: a frame that belongs to two pairs is uploaded once,
and a frame that recursion computes is the input of the next call without a download. Uploads,
inference and downloads have a stream each and are ordered by events alone, so that they overlap.

If sizes are fixed, the launches of an execution slot are recorded once as a CUDA graph on buffers
of the slot. Images are copied into these buffers, and results out of them, on the device, which
takes microseconds. Without a graph, and for images in the caller's GPU memory, there is no such
copy.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.backends.base import OpenOptions
from runtime.backends.cuda.arrays import DeviceFrame, DeviceView
from runtime.backends.cuda.runtime import Cuda, CudaError, StreamHandle
from runtime.backends.trt.engine import Engine, checked_manifest, gpu_at, import_tensorrt
from runtime.backends.trt.execution import BufferLease, DeviceImage, ExecutionSlot, TensorAddresses
from runtime.backends.trt.transfers import Transfers
from runtime.errors import BackendError, FrameError
from runtime.model_info import ModelInfo

_ALIGNMENT = 256
"""Alignment, in bytes, of the addresses that TensorRT accepts."""

_CACHED_TIMESTEPS = 64
"""Number of time step tensors that stay on the device; a stream uses one for each new frame."""


class _Call(NamedTuple):
    """The tensors of one inference on the GPU: its inputs, and the memory of its result."""

    img0: list[DeviceImage]
    img1: list[DeviceImage]
    timestep: DeviceImage
    result: BufferLease


class TensorRTBackend:
    """An engine on one GPU. Threads may share it; their calls run one after the other.

    Args:
        engine: The engine.
        info: Metadata of the model.
        cuda: The device on which the engine was deserialised.
        streams: Number of inferences that may run at the same time, each in its own slot.
        cuda_graph: Record the launches if shapes are fixed.

    Attributes:
        name: Backend, version and device, for example "tensorrt 10.3.0 cuda:0".
        info: Metadata of the model.
        lookahead: Number of pairs to queue before the caller waits for the first.
        cuda: The device.
        transfers: Uploads and downloads. Use it, `slots` and `submit_on` inside `guarded` only.
        slots: The execution slots, one for each stream; empty once the model is closed.
    """

    def __init__(
        self, engine: Engine, info: ModelInfo, cuda: Cuda, *, streams: int, cuda_graph: bool
    ) -> None:
        self.name = f"tensorrt {engine.version} cuda:{cuda.device}"
        self.info = info
        self.notes: Sequence[str] = ()
        self.lookahead = streams + 1
        self.cuda = cuda
        self._engine: Engine | None = engine
        self._lock = threading.RLock()
        self._next_slot = 0
        self._timesteps: OrderedDict[tuple[float, ...], DeviceImage] = OrderedDict()
        self.transfers = Transfers(cuda)
        self.slots: list[ExecutionSlot] = []
        self._use_graphs = cuda_graph and info.size is not None and info.max_pairs is None
        self._graph_buffers: dict[ExecutionSlot, list[BufferLease]] = {}
        with self.guarded():
            self.transfers.open()
            for _ in range(streams):
                self.slots.append(ExecutionSlot(cuda, engine))

    def __enter__(self) -> TensorRTBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            BackendError: If the model is closed.
        """
        if self._engine is None:
            raise BackendError("the model is closed: open it again")
        return self._engine

    @property
    def best_size(self) -> tuple[int, int]:
        """(height, width) of the frames for which the engine is fastest."""
        if self.info.size is not None:
            return self.info.size
        best = self.engine.best
        assert best is not None  # Engines without a size have a profile.
        return self.info.layout.size_of(best)

    @property
    def cuda_graph_problem(self) -> str | None:
        """Why a slot launches inferences without a CUDA graph; None unless recording failed.

        A graph is recorded at the second inference of each slot.
        """
        return next((slot.graph_problem for slot in self.slots if slot.graph_problem), None)

    def put(self, image: NDArray[Any]) -> DeviceImage:
        """Queues the upload of an image; see `Backend.put`.

        The array may be changed once this returns.
        """
        with self.guarded():
            self._check_size(image.shape)
            return self.transfers.put(image)

    def submit(
        self, pairs: Sequence[tuple[DeviceImage, DeviceImage]], timestep: NDArray[np.float32]
    ) -> list[DeviceImage]:
        """Queues one inference in the next slot; see `Backend.submit`."""
        with self.guarded():
            slot = self.slots[self._next_slot % len(self.slots)]
            self._next_slot += 1
            return self.submit_on(slot, pairs, timestep)

    def submit_on(
        self,
        slot: ExecutionSlot,
        pairs: Sequence[tuple[DeviceImage, DeviceImage]],
        timestep: NDArray[np.float32],
    ) -> list[DeviceImage]:
        """Queues one inference in a slot, like `submit`; call it inside `guarded`."""
        stream = slot.stream
        times = self._timestep_on_device(timestep)
        images = [image for pair in pairs for image in pair]
        for image in (*images, times):
            stream.wait_for(image.ready)
        shape, dtype, row_bytes = images[0].shape[1:], images[0].dtype, images[0].nbytes
        result = self.transfers.take(len(timestep) * row_bytes, stream)
        call = _Call([pair[0] for pair in pairs], [pair[1] for pair in pairs], times, result)
        leases = [result]
        if self._use_graphs and not any(image.is_external for image in images):
            self._replay(slot, call)
        else:
            leases += self._run(slot, call)
        done = stream.record()
        for image in (*images, times):
            image.record_use(stream.handle, done)
        for lease in leases:
            lease.record_use(stream.handle, done)
        first = result.buffer.pointer
        return [
            DeviceImage(first + row * row_bytes, (1, *shape), dtype, done, result)
            for row in range(len(timestep))
        ]

    def _replay(self, slot: ExecutionSlot, call: _Call) -> None:
        """Queues the recorded launches, with copies into their buffers and out of them."""
        buffers = self._graph_buffers.get(slot)
        result = call.result.buffer
        if buffers is None:
            image_bytes = len(call.img0) * call.img0[0].nbytes
            sizes = (image_bytes, image_bytes, call.timestep.nbytes, result.size)
            buffers = [self.transfers.take(size, slot.stream) for size in sizes]
            self._graph_buffers[slot] = buffers
        inputs = (call.img0, call.img1, [call.timestep])
        for images, target in zip(inputs, buffers[:3], strict=True):
            self.transfers.pack(slot.stream, images, target.buffer)
        img0, img1, timestep, imgt = (lease.buffer.pointer for lease in buffers)
        slot.replay(TensorAddresses(img0, img1, timestep, imgt))
        self.cuda.copy(slot.stream, result.pointer, imgt, result.size, "DeviceToDevice")

    def _run(self, slot: ExecutionSlot, call: _Call) -> list[BufferLease]:
        """Queues the launches on the images themselves; returns the memory of packed images."""
        packed: list[BufferLease] = []
        addresses: list[int] = []
        for images in (call.img0, call.img1):
            address = images[0].pointer
            if len(images) > 1 or address % _ALIGNMENT:
                lease = self.transfers.take(len(images) * images[0].nbytes, slot.stream)
                self.transfers.pack(slot.stream, images, lease.buffer)
                address = lease.buffer.pointer
                packed.append(lease)
            addresses.append(address)
        img0, img1 = addresses
        result = call.result.buffer.pointer
        slot.run(
            TensorAddresses(img0, img1, call.timestep.pointer, result), self._free_shapes(call)
        )
        return packed

    def _free_shapes(self, call: _Call) -> dict[str, tuple[int, ...]]:
        """The shapes, in one call, of the inputs whose shape the engine leaves free."""
        image = (len(call.img0), *call.img0[0].shape[1:])
        if self.info.max_pairs is not None:
            return {"img0": image, "img1": image, "timestep": call.timestep.shape}
        return {} if self.info.size else {"img0": image, "img1": image}

    def download(self, image: DeviceImage) -> Callable[[], NDArray[Any]]:
        """Queues the download of an image; see `Backend.download`."""
        with self.guarded():
            done, read = self.transfers.download(image)

        def wait() -> NDArray[Any]:
            with self.guarded(locked=False):
                done.wait()
            return read()

        return wait

    def put_device(self, view: DeviceView, stream: int) -> DeviceImage:
        """Uses the caller's memory without a copy; see `Backend.put_device`."""
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
                written = self.cuda.record(StreamHandle(view.stream))
                self.cuda.call("cudaStreamWaitEvent", handle, written.handle, 0)
            ready = self.cuda.record(handle)
            return DeviceImage(view.pointer, shape, view.dtype, ready, view.owner)

    def export_to_stream(self, image: DeviceImage, stream: int) -> DeviceFrame:
        """Exports an image to the caller without a copy; see `Backend.export_to_stream`."""
        cuda, ready, references = self.cuda, image.ready, [image]
        with self.guarded():
            cuda.call("cudaStreamWaitEvent", stream, image.ready.handle, 0)

        def wait(other: int) -> None:
            with cuda.current():
                cuda.call("cudaStreamWaitEvent", other, ready.handle, 0)

        def release() -> None:
            # Work that the caller has queued may still read the frame.
            handle = StreamHandle(stream)
            try:
                with cuda.current():
                    references[0].record_use(handle, cuda.record(handle))
            except CudaError:
                # The caller has destroyed the stream, so there is nothing to record an event on.
                cuda.api.cudaDeviceSynchronize()
            references.clear()

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
        """Frees everything except the device frames that callers still hold."""
        with self._lock:
            if self._engine is None:
                return
            engine, self._engine = self._engine, None
            with contextlib.ExitStack() as stack:
                # After the device is lost, every call fails and all memory is freed.
                with contextlib.suppress(CudaError):
                    stack.enter_context(self.cuda.current())
                for slot in self.slots:
                    with contextlib.suppress(CudaError):
                        slot.stream.synchronize()
                    slot.close()
                self.slots.clear()
                self._graph_buffers.clear()
                self._timesteps.clear()
                engine.close()
                self.transfers.close()

    @contextlib.contextmanager
    def guarded(self, *, locked: bool = True) -> Iterator[None]:
        """Makes the model's GPU the current device; an error in the block closes the model.

        Args:
            locked: Whether other threads wait until the block ends.

        Raises:
            BackendError: If the model is closed, or the block raises one.
        """
        with self._lock if locked else contextlib.nullcontext():
            engine = self.engine  # Raises if the model is closed.
            try:
                with self.cuda.current():
                    yield
            except FrameError:
                raise
            except BackendError as error:
                reported = engine.error_suffix()
                self.close()
                raise BackendError(
                    f"{self.name} failed: {error}{reported}; the model was closed, open it again"
                ) from error

    def _check_size(self, shape: tuple[int, ...]) -> None:
        limits = self.engine.limits
        if limits is not None and not all(
            low <= n <= high for low, n, high in zip(limits[0], shape[-3:], limits[1], strict=True)
        ):
            size, low, high = (
                "{}x{}".format(*self.info.layout.size_of(one)) for one in (shape, *limits)
            )
            raise FrameError(
                f"frames are {size}, this engine takes {low} to {high}: "
                "build one with other --min and --max"
            )

    def _timestep_on_device(self, timestep: NDArray[np.float32]) -> DeviceImage:
        """The time steps as a tensor on the device, from a cache of the latest ones."""
        key = tuple(timestep.ravel().tolist())
        if key not in self._timesteps:
            self._timesteps[key] = self.transfers.put(timestep)
            if len(self._timesteps) > _CACHED_TIMESTEPS:
                self._timesteps.popitem(last=False)
        self._timesteps.move_to_end(key)
        return self._timesteps[key]


def open_model(path: Path, options: OpenOptions) -> TensorRTBackend:
    """Loads an engine of `export.build_engine`, which has its manifest beside it.

    Raises:
        ModelError: If the manifest is missing or belongs to another file, or the engine was built
            for another TensorRT or another GPU.
        BackendError: If an option is not for TensorRT, or TensorRT, cuda-python or the GPU is
            missing.
    """
    for name in ("threads", "precision", "cache"):
        options.refuse(name, "is for CPU backends: leave it out with a TensorRT engine")
    options.refuse("io_binding", "is for ONNX Runtime: leave it out with a TensorRT engine")
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
    """Loads a serialised engine, without checks of versions and GPU.

    Args:
        plan: The serialised engine.
        info: Metadata of the model.
        device: Index of the GPU.
        portable: Whether the engine is version-compatible.
        streams: Number of inferences that may run at the same time.
        cuda_graph: Record the launches if shapes are fixed.

    Raises:
        ModelError: If TensorRT cannot load it, or it does not have the inputs and the output of
            `info`.
        BackendError: If the device has no memory for it.
    """
    cuda = Cuda(device)
    with cuda.current():
        engine = Engine(plan, info, portable=portable)
    return TensorRTBackend(engine, info, cuda, streams=streams, cuda_graph=cuda_graph)
