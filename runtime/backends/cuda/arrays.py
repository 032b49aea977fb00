"""Imports GPU arrays of other libraries and exports frames on the GPU, without copies.

The protocols are `__cuda_array_interface__` (CAI, versions 2 and 3) and DLPack. Nothing here calls
CUDA. Streams are cudaStream_t handles as numbers: 0 is the legacy default stream, 2 the default
stream of the thread. Both protocols write the legacy default stream as 1; this module converts it.
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
from runtime.frames import MINIMUM_SIDE

_LEGACY_DEFAULT_STREAM = 1  # As both protocols write it; 0 is forbidden in both.
_NO_SYNCHRONISATION = -1
_CUDA, _CUDA_MANAGED = 2, 13  # DLDeviceType
_DTYPES = {name: np.dtype(name) for name in ("uint8", "uint16", "float16", "float32")}
_TYPESTRS = {"|u1": "uint8", "<u1": "uint8", "<u2": "uint16", "<f2": "float16", "<f4": "float32"}
_DLPACK_CODES = ("int", "uint", "float", "handle", "bfloat", "complex", "bool")  # DLDataTypeCode


@dataclass(frozen=True)
class DeviceView:
    """An array in GPU memory of another library: C-contiguous and not empty.

    Attributes:
        pointer: Address of the first element on the device.
        shape: Number of elements along each axis, 1 or more.
        dtype: uint8, uint16, float16 or float32.
        device: Index of the GPU; None if the exporter does not declare it.
        stream: The stream that writes the content; None if the content is ordered with the argument
            `stream` of `device_view`.
        owner: The object that keeps the memory alive.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: int | None
    stream: int | None
    owner: object


def is_device_array(value: object) -> bool:
    """Whether an object exports memory on a GPU through CAI or DLPack. Never raises."""
    # PyTorch raises for a tensor that requires grad; its DLPack device is available all the same.
    with contextlib.suppress(Exception):
        if getattr(value, "__cuda_array_interface__", None) is not None:
            return True
    return _is_on_gpu_by_dlpack(value)


def device_pair(frame0: object, frame1: object, *, stream: int) -> tuple[DeviceView, DeviceView]:
    """Views of two frames on a GPU; see `device_view`.

    Args:
        frame0: RGB (H, W, 3), at least 16x16.
        frame1: The next frame, of the same size and type.
        stream: The stream that will read the content.

    Raises:
        FrameError: If one is not such a frame, or they do not fit each other.
    """
    first = _frame_view(frame0, stream, "frame0")
    second = _frame_view(frame1, stream, "frame1")
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        raise FrameError(
            f"frame0 is {first.dtype} {first.shape}, frame1 is {second.dtype} "
            f"{second.shape}: both frames of a pair have one size and one type"
        )
    return first, second


def _frame_view(frame: object, stream: int, name: str) -> DeviceView:
    view = device_view(frame, stream=stream, name=name)
    if len(view.shape) != 3 or view.shape[2] != 3 or min(view.shape[:2]) < MINIMUM_SIDE:
        raise FrameError(
            f"{name} has shape {view.shape}: expected RGB (H, W, 3), at least "
            f"{MINIMUM_SIDE}x{MINIMUM_SIDE}"
        )
    return view


def device_view(array: object, *, stream: int, name: str) -> DeviceView:
    """A view of a GPU array of any library, through CAI if it supports that, else through DLPack.

    Args:
        array: The array, for example of PyTorch, CuPy or Numba, or a `DeviceFrame`.
        stream: The stream that will read the content. A DLPack exporter makes it wait for the
            content; a CAI exporter that names no stream (PyTorch) must have queued its work there.
        name: Name of the array in error messages, for example "frame0".

    Raises:
        FrameError: If the array is not on a GPU, not C-contiguous, empty, masked, of a type that
            `DeviceView` does not have, or cannot be exported.
    """
    try:
        interface = getattr(array, "__cuda_array_interface__", None)
        if interface is not None:
            return _view_from_interface(interface, array, name)
        if _is_on_gpu_by_dlpack(array):
            capsule = _capsule_from(array, stream=stream or _LEGACY_DEFAULT_STREAM)
            return _view_from_capsule(capsule, name)
    except (BufferError, RuntimeError) as error:
        raise FrameError(
            f"{name} cannot be exported ({error}): call detach() if it requires grad"
        ) from error
    raise FrameError(f"{name} is a {type(array).__name__}, not on a GPU: give an array on a GPU")


class DeviceFrame:
    """A frame on the GPU, for any library with `__cuda_array_interface__` (CAI) or DLPack.

    The memory is valid for as long as this object, or an array that shares its memory, exists: a
    DLPack consumer, an unconsumed capsule and the arrays of CAI consumers such as
    `torch.as_tensor` and `cupy.asarray` hold a reference to this object. When the last reference
    is dropped, `release` is called once, on the thread that drops it. It is not called at exit.

    The work that fills the frame is queued on `stream`. Use the frame on that stream, or through a
    protocol, which makes the consumer's stream wait. `torch.as_tensor` does not wait: if PyTorch's
    current stream is another one, use `torch.from_dlpack`.

    Attributes:
        pointer: Address of the first element on the device.
        shape: (H, W, 3).
        dtype: Type of the elements, which are C-contiguous.
        device: Index of the GPU.
        stream: The cudaStream_t, as a number, on which the content is ready.
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
        """Wraps GPU memory.

        Args:
            pointer: Address of the first element on the device.
            shape: (H, W, 3).
            dtype: Type of the elements.
            device: Index of the GPU.
            stream: The stream on which the content is ready.
            release: Frees the memory. It must not refer to this object, which then would never be
                collected.
            wait: Makes a stream wait for the content; None if the content is complete.
        """
        self.pointer: int = pointer
        self.shape: tuple[int, ...] = tuple(shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.device: int = device
        self.stream: int = stream
        self.nbytes: int = math.prod(self.shape) * self.dtype.itemsize
        self._wait = wait
        # Not at exit: an array of another library may still use the memory, and CUDA may have
        # been unloaded.
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
            raise BufferError("a device frame is exported without a copy: copy it afterwards")
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(
                f"a device frame on DLPack device {self.__dlpack_device__()} was asked for on "
                f"{tuple(dl_device)}: take it where it is and move it afterwards"
            )
        self._make_wait(stream)
        # NumPy creates the capsule, since its destructor and deleter are C functions: they may be
        # called during an exception and after the end of the interpreter, ctypes callbacks may not.
        # NumPy describes the memory without reading it; only the device has to be corrected.
        interface = self.__cuda_array_interface__
        alias = np.asarray(SimpleNamespace(__array_interface__=interface, owner=self))
        versioned = max_version is not None and max_version >= (1, 0)
        capsule = _capsule_from(alias) if versioned else alias.__dlpack__()
        tensor = _managed_tensor(capsule)[1].tensor
        tensor.device_type, tensor.device_id = self.__dlpack_device__()
        return capsule

    def _make_wait(self, stream: int | None) -> None:
        """Makes a consumer's stream, in DLPack's numbering, wait for the content."""
        if stream == 0:
            raise BufferError("DLPack forbids stream 0: give 1 for the legacy default stream")
        if self._wait is None or stream == _NO_SYNCHRONISATION:
            return
        handle = 0 if stream is None or stream == _LEGACY_DEFAULT_STREAM else stream
        if handle != self.stream:
            self._wait(handle)


def _view_from_interface(interface: dict[str, Any], owner: object, name: str) -> DeviceView:
    version, stream = interface["version"], interface.get("stream")
    if version not in (2, 3):
        raise FrameError(
            f"{name} has __cuda_array_interface__ version {version}, not 2 or 3: "
            "use another release of the library that created it"
        )
    if interface.get("mask") is not None:
        raise FrameError(f"{name} has a mask: fill the gaps and give a plain array")
    if stream == 0:
        raise FrameError(
            f"{name} has stream 0, which __cuda_array_interface__ forbids: "
            "use 1 for the legacy default stream"
        )
    dtype = _supported_dtype(_TYPESTRS.get(interface["typestr"], interface["typestr"]), name)
    pointer, shape = interface["data"][0], tuple(interface["shape"])
    _check_layout(pointer, shape, interface.get("strides"), dtype.itemsize, name)
    stream = 0 if stream == _LEGACY_DEFAULT_STREAM else stream
    return DeviceView(pointer, shape, dtype, None, stream, owner)


def _is_on_gpu_by_dlpack(value: Any) -> bool:
    try:
        return value.__dlpack_device__()[0] in (_CUDA, _CUDA_MANAGED)
    except Exception:  # It does not support DLPack, or DLPack has no number for its device.
        return False


def _capsule_from(exporter: Any, **options: int) -> Any:
    try:
        return exporter.__dlpack__(max_version=(1, 0), **options)
    except TypeError:  # From before DLPack 1.0, for example NumPy 2.0.
        return exporter.__dlpack__(**options)


def _view_from_capsule(capsule: Any, name: str) -> DeviceView:
    """Consumes a capsule; after an error it stays unconsumed and frees its tensor itself."""
    capsule_name, managed = _managed_tensor(capsule)
    if capsule_name == b"dltensor_versioned" and managed.major != 1:
        raise FrameError(
            f"{name} is exported as DLPack {managed.major}.{managed.minor}, not 1: "
            "use another release of the library that created it"
        )
    tensor = managed.tensor
    code, lanes = tensor.code, f"x{tensor.lanes}" if tensor.lanes != 1 else ""
    kind = _DLPACK_CODES[code] if code < len(_DLPACK_CODES) else f"DLPack type {code}, bits "
    dtype = _supported_dtype(f"{kind}{tensor.bits}{lanes}", name)
    shape = tuple(tensor.shape[: tensor.ndim])
    elements = tensor.strides[: tensor.ndim] if tensor.strides else ()
    strides = [stride * dtype.itemsize for stride in elements]
    _check_layout(tensor.data, shape, strides, dtype.itemsize, name)
    pointer = tensor.data + tensor.byte_offset
    device = None if tensor.device_type == _CUDA_MANAGED else tensor.device_id
    _set_capsule_name(capsule, _USED[capsule_name])
    return DeviceView(pointer, shape, dtype, device, None, _ConsumedTensor(managed))


class _ConsumedTensor:
    """Owns a consumed DLPack tensor; the exporter's deleter runs with the last reference."""

    def __init__(self, managed: Any) -> None:
        if managed.deleter is not None:
            deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(managed.deleter)
            weakref.finalize(self, deleter, ctypes.addressof(managed)).atexit = False


def _supported_dtype(dtype: str, name: str) -> np.dtype[Any]:
    if dtype not in _DTYPES:
        raise FrameError(f"{name} is {dtype}: frames on the GPU are {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def _check_layout(
    pointer: int | None,
    shape: tuple[int, ...],
    strides: Sequence[int] | None,
    itemsize: int,
    name: str,
) -> None:
    """Checks that an array is not empty, has memory, and is C-contiguous.

    Args:
        pointer: Address of its first element.
        shape: Its shape.
        strides: Its strides in bytes; None or empty if it is dense.
        itemsize: Size of an element in bytes.
        name: Name of the array in error messages.

    Raises:
        FrameError: If it is not.
    """
    if any(side < 1 for side in shape):
        raise FrameError(f"{name} has shape {shape}: every side is 1 or more")
    if not pointer:
        raise FrameError(f"{name} has a null pointer: give an array that has memory")
    strides, dense = tuple(strides or ()), itemsize
    for side, stride in zip(reversed(shape), reversed(strides), strict=False):
        if side > 1 and stride != dense:
            raise FrameError(
                f"{name} is a view with strides {strides} in bytes: make it contiguous first"
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
# A capsule points to its name and does not own it: these live as long as the module.
_USED = {name: b"used_" + name for name in _LAYOUTS}


def _capsule_function(name: str, result: type) -> Any:
    # A separate prototype: types that are set on ctypes.pythonapi are shared by the process.
    prototype = ctypes.PYFUNCTYPE(result, ctypes.py_object, ctypes.c_char_p)
    return prototype((name, ctypes.pythonapi))


_is_capsule = _capsule_function("PyCapsule_IsValid", ctypes.c_int)
_capsule_pointer = _capsule_function("PyCapsule_GetPointer", ctypes.c_void_p)
_set_capsule_name = _capsule_function("PyCapsule_SetName", ctypes.c_int)


def _managed_tensor(capsule: Any) -> tuple[bytes, Any]:
    """The name of a capsule, and the structure that it points to.

    Raises:
        BufferError: If it is not an unused DLPack capsule.
    """
    for name, layout in _LAYOUTS.items():
        if _is_capsule(capsule, name):
            return name, layout.from_address(_capsule_pointer(capsule, name))
    raise BufferError(f"{capsule!r} is not an unused DLPack capsule")
