"""NVIDIA Triton Inference Server: the same model, served; `export.triton` makes its repository.

    Interpolator.open("triton://host:8001/ifrnet_small")
    Interpolator.open("triton://localhost:8001/ifrnet_small?shared_memory=system")

Requests go by gRPC. The model's self-description comes from the server, out of the parameters in
its configuration.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from runtime.backends.base import OpenOptions
from runtime.backends.cuda.arrays import DeviceFrame, DeviceView
from runtime.backends.triton.address import Address
from runtime.backends.triton.requests import (
    Answer,
    ResultImage,
    SentImage,
    ServedImage,
    client_errors,
)
from runtime.backends.triton.shared_memory import CudaMemory, SharedMemory, Slot, SystemMemory
from runtime.errors import BackendError, ModelError
from runtime.model_info import ModelInfo

_IN_FLIGHT = 2
"""Pairs that are best under way at a time: one travels while the other is computed."""

_TYPES = {"uint8": ("UINT8", "TYPE_UINT8"), "float32": ("FP32", "TYPE_FP32")}
"""Names of a type in a request and in a configuration."""


class Port(NamedTuple):
    """An input or an output as a configuration of Triton says it.

    Attributes:
        type: For example "TYPE_UINT8".
        dims: Without the axis that Triton batches along; -1 where free.
    """

    type: str
    dims: tuple[int, ...]


def served_ports(info: ModelInfo) -> dict[str, Port]:
    """The inputs and the output in the configuration of a model, by name, inputs first."""
    first = 1 if info.max_pairs else 0  # Triton batches along a free first axis.
    return {
        name: Port(_TYPES[port.dtype][1], port.dims[first:]) for name, port in info.ports().items()
    }


class TritonBackend:
    """A model on a server. Frames are arrays on this host.

    Args:
        client: Of tritonclient.grpc.
        address: Where the model is.
        info: What it is.
        name: See `Backend.name`.
        memory: None where frames are sent.
        in_flight: See `Backend.lookahead`.
    """

    def __init__(
        self,
        client: Any,
        address: Address,
        info: ModelInfo,
        name: str,
        memory: SharedMemory | None,
        *,
        in_flight: int,
    ) -> None:
        self.name = name
        self.info = info
        self.lookahead = in_flight
        self._client = client
        self._address = address
        self._memory = memory
        self._lock = threading.Lock()  # The client is for one thread at a time.
        self._under_way: set[Answer] = set()
        # Of these the server may still read and write the slots: they are not used again.
        self._failed: list[Answer] = []

    def put(self, image: NDArray[Any]) -> SentImage:
        """See `Backend.put`."""
        with self._lock, self._errors():
            return SentImage(image, self._filled([image]))

    def submit(
        self, pairs: Sequence[tuple[ServedImage, ServedImage]], timestep: NDArray[np.float32]
    ) -> list[ResultImage]:
        """See `Backend.submit`. Waits for images of requests that are still under way."""
        import tritonclient.grpc as grpc

        with self._errors():
            for image in (image for pair in pairs for image in pair):
                if isinstance(image, ResultImage):
                    image.answer.wait(self._address.timeout)
        with self._lock, self._errors():
            held: list[object] = []
            inputs = [
                self._input(grpc, name, [pair[k] for pair in pairs], held)
                for k, name in enumerate(("img0", "img1"))
            ]
            times = grpc.InferInput("timestep", list(timestep.shape), "FP32")
            times.set_data_from_numpy(timestep)
            output = grpc.InferRequestedOutput("imgt")
            one = (1, *pairs[0][0].shape[1:])
            slot = None
            if self._memory is not None:
                slot = self._memory.take((len(timestep), *one[1:]), self._dtype)
                output.set_shared_memory(slot.name, slot.nbytes)
            answer = Answer([*held, *pairs], slot, self._ended)
            self._under_way.add(answer)
            try:
                self._open_client().async_infer(
                    self._address.model,
                    [*inputs, times],
                    answer.arrived,
                    model_version=self._address.version,
                    outputs=[output],
                    client_timeout=self._address.timeout,
                )
            except BaseException:
                self._under_way.discard(answer)  # It was never sent.
                raise
        return [ResultImage(answer, row, one) for row in range(len(timestep))]

    def download(self, image: ServedImage) -> Callable[[], NDArray[Any]]:
        """See `Backend.download`."""

        def wait() -> NDArray[Any]:
            with self._errors():
                return self._array(image)

        return wait

    def put_device(self, view: DeviceView, stream: int) -> NoReturn:
        """See `Backend.put_device`."""
        del view, stream
        raise BackendError(
            f"{self.name} takes frames in host memory: copy them there, or open the engine itself"
        )

    def hand_over(self, image: object, stream: int) -> DeviceFrame:
        """See `Backend.hand_over`."""
        del image, stream
        raise BackendError(f"{self.name} gives frames in host memory")

    def close(self) -> None:
        """See `Backend.close`. Waits for requests that are under way."""
        with self._lock:
            client, self._client = self._client, None
            if client is None:
                return
            for answer in list(self._under_way):  # The server may still write into shared memory.
                answer.settle(self._address.timeout)
            if self._memory is not None:
                self._memory.close()
            self._failed.clear()
            client.close()

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype(self.info.layout.dtype)

    def _ended(self, answer: Answer) -> None:
        """Called by the client's thread."""
        self._under_way.discard(answer)
        if answer.failed and answer.slot is not None:
            self._failed.append(answer)

    def _open_client(self) -> Any:
        if self._client is None:
            raise BackendError("the model is closed: open it again")
        return self._client

    def _filled(self, arrays: Sequence[NDArray[Any]]) -> Slot | None:
        self._open_client()
        if self._memory is None:
            return None
        shape = (len(arrays), *arrays[0].shape[1:])
        slot = self._memory.take(shape, self._dtype)
        slot.write(arrays)
        return slot

    def _array(self, image: ServedImage) -> NDArray[Any]:
        """An image as a new array, (1, ...), or as it was put."""
        if isinstance(image, SentImage):
            return image.array
        result = image.answer.wait(self._address.timeout)
        if image.answer.slot is None:
            rows: NDArray[Any] = result.as_numpy("imgt")
        else:
            shape = result.get_output("imgt").shape
            return image.answer.slot.read(shape, self._dtype, image.row)
        return np.array(rows[image.row : image.row + 1])

    def _input(
        self, grpc: Any, name: str, images: Sequence[ServedImage], held: list[object]
    ) -> Any:
        """img0 or img1 of a request."""
        first = images[0]
        shape = [len(images), *first.shape[1:]]
        entry = grpc.InferInput(name, shape, _TYPES[self._dtype.name][0])
        if self._memory is None:
            arrays = [self._array(image) for image in images]
            entry.set_data_from_numpy(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))
            return entry
        slot: Slot | None
        offset = 0
        if len(images) > 1:  # They must lie one behind the other.
            slot = self._filled([self._array(image) for image in images])
        elif isinstance(first, SentImage):
            slot = first.slot
        else:
            slot = first.answer.slot
            offset = first.row * math.prod(first.shape) * self._dtype.itemsize
        assert slot is not None  # There is one wherever there is shared memory.
        held.append(slot)
        nbytes = math.prod(shape) * self._dtype.itemsize
        entry.set_shared_memory(slot.name, nbytes, offset)
        return entry

    def _errors(self) -> AbstractContextManager[None]:
        return client_errors(self._address)


def open_model(url: str, options: OpenOptions) -> TritonBackend:
    """Finds a served model.

    Raises:
        ModelError: If the address is none, or what is served there is not a model of ours.
        BackendError: If tritonclient is not installed, no server answers, or it lacks the model.
    """
    address = Address.parse(url)
    for name in ("threads", "cuda_graph", "precision", "cache", "io_binding"):
        options.refuse(name, "is the server's to choose: leave it out with triton://")
    if address.memory != "cuda":
        options.refuse("device", "is for ?shared_memory=cuda: leave it out with triton://")
    try:
        import tritonclient.grpc as grpc
    except ImportError as error:
        raise BackendError(
            "Triton's client is not installed: pip install ifrnet-deploy[triton]"
        ) from error
    client = grpc.InferenceServerClient(address.server)
    try:
        with client_errors(address):
            _check_served(client, address)
            config = client.get_model_config(address.model, address.version).config
            server = client.get_server_metadata()
            info = _described(config, address)
            memory = _memory(client, address, options)
    except BaseException:
        client.close()
        raise
    return TritonBackend(
        client,
        address,
        info,
        f"triton {server.version} {address.server}",
        memory,
        in_flight=options.streams or _IN_FLIGHT,
    )


def _check_served(client: Any, address: Address) -> None:
    """Names what there is where the model is not."""
    if client.is_model_ready(address.model, address.version):
        return
    index = client.get_model_repository_index().models
    there = ", ".join(sorted({model.name for model in index if model.state == "READY"}))
    version = f" version {address.version}" if address.version else ""
    raise BackendError(
        f"Triton at {address.server} does not serve {address.model}{version}: it has "
        f"{there or 'no model that is ready'}"
    )


def _described(config: Any, address: Address) -> ModelInfo:
    """What the parameters of a configuration say, if its inputs and output agree."""
    source = f"{address.model} at {address.server}"
    properties = {key: value.string_value for key, value in config.parameters.items()}
    info = ModelInfo.from_properties(properties, source=source)
    types = config.DESCRIPTOR.fields_by_name["input"].message_type.fields_by_name["data_type"]
    found = {
        port.name: Port(
            types.enum_type.values_by_number[port.data_type].name, tuple(map(int, port.dims))
        )
        for port in (*config.input, *config.output)
    }
    if found != served_ports(info):
        raise ModelError(
            f"{source} has {found}, its parameters promise {served_ports(info)}: make its "
            "repository again with python -m export.triton"
        )
    return info


def _memory(client: Any, address: Address, options: OpenOptions) -> SharedMemory | None:
    if address.memory == "system":
        return SystemMemory(client)
    if address.memory == "cuda":
        device = options.cuda_device()
        if device is None:
            raise BackendError("device='cpu' came with ?shared_memory=cuda: use cuda or cuda:N")
        try:
            return CudaMemory(client, device)
        except (ImportError, RuntimeError) as error:  # RuntimeError where cuda-python is missing.
            raise BackendError(
                "?shared_memory=cuda needs cuda-python: pip install 'tritonclient[cuda]'"
            ) from error
    return None
