"""The backend for models that an NVIDIA Triton Inference Server serves.

    Interpolator.open("triton://host:8001/ifrnet_small")
    Interpolator.open("triton://localhost:8001/ifrnet_small?shared_memory=system")

Requests are sent by gRPC. The metadata of the model is in the parameters of its configuration on
the server, where `export.triton` writes it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from runtime.backends.base import OpenOptions, host_memory_error
from runtime.backends.cuda.arrays import DeviceView
from runtime.backends.triton.address import Address
from runtime.backends.triton.requests import (
    Response,
    ResponseImage,
    SentImage,
    TritonImage,
    check_result,
    client_errors,
    images_in,
)
from runtime.backends.triton.shared_memory import CudaMemory, Region, SharedMemory, SystemMemory
from runtime.errors import BackendError, ModelError, install_command
from runtime.model_info import ModelInfo

_IN_FLIGHT = 2
"""Default number of pairs in flight: one is sent while the other is computed."""

_LARGEST_ANSWER = 4 << 20
"""Limit of an answer without images in bytes, gRPC's default."""

_GRPC_LIMIT = 2**31 - 1
"""Limit of a message of gRPC in bytes."""

_LONGEST_TEXT = 2000
"""Limit of the characters of a server's answer in a message."""

_NAMES_SHOWN = 20
"""Number of models that a message names."""

_TYPES = {"uint8": ("UINT8", "TYPE_UINT8"), "float32": ("FP32", "TYPE_FP32")}
"""Type -> its names in a request and in a configuration."""


class ConfigPort(NamedTuple):
    """An input or an output in a model's configuration on Triton.

    Attributes:
        type: Triton's name of the type, for example "TYPE_UINT8".
        dims: The shape without the axis along which Triton batches; -1 for a free axis.
    """

    type: str
    dims: tuple[int, ...]


def config_ports(info: ModelInfo) -> dict[str, ConfigPort]:
    """The inputs and the output in the configuration of a model, by name, inputs first."""
    first = 1 if info.max_pairs else 0  # Triton batches along a free first axis.
    return {
        name: ConfigPort(_TYPES[port.dtype][1], port.dims[first:])
        for name, port in info.ports().items()
    }


class TritonBackend:
    """A model on a server. Frames are arrays on this host. Threads may share it.

    Args:
        client: An InferenceServerClient of tritonclient.grpc.
        address: Address of the model.
        info: Metadata of the model.
        name: Name of the backend, in messages and reports.
        memory: Shared memory for frames; None if requests contain them.
        in_flight: Number of pairs to queue before the caller waits for the first.
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
        self.notes: Sequence[str] = ()
        self.lookahead = in_flight
        self._client = client
        self._address = address
        self._memory = memory
        self._lock = threading.Lock()  # The client is not thread-safe.
        self._in_flight: set[Response] = set()
        # Referenced until `close`, as the server may still read and write their regions.
        self._failed: list[Response] = []

    def put(self, image: NDArray[Any]) -> SentImage:
        """Copies an image to shared memory, if that is in use; see `Backend.put`."""
        with self._lock, client_errors(self._address):
            return SentImage(image, self._region_with([image]))

    def submit(
        self, pairs: Sequence[tuple[TritonImage, TritonImage]], timestep: NDArray[np.float32]
    ) -> list[ResponseImage]:
        """Sends one request; waits for the images of earlier requests. See `Backend.submit`."""
        import tritonclient.grpc as grpc

        with client_errors(self._address):
            for image in (image for pair in pairs for image in pair):
                if isinstance(image, ResponseImage):
                    image.response.wait(self._address.timeout)
        with self._lock, client_errors(self._address):
            regions: list[object] = []
            inputs = [
                self._input(grpc, name, [pair[k] for pair in pairs], regions)
                for k, name in enumerate(("img0", "img1"))
            ]
            times = grpc.InferInput("timestep", list(timestep.shape), "FP32")
            times.set_data_from_numpy(timestep)
            output = grpc.InferRequestedOutput("imgt")
            shape = (1, *pairs[0][0].shape[1:])
            batch = (len(timestep), *shape[1:])
            region = None
            if self._memory is not None:
                region = self._memory.take(batch, self._dtype)
                output.set_shared_memory(region.name, region.nbytes)
            response = Response([*regions, *pairs], region, batch, self._on_done)
            self._in_flight.add(response)
            try:
                self._open_client().async_infer(
                    self._address.model,
                    [*inputs, times],
                    response.complete,
                    model_version=self._address.version,
                    outputs=[output],
                    client_timeout=self._address.timeout,
                )
            except BaseException:
                self._in_flight.discard(response)  # It was not sent.
                raise
        return [ResponseImage(response, row, shape) for row in range(len(timestep))]

    def download(self, image: TritonImage) -> Callable[[], NDArray[Any]]:
        """Returns a function that waits for the image; see `Backend.download`."""

        def wait() -> NDArray[Any]:
            with client_errors(self._address):
                return self._array(image)

        return wait

    def put_device(self, view: DeviceView, stream: int) -> NoReturn:
        """Raises BackendError: frames of callers are in host memory."""
        del view, stream
        raise host_memory_error(self.name)

    def export_to_stream(self, image: object, stream: int) -> NoReturn:
        """Raises BackendError: frames of callers are in host memory."""
        del image, stream
        raise host_memory_error(self.name)

    def close(self) -> None:
        """Closes the connection after the requests in flight."""
        with self._lock:
            client, self._client = self._client, None
            if client is None:
                return
            for response in list(self._in_flight):  # The server may still write into shared memory.
                response.wait_until_done(self._address.timeout)
            if self._memory is not None:
                self._memory.close()
            self._failed.clear()
            client.close()

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype(self.info.layout.dtype)

    def _on_done(self, response: Response) -> None:
        """Removes a response from those in flight; called by the client's thread."""
        self._in_flight.discard(response)
        if response.failed and response.region is not None:
            self._failed.append(response)

    def _open_client(self) -> Any:
        if self._client is None:
            raise BackendError("the model is closed: open it again")
        return self._client

    def _region_with(self, arrays: Sequence[NDArray[Any]]) -> Region | None:
        """Shared memory with a copy of the arrays; None if requests contain the frames."""
        self._open_client()
        if self._memory is None:
            return None
        shape = (len(arrays), *arrays[0].shape[1:])
        region = self._memory.take(shape, self._dtype)
        region.write(arrays)
        return region

    def _array(self, image: TritonImage) -> NDArray[Any]:
        """An image on the host: a new array (1, ...), or the array that `put` received."""
        if isinstance(image, SentImage):
            return image.array
        response = image.response
        result = response.wait(self._address.timeout)
        check_result(result, response, _TYPES[self._dtype.name][0], self._address)
        if response.region is not None:
            return response.region.read(response.shape, self._dtype, image.row)
        return np.array(images_in(result, self._address)[image.row : image.row + 1])

    def _input(
        self, grpc: Any, name: str, images: Sequence[TritonImage], regions: list[object]
    ) -> Any:
        """An InferInput for img0 or img1; the shared memory that it uses is added to `regions`."""
        first = images[0]
        shape = [len(images), *first.shape[1:]]
        entry = grpc.InferInput(name, shape, _TYPES[self._dtype.name][0])
        if self._memory is None:
            arrays = [self._array(image) for image in images]
            entry.set_data_from_numpy(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))
            return entry
        region: Region | None
        offset = 0
        if len(images) > 1:  # A batch must be contiguous.
            region = self._region_with([self._array(image) for image in images])
        elif isinstance(first, SentImage):
            region = first.region
        else:
            region = first.response.region
            offset = first.row * math.prod(first.shape) * self._dtype.itemsize
        assert region is not None  # With shared memory every image has a region.
        regions.append(region)
        nbytes = math.prod(shape) * self._dtype.itemsize
        entry.set_shared_memory(region.name, nbytes, offset)
        return entry


def open_model(url: str, options: OpenOptions) -> TritonBackend:
    """Connects to a served model.

    Raises:
        ModelError: If the address is malformed, or the model there is not from this package.
        BackendError: If tritonclient is not installed, no server answers, or it does not serve the
            model.
    """
    address = Address.parse(url)
    for name in ("threads", "cuda_graph", "precision", "cache", "io_binding"):
        options.refuse(name, "is chosen by the server: leave it out with triton://")
    if address.memory != "cuda":
        options.refuse("device", "is for ?shared_memory=cuda: leave it out with triton://")
    try:
        import tritonclient.grpc as grpc
    except ImportError as error:
        raise BackendError(
            f"Triton's client is not installed: {install_command('triton')}"
        ) from error
    client = _client(grpc, address, _LARGEST_ANSWER)
    try:
        with client_errors(address):
            timeout = address.timeout
            _check_served(client, address)
            config = client.get_model_config(
                address.model, address.version, client_timeout=timeout
            ).config
            server = client.get_server_metadata(client_timeout=timeout)
            info = _info_from(config, address)
            client.close()
            client = _client(grpc, address, _largest_result(info))
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


def _client(grpc: Any, address: Address, largest: int) -> Any:
    """A client that receives messages of at most `largest` bytes."""
    arguments = [
        ("grpc.max_send_message_length", _GRPC_LIMIT),
        ("grpc.max_receive_message_length", largest),
    ]
    return grpc.InferenceServerClient(address.server, channel_args=arguments)


def _largest_result(info: ModelInfo) -> int:
    """The size of a result, with its names, in bytes; gRPC's limit if the size is free."""
    pairs = info.max_pairs or info.frames_per_call
    if info.size is None:
        return _GRPC_LIMIT
    image = math.prod(info.size) * 3 * np.dtype(info.layout.dtype).itemsize
    return min(pairs * image + _LARGEST_ANSWER, _GRPC_LIMIT)


def _check_served(client: Any, address: Address) -> None:
    """Checks that the server serves the model.

    Raises:
        BackendError: If not; the message names the models that it serves.
    """
    timeout = address.timeout
    if client.is_model_ready(address.model, address.version, client_timeout=timeout):
        return
    index = client.get_model_repository_index(client_timeout=timeout).models
    names = sorted({model.name for model in index if model.state == "READY"})
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    ready = ", ".join(names[:_NAMES_SHOWN]) + more
    version = f" version {address.version}" if address.version else ""
    raise BackendError(
        f"Triton at {address.server} does not serve {address.model}{version}, it has "
        f"{ready or 'no model that is ready'}: load the model there, or name another one"
    )


def _info_from(config: Any, address: Address) -> ModelInfo:
    """The metadata in the parameters of a configuration, checked against its inputs and output.

    Raises:
        ModelError: If the metadata is missing or they differ, or the model has stacked I/O.
    """
    source = f"{address.model} at {address.server}"
    properties = {key: value.string_value for key, value in config.parameters.items()}
    info = ModelInfo.from_properties(properties, source=source)
    info.check_separate(source)
    types = config.DESCRIPTOR.fields_by_name["input"].message_type.fields_by_name["data_type"]
    actual = {
        port.name: ConfigPort(_name_of(types.enum_type, port.data_type), tuple(map(int, port.dims)))
        for port in (*config.input, *config.output)
    }
    if actual != config_ports(info):
        raise ModelError(
            f"{source} has {str(actual)[:_LONGEST_TEXT]}, its parameters declare "
            f"{config_ports(info)}: write its repository again with python -m export.triton"
        )
    return info


def _name_of(kind: Any, number: int) -> str:
    """The name of a value of an enumeration of protobuf; its number if it is unknown."""
    known = kind.values_by_number.get(number)
    return str(number) if known is None else str(known.name)


def _memory(client: Any, address: Address, options: OpenOptions) -> SharedMemory | None:
    if address.memory == "system":
        return SystemMemory(client, address.timeout)
    if address.memory == "cuda":
        device = options.cuda_device()
        if device is None:
            raise BackendError(
                "device='cpu' was given with ?shared_memory=cuda: use cuda or cuda:N"
            )
        try:
            return CudaMemory(client, address.timeout, device)
        except (ImportError, RuntimeError) as error:  # RuntimeError: cuda-python is missing.
            raise BackendError(
                "?shared_memory=cuda needs cuda-python: pip install 'tritonclient[cuda]'"
            ) from error
    return None
