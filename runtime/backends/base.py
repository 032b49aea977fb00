"""The interface of all backends, and the options for opening a model."""

from __future__ import annotations

import importlib
import re
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, get_args

from runtime.errors import BackendError, counted, kind_of
from runtime.files import path_problem
from runtime.machine import available_cpus
from runtime.model_info import ModelInfo

# Commands use the names below before they need NumPy, and doctor runs where it is missing.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from runtime.backends.cuda.arrays import DeviceFrame, DeviceView

BackendName = Literal["onnxruntime", "openvino", "tensorrt", "triton"]
"""Name of a backend."""

InferencePrecision = Literal["fp32", "bf16", "fp16"]
"""Type in which convolutions are computed; independent of `ModelInfo.precision`."""

PrecisionChoice = Literal["auto", InferencePrecision]
"""An `InferencePrecision`, or "auto" for the fastest that is proved to be accurate enough."""

NO_CACHE = "none"
"""Value of `OpenOptions.cache` that turns the cache off."""

_MOST_THREADS_PER_CPU = 4
_MOST_THREADS = 16
"""Limit of threads and of streams: so many on each CPU, or on a small machine in all."""

TRITON_SCHEME = "triton://"
"""Prefix of the address of a model on a Triton server; any other model is a file."""

Image = Any
"""A batch of one image on the device of the backend: a host array, or an object of the backend."""


class Backend(Protocol):
    """A loaded model.

    `put`, `submit` and `download` queue work; the function that `download` returns waits for it.
    An image may be passed to any number of calls, and an image that `submit` returns may be passed
    to the next call without being downloaded.

    Attributes:
        name: Backend and device, for example "onnxruntime cpu".
        info: Precision, size, time steps and I/O of the model.
        lookahead: Number of pairs to queue before the caller waits for the first; 0 if `submit`
            computes at once.
        notes: Notes for the user on how it was opened, as sentences.
    """

    name: str
    info: ModelInfo
    lookahead: int
    notes: Sequence[str]

    def put(self, image: NDArray[Any]) -> Image:
        """Uploads an image to the device that computes.

        Args:
            image: A batch of one, C-contiguous, in the layout `info.layout`. A backend on the
                host may use the array itself: do not write to it while the image is in use.

        Raises:
            BackendError: If the model is closed or the device fails.
        """
        ...

    def submit(
        self, pairs: Sequence[tuple[Image, Image]], timestep: NDArray[np.float32]
    ) -> list[Image]:
        """Queues one call of the model.

        Args:
            pairs: `info.pairs_per_call` pairs of images, all of one size.
            timestep: float32 (B, 1, 1, 1) in (0, 1), B = `info.frames_per_call`.

        Returns:
            B images, in the order of `timestep`.

        Raises:
            BackendError: If the inference fails.
        """
        ...

    def download(self, image: Image) -> Callable[[], NDArray[Any]]:
        """Queues the download of an image.

        Returns:
            A function that waits, and returns the image as an array: a batch of one.

        Raises:
            BackendError: If the inference failed; also from the returned function.
        """
        ...

    def put_device(self, view: DeviceView, stream: int) -> Image:
        """Uses an image in the caller's GPU memory, without a copy.

        Args:
            view: uint8 (H, W, 3); complete once the work that is queued on `stream` is done.
            stream: A cudaStream_t as a number.

        Raises:
            FrameError: If the image does not fit the model, or is on another GPU.
            BackendError: If the backend does not compute on a GPU.
        """
        ...

    def export_to_stream(self, image: Image, stream: int) -> DeviceFrame:
        """Exports an image to the caller without a copy, and makes the caller's stream wait for it.

        Args:
            image: From `submit`.
            stream: A cudaStream_t as a number.

        Raises:
            BackendError: If the image is not on a GPU.
        """
        ...

    def close(self) -> None:
        """Frees the model. Further calls raise BackendError."""
        ...


class HostBackend(ABC):
    """A backend whose images are arrays on the host and whose `submit` computes at once."""

    name: str
    info: ModelInfo
    lookahead = 0
    notes: Sequence[str] = ()

    @abstractmethod
    def run(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[Any]:
        """Runs the model.

        Args:
            img0: N first images in the layout `info.layout`, N = `info.pairs_per_call`.
            img1: N second images.
            timestep: float32 (B, 1, 1, 1) in (0, 1), B = `info.frames_per_call`.

        Returns:
            A new array of B images.

        Raises:
            BackendError: If the model is closed or the inference fails.
        """

    def put(self, image: NDArray[Any]) -> NDArray[Any]:
        """Returns the array itself."""
        return image

    def submit(
        self,
        pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]],
        timestep: NDArray[np.float32],
    ) -> list[NDArray[Any]]:
        """Runs the model on a batch of pairs; see `Backend.submit`."""
        images = self.run(*concatenated(pairs), timestep)
        return [images[k : k + 1] for k in range(len(images))]

    def download(self, image: NDArray[Any]) -> Callable[[], NDArray[Any]]:
        """Returns a function that returns the array itself."""
        return lambda: image

    def put_device(self, view: DeviceView, stream: int) -> NoReturn:
        """Raises BackendError: images are in host memory."""
        del view, stream
        raise host_memory_error(self.name)

    def export_to_stream(self, image: object, stream: int) -> NoReturn:
        """Raises BackendError: images are in host memory."""
        del image, stream
        raise host_memory_error(self.name)


def host_memory_error(name: str) -> BackendError:
    """The error of a backend without images on the GPU.

    Args:
        name: Name of the backend.
    """
    return BackendError(
        f"{name} takes and returns frames in host memory: copy them there, or build a TensorRT "
        "engine, which takes and returns frames on the GPU"
    )


def concatenated(
    pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The first images and the second images of pairs of batches; one pair is not copied."""
    if len(pairs) == 1:
        return pairs[0]
    import numpy as np

    first, second = (np.concatenate([pair[k] for pair in pairs]) for k in (0, 1))
    return first, second


@dataclass(frozen=True)
class OpenOptions:
    """Options for opening a model; None is the default of the backend.

    Attributes:
        device: "cpu", "cuda" or "cuda:N".
        threads: Number of CPUs to use.
        streams: Number of inferences that run at the same time.
        cuda_graph: Record the launches of an inference as a CUDA graph and replay it.
        precision: Type in which convolutions are computed; "auto" is stored as None.
        cache: Folder for compiled models; "none" for no cache.
        io_binding: Keep images on the device between calls of ONNX Runtime.

    Raises:
        BackendError: If a value is invalid.
    """

    device: str | None = None
    threads: int | None = None
    streams: int | None = None
    cuda_graph: bool | None = None
    precision: PrecisionChoice | None = None
    cache: str | None = None
    io_binding: bool | None = None

    def __post_init__(self) -> None:
        device = self.device
        known = isinstance(device, str) and re.fullmatch(r"cpu|cuda(:\d+)?", device)
        if device is not None and not known:
            raise BackendError(f"device {device!r} is unknown: use cpu, cuda or cuda:N")
        for name, meaning in (("threads", "all CPUs"), ("streams", "one")):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise BackendError(f"{name} is {value!r}, {kind_of(value)}: give a whole number")
            value = int(value)  # Bindings refuse NumPy's integers.
            if value < 1:
                raise BackendError(f"{name} is {value}: use 1 or more, or None for {meaning}")
            most = max(_MOST_THREADS, _MOST_THREADS_PER_CPU * available_cpus())
            if value > most:
                raise BackendError(
                    f"{name} is {value}, this machine has {counted(available_cpus(), 'CPU')}: use "
                    f"{most} at most, or None for {meaning}"
                )
            object.__setattr__(self, name, value)
        for name in ("cuda_graph", "io_binding"):
            if not isinstance(value := getattr(self, name), bool | None):
                raise BackendError(f"{name} is {value!r}: use True, False, or None for the default")
        if self.cache == "":
            raise BackendError(f"cache is '': give a folder, or {NO_CACHE!r} for no cache")
        if self.cache is not None and (why := path_problem(self.cache)):
            raise BackendError(f"cache is {reprlib.repr(self.cache)}, {why}: give another folder")
        if self.precision not in (None, *get_args(PrecisionChoice)):
            raise BackendError(
                f"precision {self.precision!r} is unknown: use one of "
                f"{', '.join(get_args(PrecisionChoice))}"
            )
        if self.precision == "auto":
            object.__setattr__(self, "precision", None)

    def cuda_device(self) -> int | None:
        """Index of the GPU; None for the CPU."""
        if self.device == "cpu":
            return None
        return int((self.device or "cuda").partition(":")[2] or 0)

    def refuse(self, name: str, why: str) -> None:
        """Raises an error if an option is set that the backend does not support.

        Args:
            name: Name of the option.
            why: Second part of the message: the reason and the remedy.

        Raises:
            BackendError: If the option is not None.
        """
        if getattr(self, name) is not None:
            raise BackendError(f"{name}={getattr(self, name)} {why}")


def __getattr__(name: str) -> Any:
    """Finds `open_backend` for a model.py that an earlier version wrote for a Triton server."""
    if name == "open_backend":
        return importlib.import_module("runtime.backends.registry").open_backend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
