"""Uploads and downloads of images, and the GPU memory that holds them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.cuda.runtime import (
    OUT_OF_MEMORY,
    Buffer,
    BufferPool,
    Cuda,
    CudaError,
    Event,
    Stream,
    host_view,
)
from runtime.backends.trt.execution import BufferLease, DeviceImage

_STAGING = 3
"""Pinned upload buffers for each size: one to fill, one that is copied, and one in reserve."""


class Transfers:
    """Uploads and downloads, each on its own stream. Not safe for threads.

    Attributes:
        streams: The streams of uploads and of downloads; empty before `open`.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._staging: dict[int, list[Buffer]] = {}
        self._device = BufferPool(cuda, pinned=False)
        self._pinned = BufferPool(cuda, pinned=True)
        self.streams: list[Stream] = []

    def open(self) -> None:
        """Creates the streams.

        Raises:
            CudaError: If that fails.
        """
        self.streams += [Stream(self._cuda), Stream(self._cuda)]

    def put(self, image: NDArray[Any]) -> DeviceImage:
        """Queues the upload of an array, which may be changed once this returns.

        Raises:
            CudaError: If there is no memory, or the device fails.
        """
        upload, staging = self.streams[0], self.staged(image)
        memory = self.take(image.nbytes, upload)
        pointer = memory.buffer.pointer
        self._cuda.copy(upload, pointer, staging.pointer, image.nbytes, "HostToDevice")
        ready = upload.record()
        staging.uses[upload.handle] = ready
        memory.record_use(upload.handle, ready)
        return DeviceImage(pointer, image.shape, image.dtype, ready, memory)

    def download(self, image: DeviceImage) -> tuple[Event, Callable[[], NDArray[Any]]]:
        """Queues the download of an image.

        Returns:
            The event after the download, and a function that returns a new array; call it after
            the event is reached.

        Raises:
            CudaError: If there is no memory, or the device fails.
        """
        download = self.streams[1]
        pinned = BufferLease(self._pinned, self._pinned.take(image.nbytes))
        for event in pinned.buffer.uses.values():
            event.wait()  # The buffer may be the target of a download that nobody waited for.
        pinned.buffer.uses.clear()
        download.wait_for(image.ready)
        target = pinned.buffer.pointer
        self._cuda.copy(download, target, image.pointer, image.nbytes, "DeviceToHost")
        done = download.record()
        image.record_use(download.handle, done)
        pinned.record_use(download.handle, done)
        return done, lambda: host_view(pinned.buffer, image.shape, image.dtype).copy()

    def take(self, size: int, stream: Stream) -> BufferLease:
        """Takes `size` bytes of device memory, which `stream` may write to.

        Raises:
            CudaError: If there is no memory.
        """
        try:
            memory = BufferLease(self._device, self._device.take(size))
        except CudaError as error:
            # Idle buffers of other sizes may fill the memory.
            if error.name != OUT_OF_MEMORY or not self._device.free_idle():
                raise
            memory = BufferLease(self._device, self._device.take(size))
        for handle, event in memory.buffer.uses.items():
            if handle != stream.handle:
                stream.wait_for(event)
        memory.buffer.uses.clear()
        return memory

    def staged(self, image: NDArray[Any]) -> Buffer:
        """Copies an array to the pinned upload buffer that was used first; waits for its upload."""
        ring = self._staging.setdefault(image.nbytes, [])
        if len(ring) < _STAGING:
            ring.append(self._pinned.take(image.nbytes))
        else:
            ring.append(ring.pop(0))
        for event in ring[-1].uses.values():
            event.wait()
        ring[-1].uses.clear()
        np.copyto(host_view(ring[-1], image.shape, image.dtype), image)
        return ring[-1]

    def pack(self, stream: Stream, images: Sequence[DeviceImage], target: Buffer) -> None:
        """Queues copies of images into a buffer, as one contiguous batch."""
        address = target.pointer
        for image in images:
            self._cuda.copy(stream, address, image.pointer, image.nbytes, "DeviceToDevice")
            address += image.nbytes

    def close(self) -> None:
        """Frees streams and idle memory; memory in use is freed when its lease ends."""
        for stream in self.streams:
            with contextlib.suppress(CudaError):
                stream.synchronize()
            stream.close()
        self.streams.clear()
        for ring in self._staging.values():
            for buffer in ring:
                self._pinned.give_back(buffer)
        self._staging.clear()
        self._device.close()
        self._pinned.close()
