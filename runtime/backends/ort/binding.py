"""ONNX Runtime with I/O binding, which keeps images on the device that computes.

An image that belongs to two pairs is uploaded once, and an image that recursion computes is the
input of the next call without a download. ONNX Runtime's `run` accepts and returns host arrays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from runtime.backends.base import host_memory_error
from runtime.backends.cuda.arrays import DeviceView
from runtime.backends.ort.cuda_provider import reason
from runtime.errors import BackendError
from runtime.model_info import ModelInfo


class Batch:
    """A batch of images on the host, on the device, or on both.

    Args:
        host: The batch (B, ...) on the host; None if it is only on the device.
        device: The batch as an OrtValue; None if it is only on the host.
        session: The session that owns the memory of `device`, which must outlive it.
    """

    def __init__(
        self, host: NDArray[Any] | None = None, device: Any = None, session: Any = None
    ) -> None:
        self.device = device
        self._host = host
        self._session = session

    def on_host(self) -> NDArray[Any]:
        """The batch (B, ...) on the host; it is downloaded once."""
        if self._host is None:
            self._host = self.device.numpy()
        return self._host


@dataclass(frozen=True)
class BoundImage:
    """One image: row `row` of a batch."""

    batch: Batch
    row: int = 0

    def on_host(self) -> NDArray[Any]:
        """The image on the host, as a batch of one."""
        return self.batch.on_host()[self.row : self.row + 1]


class BoundBackend:
    """One ONNX Runtime session with I/O binding. Threads may share it.

    `submit` waits for the result, as ONNX Runtime does; nothing is queued ahead.

    Args:
        ort: The module onnxruntime.
        session: A session on `device`.
        info: Metadata of the model.
        device: "cuda" or "cuda:N"; "cpu" works too, without a gain.
    """

    lookahead = 0
    notes: Sequence[str] = ()

    def __init__(self, ort: Any, session: Any, info: ModelInfo, *, device: str) -> None:
        self.name = f"onnxruntime {device}"
        self.info = info
        self._ort = ort
        self._session = session
        kind, _, index = device.partition(":")
        self._device = (kind, int(index or 0))

    def put(self, image: NDArray[Any]) -> BoundImage:
        """Uploads an image; with several pairs per call it stays on the host until the call."""
        with self._open_session():
            if self.info.pairs_per_call > 1:
                # ONNX Runtime copies whole values only, and a batch is one value: its images are
                # concatenated on the host and uploaded with the call, in one copy. Concatenation
                # on the device would need another model, or calls of CUDA as with TensorRT.
                return BoundImage(Batch(host=image))
            return BoundImage(Batch(device=self._to_device(image)))

    def submit(
        self, pairs: Sequence[tuple[BoundImage, BoundImage]], timestep: NDArray[np.float32]
    ) -> list[BoundImage]:
        """Runs the model and waits for it; see `Backend.submit`."""
        with self._open_session() as session:
            binding = session.io_binding()
            for side, name in enumerate(("img0", "img1")):
                value = self._batch_on_device([pair[side] for pair in pairs])
                binding.bind_ortvalue_input(name, value)
            # The session chooses the device of the time step.
            binding.bind_cpu_input("timestep", timestep)
            binding.bind_output("imgt", *self._device)
            # Copies of inputs are only queued, and the streams of a session do not wait for them.
            binding.synchronize_inputs()
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            batch = Batch(device=binding.get_outputs()[0], session=session)
            return [BoundImage(batch, row) for row in range(len(timestep))]

    def download(self, image: BoundImage) -> Callable[[], NDArray[Any]]:
        """Downloads an image and waits for it; the returned function returns the array."""
        with self._open_session():
            array = image.on_host()
        return lambda: array

    def put_device(self, view: DeviceView, stream: int) -> NoReturn:
        """Raises BackendError: frames of callers are in host memory."""
        del view, stream
        raise host_memory_error(self.name)

    def export_to_stream(self, image: BoundImage, stream: int) -> NoReturn:
        """Raises BackendError: frames of callers are in host memory."""
        del image, stream
        raise host_memory_error(self.name)

    def close(self) -> None:
        """Frees the model; images that it returned stay valid."""
        self._session = None

    def _to_device(self, array: NDArray[Any]) -> Any:
        """Copies an array to an OrtValue on the device, and waits; on the CPU without a copy."""
        return self._ort.OrtValue.ortvalue_from_numpy(array, *self._device)

    def _batch_on_device(self, images: Sequence[BoundImage]) -> Any:
        """The images as one OrtValue on the device; a single image on the device is not copied."""
        first = images[0]
        if len(images) > 1:
            return self._to_device(np.concatenate([image.on_host() for image in images]))
        if first.batch.device is not None and first.batch.device.shape()[0] == 1:
            return first.batch.device
        return self._to_device(first.on_host())

    @contextlib.contextmanager
    def _open_session(self) -> Iterator[Any]:
        """Yields the session.

        Raises:
            BackendError: If the model is closed, or ONNX Runtime raises an error in the block.
        """
        session = self._session
        if session is None:
            raise BackendError("the model is closed: open it again")
        try:
            yield session
        except Exception as error:  # ONNX Runtime's errors have no other base class.
            raise BackendError(f"{self.name} failed: {reason(error)}") from error
