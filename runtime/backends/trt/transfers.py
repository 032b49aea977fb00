"""The way of images to the GPU and back, and the memory that they lie in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.cuda.runtime import (
    OUT_OF_MEMORY,
    Buffer,
    Cuda,
    CudaError,
    Event,
    Pool,
    Stream,
    host_view,
)
from runtime.backends.trt.execution import DeviceImage, Memory

_STAGING = 3
"""Pinned buffers to upload from: one is filled while one goes up, and one to spare."""


class Transfers:
    """Copies up and down, on a stream each. Not locked: its owner is."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._staging: dict[int, list[Buffer]] = {}
        self._device = Pool(cuda, pinned=False)
        self._pinned = Pool(cuda, pinned=True)
        self.streams: list[Stream] = []

    def open(self) -> None:
        """Makes the streams.

        Raises:
            CudaError: If the device has no room for them.
        """
        self.streams += [Stream(self._cuda), Stream(self._cuda)]

    def put(self, image: NDArray[Any]) -> DeviceImage:
        """Queues the way up. The array may be changed once this returns."""
        upload, staging = self.streams[0], self.staged(image)
        memory = self.take(image.nbytes, upload)
        pointer = memory.buffer.pointer
        self._cuda.copy(upload, pointer, staging.pointer, image.nbytes, "HostToDevice")
        ready = upload.record()
        staging.uses[upload.handle] = ready
        memory.used(upload.handle, ready)
        return DeviceImage(pointer, image.shape, image.dtype, ready, memory)

    def download(self, image: DeviceImage) -> tuple[Event, Callable[[], NDArray[Any]]]:
        """Queues the way down: when it is done, and what gives a new array from then on."""
        download = self.streams[1]
        pinned = Memory(self._pinned, self._pinned.take(image.nbytes))
        for event in pinned.buffer.uses.values():
            event.wait()  # Of a download that nobody waited for.
        pinned.buffer.uses.clear()
        download.wait_for(image.ready)
        target = pinned.buffer.pointer
        self._cuda.copy(download, target, image.pointer, image.nbytes, "DeviceToHost")
        done = download.record()
        image.used(download.handle, done)
        pinned.used(download.handle, done)
        return done, lambda: host_view(pinned.buffer, image.shape, image.dtype).copy()

    def take(self, size: int, stream: Stream) -> Memory:
        """Device memory that `stream` may write to.

        Raises:
            CudaError: If there is no more.
        """
        try:
            memory = Memory(self._device, self._device.take(size))
        except CudaError as error:
            # Frames of another size may have left buffers behind.
            if error.name != OUT_OF_MEMORY or not self._device.free_idle():
                raise
            memory = Memory(self._device, self._device.take(size))
        for handle, event in memory.buffer.uses.items():
            if handle != stream.handle:
                stream.wait_for(event)
        memory.buffer.uses.clear()
        return memory

    def staged(self, image: NDArray[Any]) -> Buffer:
        """A copy in pinned memory: where an image has been going up for the longest."""
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

    def lay(self, stream: Stream, rows: Sequence[DeviceImage], target: Buffer) -> None:
        """Queues copies of images into a buffer, one behind the other."""
        address = target.pointer
        for image in rows:
            self._cuda.copy(stream, address, image.pointer, image.nbytes, "DeviceToDevice")
            address += image.nbytes

    def close(self) -> None:
        """Frees streams and memory; what is still out is freed when it comes back."""
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
