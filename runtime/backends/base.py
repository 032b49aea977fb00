"""The interface that all backends have, and the options that a model is opened with."""

from __future__ import annotations

import importlib
import importlib.util
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from runtime.backends.cuda.arrays import DeviceFrame, DeviceView
from runtime.errors import BackendError
from runtime.model_info import ModelInfo

BackendName = Literal["onnxruntime", "openvino", "tensorrt", "triton"]
InferencePrecision = Literal["fp32", "bf16", "fp16"]
"""What convolutions are computed in, whatever the model's own precision is."""

NO_CACHE = "none"

SERVED = "triton://"
"""What the address of a served model begins with; anything else is a file."""

Image = Any
"""One image where the backend computes: an array on the host, or an object of the backend's."""


class Backend(Protocol):
    """A loaded model.

    Work is queued by `put`, `submit` and `download`, and waited for by calling what `download`
    returned. An image may go into any number of calls, and what `submit` made may go into the
    next: it need not come down in between.

    Attributes:
        name: For messages and reports, for example "onnxruntime cpu".
        info: The model's self-description.
        lookahead: Pairs that are best queued before the first is waited for; 0 where `submit`
            computes at once.
    """

    name: str
    info: ModelInfo
    lookahead: int

    def put(self, image: NDArray[Any]) -> Image:
        """Brings an image to where it is computed.

        Args:
            image: C-contiguous, a batch of one, as the model's I/O kind says. A backend on the
                host may keep it: it must not change while it is in use.
        """
        ...

    def submit(
        self, pairs: Sequence[tuple[Image, Image]], timestep: NDArray[np.float32]
    ) -> list[Image]:
        """Queues one call of the model.

        Args:
            pairs: As many as the model's `pairs_per_call`, all of one size.
            timestep: float32 (B, 1, 1, 1), B as the model's `frames_per_call`.

        Returns:
            B images.

        Raises:
            BackendError: If the inference fails.
        """
        ...

    def download(self, image: Image) -> Callable[[], NDArray[Any]]:
        """Queues the way back; what is returned waits and gives a new array, a batch of one.

        Raises:
            BackendError: If the inference failed; also from the returned function.
        """
        ...

    def put_device(self, view: DeviceView, stream: int) -> Image:
        """Takes an image on the GPU as it is, (H, W, 3), ready on the caller's `stream`.

        Raises:
            BackendError: If the backend does not compute there.
        """
        ...

    def hand_over(self, image: Image, stream: int) -> DeviceFrame:
        """Gives an image to the caller, whose `stream` waits for it. No copy.

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

    @abstractmethod
    def run(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[Any]:
        """Runs the model on (N, ...) images; returns a new array of B images."""

    def put(self, image: NDArray[Any]) -> NDArray[Any]:
        """See `Backend.put`."""
        return image

    def submit(
        self,
        pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]],
        timestep: NDArray[np.float32],
    ) -> list[NDArray[Any]]:
        """See `Backend.submit`."""
        img0, img1 = (
            pairs[0][k] if len(pairs) == 1 else np.concatenate([pair[k] for pair in pairs])
            for k in (0, 1)
        )
        made = self.run(img0, img1, timestep)
        return [made[k : k + 1] for k in range(len(made))]

    def download(self, image: NDArray[Any]) -> Callable[[], NDArray[Any]]:
        """See `Backend.download`."""
        return lambda: image

    def put_device(self, view: DeviceView, stream: int) -> NoReturn:
        """See `Backend.put_device`."""
        del view, stream
        raise BackendError(
            f"{self.name} takes frames in host memory: copy them there, "
            "or build a TensorRT engine, which takes them on the GPU"
        )

    def hand_over(self, image: NDArray[Any], stream: int) -> NoReturn:
        """See `Backend.hand_over`."""
        del image, stream
        raise BackendError(f"{self.name} keeps its images in host memory")


@dataclass(frozen=True)
class OpenOptions:
    """How a model is opened; None stands for the backend's own choice.

    Attributes:
        device: "cpu", "cuda" or "cuda:N".
        threads: Processors to use.
        streams: Inferences at the same time.
        cuda_graph: Replay recorded launches.
        precision: What convolutions are computed in.
        cache: Folder of compiled models; "none": none is read or written.
        io_binding: Images stay on the device of ONNX Runtime from call to call.
    """

    device: str | None = None
    threads: int | None = None
    streams: int | None = None
    cuda_graph: bool | None = None
    precision: InferencePrecision | None = None
    cache: str | None = None
    io_binding: bool | None = None

    def __post_init__(self) -> None:
        if self.device is not None and not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise BackendError(f"device {self.device!r} is unknown: use cpu, cuda or cuda:N")
        for name, meaning in (("threads", "all processors"), ("streams", "one")):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BackendError(f"{name} is {value}: use 1 or more, or None for {meaning}")
        if self.precision not in (None, *get_args(InferencePrecision)):
            raise BackendError(
                f"precision {self.precision!r} is unknown: use one of "
                f"{', '.join(get_args(InferencePrecision))}"
            )

    def cuda_device(self) -> int | None:
        """Index of the GPU; None for a processor."""
        if self.device == "cpu":
            return None
        return int((self.device or "cuda").partition(":")[2] or 0)

    def refuse(self, name: str, why: str) -> None:
        """Refuses an option that the backend does not have.

        Raises:
            BackendError: If it was given.
        """
        if getattr(self, name) is not None:
            raise BackendError(f"{name}={getattr(self, name)} {why}")


def __getattr__(name: str) -> Any:
    """`open_backend`, for a model.py that an earlier version copied into a Triton repository."""
    if name == "open_backend":
        return importlib.import_module("runtime.backends.registry").open_backend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
