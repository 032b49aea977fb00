"""Shared memory between this process and a Triton server on the same machine.

A request refers to a frame in a region of shared memory by the name of the region, and does not
contain the frame. Regions are registered with the server once and used again.
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
"""Folder in which Linux has the segments of shared memory as files."""


def memory_errors() -> tuple[type[Exception], ...]:
    """The exceptions of tritonclient for shared memory; with CUDA's only if CUDA is in use."""
    from tritonclient.utils.shared_memory import SharedMemoryException

    cuda = sys.modules.get("tritonclient.utils.cuda_shared_memory")
    return (SharedMemoryException, *([cuda.CudaSharedMemoryException] if cuda else []))


class Region:
    """A region of shared memory in use; the last reference to it returns it to its pool.

    Attributes:
        name: Name of the region at the server.
        nbytes: Size in bytes.
        handle: Handle of tritonclient for the region.
    """

    def __init__(self, memory: SharedMemory, name: str, nbytes: int, handle: Any) -> None:
        self._memory = memory
        self.name = name
        self.nbytes = nbytes
        self.handle = handle

    def write(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Copies arrays into the region, one after the other."""
        self._memory.write(self.handle, arrays)

    def read(self, shape: Sequence[int], dtype: np.dtype[Any], row: int) -> NDArray[Any]:
        """Copies one row of the array in the region, as a batch of one: (1, ...)."""
        return self._memory.read(self.handle, shape, dtype, row)

    def __del__(self) -> None:
        self._memory.give_back(self.name, self.nbytes, self.handle)


class SharedMemory(ABC):
    """Regions of one type of shared memory, registered with one server.

    Args:
        client: An InferenceServerClient of tritonclient.grpc.
        timeout: Limit of the time of a request to the server, in seconds.
        module: The module of tritonclient.utils for the type of memory.
    """

    def __init__(self, client: Any, timeout: float, module: Any) -> None:
        self._client = client
        self._timeout = timeout
        self._module = module
        self._prefix = f"ifrnet-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._handles: dict[str, Any] = {}
        self._free: dict[int, list[tuple[str, Any]]] = {}
        self._closed = False

    def take(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Region:
        """Takes a region for an array; creates and registers one if none of this size is free.

        Raises:
            InferenceServerException: If the server cannot map it.
            BackendError: If /dev/shm has not enough free memory.
            SharedMemoryException: If the memory cannot be created; see `memory_errors`.
        """
        nbytes = math.prod(shape) * dtype.itemsize
        if free := self._free.get(nbytes):
            name, handle = free.pop()
        else:
            name = f"{self._prefix}-{len(self._handles)}"
            handle = self._create(name, nbytes)
            self._handles[name] = handle
            self._register(name, handle, nbytes)
        return Region(self, name, nbytes, handle)

    def give_back(self, name: str, nbytes: int, handle: Any) -> None:
        """Makes a region available to `take`; called on the thread that drops the region."""
        if not self._closed:
            self._free.setdefault(nbytes, []).append((name, handle))

    def close(self) -> None:
        """Unregisters and frees all regions, also those in use."""
        self._closed = True
        self._free.clear()
        while self._handles:
            name, handle = self._handles.popitem()
            with contextlib.suppress(Exception):  # The server may have ended.
                self._unregister(name)
            self._module.destroy_shared_memory_region(handle)

    def write(self, handle: Any, arrays: Sequence[NDArray[Any]]) -> None:
        """Copies arrays into a region, one after the other."""
        self._module.set_shared_memory_region(handle, list(arrays))

    def read(
        self, handle: Any, shape: Sequence[int], dtype: np.dtype[Any], row: int
    ) -> NDArray[Any]:
        """Copies one row of the array in a region, as a batch of one: (1, ...)."""
        array: NDArray[Any] = self._module.get_contents_as_numpy(handle, dtype, tuple(shape))
        return array[row : row + 1].copy()

    @abstractmethod
    def _create(self, name: str, nbytes: int) -> Any: ...

    @abstractmethod
    def _register(self, name: str, handle: Any, nbytes: int) -> None: ...

    @abstractmethod
    def _unregister(self, name: str) -> None: ...


class SystemMemory(SharedMemory):
    """Shared memory of the host (/dev/shm).

    Args:
        client: An InferenceServerClient of tritonclient.grpc.
        timeout: Limit of the time of a request to the server, in seconds.
    """

    def __init__(self, client: Any, timeout: float) -> None:
        import tritonclient.utils.shared_memory as module

        super().__init__(client, timeout, module)

    def _create(self, name: str, nbytes: int) -> Any:
        handle = self._module.create_shared_memory_region(name, name, nbytes)
        try:
            _reserve(_SEGMENTS / name, nbytes)
        except BaseException:
            self._module.destroy_shared_memory_region(handle)
            raise
        return handle

    def _register(self, name: str, handle: Any, nbytes: int) -> None:
        del handle
        self._client.register_system_shared_memory(
            name, "/" + name, nbytes, client_timeout=self._timeout
        )

    def _unregister(self, name: str) -> None:
        self._client.unregister_system_shared_memory(name, client_timeout=self._timeout)


def _reserve(segment: Path, nbytes: int) -> None:
    """Allocates the pages of a new segment of shared memory; does nothing except on Linux.

    Otherwise Linux allocates a page when it is first written to, and kills a process with SIGBUS
    if no page is left.

    Raises:
        BackendError: If there are not enough pages.
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
    """Shared memory of a GPU that the server uses too; frames are uploaded once.

    Args:
        client: An InferenceServerClient of tritonclient.grpc.
        timeout: Limit of the time of a request to the server, in seconds.
        device: Index of the GPU.

    Raises:
        ImportError: If tritonclient has no support for CUDA.
        RuntimeError: If cuda-python is not installed.
    """

    def __init__(self, client: Any, timeout: float, device: int) -> None:
        import tritonclient.utils.cuda_shared_memory as module

        super().__init__(client, timeout, module)
        self._device = device

    def _create(self, name: str, nbytes: int) -> Any:
        return self._module.create_shared_memory_region(name, nbytes, self._device)

    def _register(self, name: str, handle: Any, nbytes: int) -> None:
        raw = self._module.get_raw_handle(handle)
        self._client.register_cuda_shared_memory(
            name, raw, self._device, nbytes, client_timeout=self._timeout
        )

    def _unregister(self, name: str) -> None:
        self._client.unregister_cuda_shared_memory(name, client_timeout=self._timeout)
