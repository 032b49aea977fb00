"""A fake of PyTorch with CUDA: its memory and streams are those of FakeCuda.

Tensors on the GPU are real tensors over the memory of FakeCuda, which is host memory, so shapes,
strides and types are PyTorch's own. Copies and the two protocols follow PyTorch 2.13: DLPack makes
streams wait, `__cuda_array_interface__` neither names a stream nor waits for one.
"""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch

from fake_cuda import FakeCuda
from runtime.backends.cuda.arrays import _managed_tensor, _view_from_capsule


class Stream:
    """torch.cuda.Stream, ExternalStream and the default stream (handle 0)."""

    def __init__(self, api: FakeCuda, handle: int) -> None:
        self._api, self.cuda_stream = api, handle

    def query(self) -> bool:
        return self._api.cudaStreamQuery(self.cuda_stream)[0] == 0

    def synchronize(self) -> None:
        self._api.cudaStreamSynchronize(self.cuda_stream)

    def wait_stream(self, other: Stream) -> None:
        if other.cuda_stream != self.cuda_stream:
            _, event = self._api.cudaEventCreateWithFlags(self._api.cudaEventDisableTiming)
            self._api.cudaEventRecord(event, other.cuda_stream)
            self._api.cudaStreamWaitEvent(self.cuda_stream, event, 0)
            self._api.cudaEventDestroy(event)


class FakeTorch:
    """Stands in for the module `torch`."""

    __version__ = "2.13.0+fake"

    def __init__(self, api: FakeCuda) -> None:
        self.api = api
        self.allocated: list[int] = []  # Freed at the end only, as in PyTorch.
        weakref.finalize(self, _free, api, self.allocated)
        default = self._current = Stream(api, 0)
        self.cuda = SimpleNamespace(
            is_available=lambda: True,
            synchronize=api.cudaDeviceSynchronize,
            Stream=self._new_stream,
            ExternalStream=lambda handle: Stream(api, handle),
            default_stream=lambda: default,
            stream=self._on_stream,
            _sleep=lambda _: api.enqueue(self.current, lambda: None, name="sleep"),
        )

    @property
    def current(self) -> int:
        return self._current.cuda_stream

    def _new_stream(self) -> Stream:
        _, handle = self.api.cudaStreamCreateWithFlags(self.api.cudaStreamNonBlocking)
        made = Stream(self.api, int(handle))
        weakref.finalize(made, self.api.cudaStreamDestroy, int(handle))
        return made

    @contextlib.contextmanager
    def _on_stream(self, stream: Stream) -> Iterator[None]:
        before, self._current = self._current, stream
        try:
            yield
        finally:
            self._current = before

    def from_numpy(self, values: Any) -> Tensor:
        return Tensor(self, torch.from_numpy(values))

    def from_dlpack(self, frame: Any) -> Tensor:
        stream = self.current or 1  # DLPack's number for the legacy default stream.
        view = _view_from_capsule(frame.__dlpack__(max_version=(1, 0), stream=stream), "frame")
        return self.over(view.pointer, view.shape, getattr(torch, view.dtype.name), view)

    def as_tensor(self, frame: Any, device: str) -> Tensor:
        assert device == "cuda"
        found = frame.__cuda_array_interface__
        dtype = {"|u1": torch.uint8, "<u2": torch.uint16, "<f2": torch.float16,
                 "<f4": torch.float32}[found["typestr"]]  # fmt: skip
        return self.over(found["data"][0], found["shape"], dtype, frame)

    def over(self, pointer: int, shape: Any, dtype: Any, owner: object) -> Tensor:
        count = torch.Size(shape).numel()
        size = count * dtype.itemsize
        memory = (ctypes.c_uint8 * size).from_address(pointer)
        return Tensor(self, torch.frombuffer(memory, dtype=dtype).reshape(shape), owner)


class Tensor:
    """A tensor. It is on the GPU if its memory has an owner."""

    def __init__(self, fake: FakeTorch, real: torch.Tensor, owner: object = None) -> None:
        self.fake, self.real, self.owner = fake, real, owner
        self.shape, self.dtype, self.data_ptr = real.shape, real.dtype, real.data_ptr

    def cuda(self) -> Tensor:
        api, real = self.fake.api, self.real.contiguous()
        size = real.numel() * real.itemsize
        _, pointer = api.cudaMalloc(size)
        made = self.fake.over(pointer, real.shape, real.dtype, self.fake)
        self.fake.allocated.append(pointer)
        # The source is not pinned, so the host waits for the copy.
        api.enqueue(
            self.fake.current, lambda: made.real.copy_(real), writes=[(pointer, size)], name="up"
        )
        api.cudaStreamSynchronize(self.fake.current)
        return made

    def cpu(self) -> Tensor:
        made = torch.empty_like(self.real)
        part = (self.real.data_ptr(), self.real.numel() * self.real.itemsize)
        api = self.fake.api
        api.enqueue(self.fake.current, lambda: made.copy_(self.real), reads=[part], name="down")
        api.cudaStreamSynchronize(self.fake.current)
        return Tensor(self.fake, made)

    def copy_(self, source: Tensor, non_blocking: bool) -> Tensor:
        assert non_blocking
        size = self.real.numel() * self.real.itemsize
        api, kind = self.fake.api, self.fake.api.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        pointers = self.data_ptr(), source.data_ptr()
        assert api.cudaMemcpyAsync(*pointers, size, kind, self.fake.current)[0] == 0
        return self

    def numpy(self) -> Any:
        return self.real.numpy()

    def __getitem__(self, index: Any) -> Tensor:
        return Tensor(self.fake, self.real[index], self.owner)

    def permute(self, *axes: int) -> Tensor:
        return Tensor(self.fake, self.real.permute(*axes), self.owner)

    def requires_grad_(self) -> Tensor:
        return Tensor(self.fake, self.real.requires_grad_(), self.owner)

    def long(self) -> Tensor:
        return Tensor(self.fake, self.real.long(), self.owner)

    def double(self) -> Tensor:
        return Tensor(self.fake, self.real.double(), self.owner)

    def bfloat16(self) -> Tensor:
        return Tensor(self.fake, self.real.bfloat16(), self.owner)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if not self.owner:
            raise AttributeError("Can't get __cuda_array_interface__ on non-CUDA tensor type")
        if self.real.requires_grad:
            raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad")
        strides = tuple(stride * self.real.itemsize for stride in self.real.stride())
        return {
            "typestr": torch._tensor._dtype_to_typestr(self.dtype),
            "shape": tuple(self.shape),
            "strides": None if self.real.is_contiguous() else strides,
            "data": (self.data_ptr() if self.real.numel() else 0, False),
            "version": 2,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2 if self.owner else 1), 0

    def __dlpack__(self, *, stream: int, max_version: tuple[int, int]) -> Any:
        if stream != 1 and stream <= 2:
            raise BufferError(f"unsupported stream: {stream}")
        capsule = self.real.__dlpack__(max_version=max_version)  # Raises if it requires grad.
        consumer = Stream(self.fake.api, 0 if stream == 1 else stream)
        consumer.wait_stream(Stream(self.fake.api, self.fake.current))
        _managed_tensor(capsule)[1].tensor.device_type = 2
        return capsule


def _free(api: FakeCuda, allocated: list[int]) -> None:
    for pointer in allocated:
        api.cudaFree(pointer)
