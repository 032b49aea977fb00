"""GPU arrays of other libraries in, frames on the GPU out: no copy, and no CUDA call here.

Two protocols carry them: `__cuda_array_interface__` (CAI, versions 2 and 3) and DLPack.
Streams are cudaStream_t handles as numbers: 0 is the legacy default stream, 2 the default stream
of the thread. Both protocols write 1 for the legacy default stream; only this file knows that.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from runtime.errors import FrameError

_LEGACY_DEFAULT_STREAM = 1  # As both protocols write it; 0 is forbidden in both.
_NO_SYNCHRONISATION = -1
_CUDA, _CUDA_MANAGED = 2, 13  # DLDeviceType
_DTYPES = {name: np.dtype(name) for name in ("uint8", "uint16", "float16", "float32")}
_TYPESTRS = {"|u1": "uint8", "<u1": "uint8", "<u2": "uint16", "<f2": "float16", "<f4": "float32"}
_DLPACK_CODES = ("int", "uint", "float", "handle", "bfloat", "complex", "bool")  # DLDataTypeCode


@dataclass(frozen=True)
class DeviceView:
    """An array on the GPU that belongs to somebody else: C-contiguous and not empty.

    Attributes:
        pointer: Address of the first element on the device.
        shape: Elements, each side 1 or more.
        dtype: uint8, uint16, float16 or float32.
        device: Index of the GPU; None where the exporter does not tell.
        stream: The stream whose work makes the content; None where there is no other to wait
            for than the one that `device_view` was given.
        owner: Keeps the memory alive for as long as something refers to it.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: int | None
    stream: int | None
    owner: object


def is_device_array(value: object) -> bool:
    """Whether `value` offers memory on a GPU. Never raises."""
    # Torch raises where a tensor requires grad; its DLPack device tells all the same.
    with contextlib.suppress(Exception):
        if getattr(value, "__cuda_array_interface__", None) is not None:
            return True
    return _is_on_gpu_by_dlpack(value)


def device_view(array: object, *, stream: int, what: str) -> DeviceView:
    """Looks at a GPU array of any library, by CAI where it has that, else by DLPack.

    Args:
        array: The array, for example of torch, CuPy or Numba, or a `DeviceFrame`.
        stream: Where the content will be used. A DLPack exporter makes it wait for the content;
            a CAI exporter that names no stream (torch) must have queued its work there.
        what: Name of the array in messages, for example "frame0".

    Raises:
        FrameError: If it is not on a GPU, not C-contiguous, empty, masked, of another type than
            the four of `DeviceView`, or cannot be handed over.
    """
    try:
        interface = getattr(array, "__cuda_array_interface__", None)
        if interface is not None:
            return _view_from_interface(interface, array, what)
        if _is_on_gpu_by_dlpack(array):
            capsule = _capsule_from(array, stream=stream or _LEGACY_DEFAULT_STREAM)
            return _view_from_capsule(capsule, what)
    except (BufferError, RuntimeError) as error:
        raise FrameError(
            f"{what} cannot be handed over ({error}): call detach() if it requires grad"
        ) from error
    raise FrameError(f"{what} is a {type(array).__name__}, not on a GPU: give an array that is")


class DeviceFrame:
    """A frame on the GPU, for any library that reads CAI or DLPack.

    The memory lives as long as this object or anything made from it: a DLPack consumer and an
    unconsumed capsule hold this object, and so do the arrays of CAI consumers such as
    `torch.as_tensor` and `cupy.asarray`. With the last of them `release` is called, once, on the
    thread that drops it; what lives until the process ends is left to the driver.

    The work that fills the frame is queued on `stream`. Use the frame there, or through a
    protocol, which makes the consumer's stream wait. `torch.as_tensor` does not wait: with PyTorch
    use `torch.from_dlpack` where its current stream is another one.

    Attributes:
        pointer: Address of the first element on the device.
        shape: (H, W, 3).
        dtype: Type of the elements, which are C-contiguous.
        device: Index of the GPU.
        stream: See above.
        nbytes: Size in bytes.
    """

    dlpack_device_type: ClassVar[int] = _CUDA

    def __init__(
        self,
        pointer: int,
        shape: Sequence[int],
        dtype: DTypeLike,
        *,
        device: int,
        stream: int,
        release: Callable[[], None],
        wait: Callable[[int], None] | None = None,
    ) -> None:
        """Takes the attributes and two functions.

        `release` takes the memory back; it must not refer to this object, which then would never
        go. `wait` makes the stream that it is given wait for the content, and may be left out
        where the content is complete by now.
        """
        self.pointer = pointer
        self.shape = tuple(shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.device = device
        self.stream = stream
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self._wait = wait
        # Not at exit: an array of another library may still use the memory, and CUDA may be gone.
        weakref.finalize(self, release).atexit = False

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": None,
            "stream": self.stream or _LEGACY_DEFAULT_STREAM,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.dlpack_device_type, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        if copy:
            raise BufferError("a device frame is handed over without a copy: copy it afterwards")
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(
                f"a device frame on DLPack device {self.__dlpack_device__()} was asked for on "
                f"{tuple(dl_device)}: take it where it is and move it afterwards"
            )
        self._let_wait(stream)
        # NumPy makes the capsule, for its destructor and deleter are C: they may be called while
        # an exception is on its way and after the interpreter is gone, ctypes callbacks may not.
        # It describes the memory without reading it, so only the device is left to correct.
        described = self.__cuda_array_interface__
        alias = np.asarray(SimpleNamespace(__array_interface__=described, held=self))
        versioned = max_version is not None and max_version >= (1, 0)
        capsule = _capsule_from(alias) if versioned else alias.__dlpack__()
        tensor = _managed_tensor(capsule)[1].tensor
        tensor.device_type, tensor.device_id = self.__dlpack_device__()
        return capsule

    def _let_wait(self, stream: int | None) -> None:
        """Makes a consumer's stream, as DLPack writes it, wait for the content."""
        if stream == 0:
            raise BufferError("DLPack forbids stream 0: give 1 for the legacy default stream")
        if self._wait is None or stream == _NO_SYNCHRONISATION:
            return
        handle = 0 if stream is None or stream == _LEGACY_DEFAULT_STREAM else stream
        if handle != self.stream:
            self._wait(handle)


def _view_from_interface(interface: dict[str, Any], owner: object, what: str) -> DeviceView:
    version, stream = interface["version"], interface.get("stream")
    if version not in (2, 3):
        raise FrameError(
            f"{what} has __cuda_array_interface__ version {version}, not 2 or 3: "
            "use another release of the library that made it"
        )
    if interface.get("mask") is not None:
        raise FrameError(f"{what} has a mask: fill the gaps and give a plain array")
    if stream == 0:
        raise FrameError(
            f"{what} names stream 0, which __cuda_array_interface__ forbids: "
            "name 1 for the legacy default stream"
        )
    dtype = _supported(_TYPESTRS.get(interface["typestr"], interface["typestr"]), what)
    pointer, shape = interface["data"][0], tuple(interface["shape"])
    _check_layout(pointer, shape, interface.get("strides"), dtype.itemsize, what)
    stream = 0 if stream == _LEGACY_DEFAULT_STREAM else stream
    return DeviceView(pointer, shape, dtype, None, stream, owner)


def _is_on_gpu_by_dlpack(value: Any) -> bool:
    try:
        return value.__dlpack_device__()[0] in (_CUDA, _CUDA_MANAGED)
    except Exception:  # It has none, or is on a device that DLPack has no number for.
        return False


def _capsule_from(exporter: Any, **asked: int) -> Any:
    try:
        return exporter.__dlpack__(max_version=(1, 0), **asked)
    except TypeError:  # From before DLPack 1.0, for example NumPy 2.0.
        return exporter.__dlpack__(**asked)


def _view_from_capsule(capsule: Any, what: str) -> DeviceView:
    """Consumes a capsule; one that is refused keeps what it holds and frees it itself."""
    name, managed = _managed_tensor(capsule)
    if name == b"dltensor_versioned" and managed.major != 1:
        raise FrameError(
            f"{what} comes as DLPack {managed.major}.{managed.minor}, not 1: "
            "use another release of the library that made it"
        )
    tensor = managed.tensor
    code, lanes = tensor.code, f"x{tensor.lanes}" if tensor.lanes != 1 else ""
    kind = _DLPACK_CODES[code] if code < len(_DLPACK_CODES) else f"DLPack type {code}, bits "
    dtype = _supported(f"{kind}{tensor.bits}{lanes}", what)
    shape = tuple(tensor.shape[: tensor.ndim])
    elements = tensor.strides[: tensor.ndim] if tensor.strides else ()
    strides = [stride * dtype.itemsize for stride in elements]
    _check_layout(tensor.data, shape, strides, dtype.itemsize, what)
    pointer = tensor.data + tensor.byte_offset
    device = None if tensor.device_type == _CUDA_MANAGED else tensor.device_id
    _set_capsule_name(capsule, _USED[name])
    return DeviceView(pointer, shape, dtype, device, None, _ConsumedTensor(managed))


class _ConsumedTensor:
    """Holds a consumed DLPack tensor: the exporter's deleter runs with the last reference."""

    def __init__(self, managed: Any) -> None:
        if managed.deleter is not None:
            deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(managed.deleter)
            weakref.finalize(self, deleter, ctypes.addressof(managed)).atexit = False


def _supported(name: str, what: str) -> np.dtype[Any]:
    if name not in _DTYPES:
        raise FrameError(f"{what} is {name}: frames on the GPU are {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _check_layout(
    pointer: int | None,
    shape: tuple[int, ...],
    strides: Sequence[int] | None,
    itemsize: int,
    what: str,
) -> None:
    """Refuses what is empty, nowhere or not C-contiguous; `strides` in bytes, none if dense."""
    if any(side < 1 for side in shape):
        raise FrameError(f"{what} has shape {shape}: every side is 1 or more")
    if not pointer:
        raise FrameError(f"{what} has a null pointer: give an array that has its memory")
    strides, dense = tuple(strides or ()), itemsize
    for side, stride in zip(reversed(shape), reversed(strides), strict=False):
        if side > 1 and stride != dense:
            raise FrameError(
                f"{what} is a view with strides {strides} in bytes: make it contiguous first"
            )
        dense *= side


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),  # In elements.
        ("byte_offset", ctypes.c_uint64),
    )


_MANAGER = (("manager_ctx", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _DLManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", _DLTensor), *_MANAGER)


class _DLManagedTensorVersioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        *_MANAGER,
        ("flags", ctypes.c_uint64),
        ("tensor", _DLTensor),
    )


_LAYOUTS = {b"dltensor_versioned": _DLManagedTensorVersioned, b"dltensor": _DLManagedTensor}
# A capsule points to its name and does not keep it: these live as long as the module.
_USED = {name: b"used_" + name for name in _LAYOUTS}


def _capsule_function(name: str, result: type) -> Any:
    # A prototype of its own: types that are set on ctypes.pythonapi are everybody's.
    prototype = ctypes.PYFUNCTYPE(result, ctypes.py_object, ctypes.c_char_p)
    return prototype((name, ctypes.pythonapi))


_is_capsule = _capsule_function("PyCapsule_IsValid", ctypes.c_int)
_capsule_pointer = _capsule_function("PyCapsule_GetPointer", ctypes.c_void_p)
_set_capsule_name = _capsule_function("PyCapsule_SetName", ctypes.c_int)


def _managed_tensor(capsule: Any) -> tuple[bytes, Any]:
    """The name of a capsule, and the structure that it points to."""
    for name, layout in _LAYOUTS.items():
        if _is_capsule(capsule, name):
            return name, layout.from_address(_capsule_pointer(capsule, name))
    raise BufferError(f"{capsule!r} is no unused DLPack capsule")
