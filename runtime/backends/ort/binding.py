"""I/O binding: ONNX Runtime with its images on the device that computes.

An image goes up once, though two pairs read it, and an image that recursion makes goes into the
next call without coming down. ONNX Runtime's `run` takes and gives arrays on the host instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from runtime.backends.cuda.arrays import DeviceView
from runtime.backends.ort.cuda_provider import reason
from runtime.errors import BackendError
from runtime.model_info import ModelInfo


class Batch:
    """Images that lie together, on the host, on the device, or on both.

    Args:
        host: (B, ...) on the host.
        device: The same as an OrtValue.
        session: That whose memory `device` lies in; it lives as long as its memory is used.
    """

    def __init__(
        self, host: NDArray[Any] | None = None, device: Any = None, session: Any = None
    ) -> None:
        self.device = device
        self._host = host
        self._session = session

    def on_host(self) -> NDArray[Any]:
        """All images; they come down once."""
        if self._host is None:
            self._host = self.device.numpy()
        return self._host


@dataclass(frozen=True)
class BoundImage:
    """One image of a batch."""

    batch: Batch
    row: int = 0

    def on_host(self) -> NDArray[Any]:
        """A batch of one on the host."""
        return self.batch.on_host()[self.row : self.row + 1]


class BoundBackend:
    """One ONNX Runtime session with I/O binding; see `Backend`.

    `submit` waits for the result, as ONNX Runtime does, so that nothing is queued ahead. Calls may
    come from several threads at once.

    Args:
        ort: The module onnxruntime.
        session: Made for `device`.
        info: The model's self-description.
        device: "cuda" or "cuda:N"; "cpu", where all this gains nothing, runs the same code.
    """

    lookahead = 0

    def __init__(self, ort: Any, session: Any, info: ModelInfo, *, device: str) -> None:
        self.name = f"onnxruntime {device}"
        self.info = info
        self._ort = ort
        self._session = session
        kind, _, index = device.partition(":")
        self._device = (kind, int(index or 0))

    def put(self, image: NDArray[Any]) -> BoundImage:
        """See `Backend.put`."""
        with self._open_session():
            if self.info.pairs_per_call > 1:
                # ONNX Runtime copies whole values only, and a batch is one value: its images are
                # laid together on the host and go up with the call, in one copy. On the device it
                # would take another model to concatenate, or CUDA itself as with TensorRT.
                return BoundImage(Batch(host=image))
            return BoundImage(Batch(device=self._up(image)))

    def submit(
        self, pairs: Sequence[tuple[BoundImage, BoundImage]], timestep: NDArray[np.float32]
    ) -> list[BoundImage]:
        """See `Backend.submit`."""
        with self._open_session() as session:
            binding = session.io_binding()
            for side, name in enumerate(("img0", "img1")):
                value = self._together([pair[side] for pair in pairs])
                binding.bind_ortvalue_input(name, value)
            # Where the time step is needed is the session's choice.
            binding.bind_cpu_input("timestep", timestep)
            binding.bind_output("imgt", *self._device)
            # Copies of inputs are queued only, and the streams of a session wait for no other.
            binding.synchronize_inputs()
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            made = Batch(device=binding.get_outputs()[0], session=session)
            return [BoundImage(made, row) for row in range(len(timestep))]

    def download(self, image: BoundImage) -> Callable[[], NDArray[Any]]:
        """See `Backend.download`. The copy is made here and waited for."""
        with self._open_session():
            down = image.on_host()
        return lambda: down

    def put_device(self, view: DeviceView, stream: int) -> NoReturn:
        """See `Backend.put_device`."""
        del view, stream
        raise BackendError(
            f"{self.name} takes frames in host memory: copy them there, "
            "or build a TensorRT engine, which takes them on the GPU"
        )

    def hand_over(self, image: BoundImage, stream: int) -> NoReturn:
        """See `Backend.hand_over`."""
        del image, stream
        raise BackendError(
            f"{self.name} gives frames in host memory: build a TensorRT engine, which gives them "
            "on the GPU"
        )

    def close(self) -> None:
        """See `Backend.close`."""
        self._session = None

    def _up(self, array: NDArray[Any]) -> Any:
        """An OrtValue on the device, complete when this returns. On a CPU the array itself."""
        return self._ort.OrtValue.ortvalue_from_numpy(array, *self._device)

    def _together(self, images: Sequence[BoundImage]) -> Any:
        """One value of all images, on the device."""
        first = images[0]
        if len(images) > 1:
            return self._up(np.concatenate([image.on_host() for image in images]))
        if first.batch.device is not None and first.batch.device.shape()[0] == 1:
            return first.batch.device
        return self._up(first.on_host())

    @contextlib.contextmanager
    def _open_session(self) -> Iterator[Any]:
        """Gives the session; its errors are ours."""
        session = self._session
        if session is None:
            raise BackendError("the model is closed: open it again")
        try:
            yield session
        except Exception as error:  # ONNX Runtime's classes share no base but this one.
            raise BackendError(f"{self.name} failed: {reason(error)}") from error
