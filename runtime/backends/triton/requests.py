"""Requests to a Triton server: their images, their responses, and the client's errors."""

from __future__ import annotations

import contextlib
import reprlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from runtime.backends.triton.address import Address
from runtime.backends.triton.shared_memory import Region, memory_errors
from runtime.errors import BackendError, first_line
from runtime.model_info import OUTPUT


class Response:
    """The response to one request, which may still be in flight.

    Args:
        inputs: Objects that own memory which the server reads until it responds.
        region: Shared memory for the result; None if the server sends it.
        shape: Shape of the batch of images that the server is to return.
        on_done: Called with this response once the request has succeeded or failed.

    Attributes:
        region: Shared memory for the result; None if the server sends it.
        shape: Shape of the batch of images that the server is to return.
    """

    def __init__(
        self,
        inputs: Sequence[object],
        region: Region | None,
        shape: tuple[int, ...],
        on_done: Callable[[Response], object],
    ) -> None:
        self.region = region
        self.shape = shape
        self._on_done = on_done
        # Not freed after an error, as the server may still read the memory.
        self._inputs: Sequence[object] = inputs
        self._done = threading.Event()
        self._result: Any = None
        self._error: Any = None

    def complete(self, result: Any, error: Any) -> None:
        """Sets the client's InferResult or its error; called by the client's thread."""
        self._result, self._error = result, error
        if error is None:
            self._inputs = ()
        self._on_done(self)
        self._done.set()

    @property
    def failed(self) -> bool:
        """Whether the request failed."""
        return self._error is not None

    def wait_until_done(self, timeout: float) -> None:
        """Waits at most `timeout` seconds until the request has succeeded or failed."""
        self._done.wait(timeout)

    def wait(self, timeout: float) -> Any:
        """Waits for the client's InferResult and returns it.

        Args:
            timeout: The client's timeout of the request, in seconds.

        Raises:
            Exception: The client's error, if the request failed.
            TimeoutError: If the client calls back neither with a result nor with an error.
        """
        # The client times out first; this one is for a client that was closed.
        if not self._done.wait(timeout + 10):
            raise TimeoutError(f"no response in {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self._result


@dataclass(frozen=True, eq=False)
class SentImage:
    """An image on the host, which each request contains or refers to in shared memory.

    Attributes:
        array: A batch of one image.
        region: Shared memory with a copy of the image; None if requests contain it.
    """

    array: NDArray[Any]
    region: Region | None

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, H, W, 3) or (1, 3, H, W)."""
        return self.array.shape


@dataclass(frozen=True, eq=False)
class ResponseImage:
    """An image in the response to a request.

    Attributes:
        response: The response with the batch of images.
        row: Index of the image in the batch.
        shape: (1, H, W, 3) or (1, 3, H, W).
    """

    response: Response
    row: int
    shape: tuple[int, ...]


TritonImage = SentImage | ResponseImage


@contextlib.contextmanager
def client_errors(address: Address) -> Iterator[None]:
    """Converts errors of Triton's client in the block to a BackendError.

    Raises:
        BackendError: If no server answers in time, the server refuses the request, or shared
            memory cannot be used.
    """
    from tritonclient.utils import InferenceServerException

    try:
        yield
    except InferenceServerException as error:
        raise BackendError(_message(error, address)) from error
    except Exception as error:
        if not isinstance(error, (*memory_errors(), TimeoutError)):
            raise
        raise BackendError(f"{address.model} at {address.server} failed: {error}") from error


def check_result(result: Any, response: Response, datatype: str, address: Address) -> None:
    """Checks that a result has the image that was asked for; a server may send anything.

    Args:
        result: The client's InferResult.
        response: The response that it is of.
        datatype: Triton's name of the type, "UINT8" or "FP32".
        address: The address of the model, for messages.

    Raises:
        BackendError: If it has no image, or one of another shape or type.
    """
    output = result.get_output(OUTPUT)
    found = None if output is None else (output.datatype, tuple(output.shape))
    if found == (datatype, response.shape):
        return
    said = "no image" if found is None else f"{found[0]} of shape {reprlib.repr(found[1])}"
    raise BackendError(
        f"Triton at {address.server} answered {address.model} with {said}, not {datatype} of "
        f"shape {response.shape}: check the server and its model"
    )


def images_in(result: Any, address: Address) -> NDArray[Any]:
    """The batch of images in a result that `check_result` has checked.

    Raises:
        BackendError: If the result has not as many bytes as it says.
    """
    try:
        images: NDArray[Any] = result.as_numpy(OUTPUT)
    except (TypeError, ValueError) as error:
        raise BackendError(
            f"Triton at {address.server} answered {address.model} with an incomplete image "
            f"({first_line(error)}): check the server and its model"
        ) from error
    return images


def _message(error: Any, address: Address) -> str:
    lines = (error.message() or "").strip().splitlines()
    reason = lines[0] if lines else "it gave no reason"
    if error.status() == "StatusCode.UNAVAILABLE":
        return (
            f"no Triton server answers at {address.server} ({reason}): start it, or give "
            "the port of its --grpc-port"
        )
    if error.status() == "StatusCode.DEADLINE_EXCEEDED":
        return (
            f"Triton at {address.server} did not answer in {address.timeout:g} s: raise the limit "
            "with ?timeout=S"
        )
    return f"Triton at {address.server} refused a request to {address.model} ({reason})"
