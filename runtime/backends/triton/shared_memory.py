"""Shared memory between this program and a Triton server on the same machine.

A frame that lies in a slot is named in a request and not sent. Slots are registered with the server
once and used again and again.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import BackendError

_SEGMENTS = Path("/dev/shm")
"""Where Linux has the segments of shared memory, by name."""


def memory_errors() -> tuple[type[Exception], ...]:
    """The exceptions of tritonclient for shared memory; that of CUDA only where it is in use."""
    from tritonclient.utils.shared_memory import SharedMemoryException

    cuda = sys.modules.get("tritonclient.utils.cuda_shared_memory")
    return (SharedMemoryException, *([cuda.CudaSharedMemoryException] if cuda else []))


class Slot:
    """A piece of shared memory in use; goes back to its pool with the last reference to it.

    Attributes:
        name: Under which the server knows it.
        nbytes: Its size.
    """

    def __init__(self, memory: SharedMemory, name: str, nbytes: int, handle: Any) -> None:
        self._memory = memory
        self.name = name
        self.nbytes = nbytes
        self.handle = handle

    def write(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Lays arrays one behind the other."""
        self._memory.write(self.handle, arrays)

    def read(self, shape: Sequence[int], dtype: np.dtype[Any], row: int) -> NDArray[Any]:
        """One row of the array that lies there, (1, ...), as a new array."""
        return self._memory.read(self.handle, shape, dtype, row)

    def __del__(self) -> None:
        self._memory.give_back(self.name, self.nbytes, self.handle)


class SharedMemory(ABC):
    """Slots of one kind of memory, registered with one server.

    Args:
        client: Of tritonclient.grpc.
        kind: The module of tritonclient.utils for that memory.
    """

    def __init__(self, client: Any, kind: Any) -> None:
        self._client = client
        self._kind = kind
        self._prefix = f"ifrnet-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._made: dict[str, Any] = {}
        self._free: dict[int, list[tuple[str, Any]]] = {}
        self._closed = False

    def take(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Slot:
        """A slot for an array.

        Raises:
            InferenceServerException: If the server cannot map it.
            BackendError: If /dev/shm has no room for it.
            SharedMemoryException: If the memory cannot be created; see `memory_errors`.
        """
        nbytes = math.prod(shape) * dtype.itemsize
        if free := self._free.get(nbytes):
            name, handle = free.pop()
        else:
            name = f"{self._prefix}-{len(self._made)}"
            handle = self._create(name, nbytes)
            self._made[name] = handle
            self._register(name, handle, nbytes)
        return Slot(self, name, nbytes, handle)

    def give_back(self, name: str, nbytes: int, handle: Any) -> None:
        """For the next `take` of this size. Called from any thread, by whoever drops a slot."""
        if not self._closed:
            self._free.setdefault(nbytes, []).append((name, handle))

    def close(self) -> None:
        """Frees all slots, here and at the server."""
        self._closed = True
        self._free.clear()
        while self._made:
            name, handle = self._made.popitem()
            with contextlib.suppress(Exception):  # A server that is gone has forgotten them.
                self._unregister(name)
            self._kind.destroy_shared_memory_region(handle)

    def write(self, handle: Any, arrays: Sequence[NDArray[Any]]) -> None:
        """Lays arrays one behind the other."""
        self._kind.set_shared_memory_region(handle, list(arrays))

    @abstractmethod
    def read(
        self, handle: Any, shape: Sequence[int], dtype: np.dtype[Any], row: int
    ) -> NDArray[Any]:
        """One row of the array that lies there, (1, ...), as a new array."""

    @abstractmethod
    def _create(self, name: str, nbytes: int) -> Any: ...

    @abstractmethod
    def _register(self, name: str, handle: Any, nbytes: int) -> None: ...

    @abstractmethod
    def _unregister(self, name: str) -> None: ...


class SystemMemory(SharedMemory):
    """Memory of the host (/dev/shm)."""

    def __init__(self, client: Any) -> None:
        import tritonclient.utils.shared_memory as kind

        super().__init__(client, kind)

    def read(
        self, handle: Any, shape: Sequence[int], dtype: np.dtype[Any], row: int
    ) -> NDArray[Any]:
        """See `SharedMemory.read`."""
        view: NDArray[Any] = self._kind.get_contents_as_numpy(handle, dtype, tuple(shape))
        return view[row : row + 1].copy()

    def _create(self, name: str, nbytes: int) -> Any:
        handle = self._kind.create_shared_memory_region(name, name, nbytes)
        try:
            _reserve(_SEGMENTS / name, nbytes)
        except BaseException:
            self._kind.destroy_shared_memory_region(handle)
            raise
        return handle

    def _register(self, name: str, handle: Any, nbytes: int) -> None:
        del handle
        self._client.register_system_shared_memory(name, "/" + name, nbytes)

    def _unregister(self, name: str) -> None:
        self._client.unregister_system_shared_memory(name)


def _reserve(segment: Path, nbytes: int) -> None:
    """Takes the pages of a new segment of shared memory from the system.

    A segment has none until it is written, and a process that writes where none is left is killed
    by SIGBUS. Linux alone has segments as files and can reserve their pages.

    Raises:
        BackendError: If there are not enough.
    """
    if sys.platform != "linux":
        return
    with segment.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, nbytes)
        except OSError as error:
            free = shutil.disk_usage(segment.parent).free
            raise BackendError(
                f"{segment.parent} cannot hold another {nbytes / 2**20:.1f} MiB of frames "
                f"({error.strerror}, {free / 2**20:.1f} MiB are free): enlarge it (docker run "
                "--shm-size=1g), or leave out ?shared_memory=system"
            ) from error


class CudaMemory(SharedMemory):
    """Memory of a GPU that the server uses too: frames go up once, results stay up there.

    Args:
        client: Of tritonclient.grpc.
        device: Index of the GPU.
    """

    def __init__(self, client: Any, device: int) -> None:
        import tritonclient.utils.cuda_shared_memory as kind

        super().__init__(client, kind)
        self._device = device

    def read(
        self, handle: Any, shape: Sequence[int], dtype: np.dtype[Any], row: int
    ) -> NDArray[Any]:
        """See `SharedMemory.read`."""
        array: NDArray[Any] = self._kind.get_contents_as_numpy(handle, dtype, tuple(shape))
        return array[row : row + 1].copy()

    def _create(self, name: str, nbytes: int) -> Any:
        return self._kind.create_shared_memory_region(name, nbytes, self._device)

    def _register(self, name: str, handle: Any, nbytes: int) -> None:
        raw = self._kind.get_raw_handle(handle)
        self._client.register_cuda_shared_memory(name, raw, self._device, nbytes)

    def _unregister(self, name: str) -> None:
        self._client.unregister_cuda_shared_memory(name)
