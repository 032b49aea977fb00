"""Requests to a Triton server: their images, their answers, and the client's errors."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from runtime.backends.triton.address import Address
from runtime.backends.triton.shared_memory import Slot, memory_errors
from runtime.errors import BackendError


class Answer:
    """The result of one request, which may still be under way.

    Args:
        held: What the server reads until it has answered.
        slot: Where the result goes in shared memory; None where it is sent.
        ended: Called with this answer once the request has succeeded or failed.

    Attributes:
        slot: See above.
    """

    def __init__(
        self, held: Sequence[object], slot: Slot | None, ended: Callable[[Answer], object]
    ) -> None:
        self.slot = slot
        self._ended = ended
        self._held: Sequence[object] = held
        self._there = threading.Event()
        self._result: Any = None
        self._error: Any = None

    def arrived(self, result: Any, error: Any) -> None:
        """Takes the client's InferResult or its error; called by the client's thread."""
        self._result, self._error = result, error
        if error is None:
            self._held = ()
        self._ended(self)
        self._there.set()

    @property
    def failed(self) -> bool:
        """Whether the request failed."""
        return self._error is not None

    def settle(self, timeout: float) -> None:
        """Waits at most `timeout` seconds until the request has succeeded or failed."""
        self._there.wait(timeout)

    def wait(self, timeout: float) -> Any:
        """Waits for the client's InferResult.

        Args:
            timeout: Seconds that the client gives the request.

        Raises:
            Exception: The client's own, if the request failed.
            TimeoutError: If nothing came.
        """
        # The client's own deadline comes first; this one is for a client that is gone.
        if not self._there.wait(timeout + 10):
            raise TimeoutError(f"no answer in {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self._result


@dataclass(frozen=True, eq=False)
class SentImage:
    """An image on the host; goes along with each request, or lies in `slot`."""

    array: NDArray[Any]
    slot: Slot | None

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, H, W, 3) or (1, 3, H, W)."""
        return self.array.shape


@dataclass(frozen=True, eq=False)
class ResultImage:
    """An image that a request makes: row `row` of its answer."""

    answer: Answer
    row: int
    shape: tuple[int, ...]


ServedImage = SentImage | ResultImage


@contextlib.contextmanager
def client_errors(address: Address) -> Iterator[None]:
    """Turns what Triton's client raises inside into a BackendError of one sentence.

    Raises:
        BackendError: If no server answers in time, or it refuses the request, or shared memory
            cannot be used.
    """
    from tritonclient.utils import InferenceServerException

    try:
        yield
    except InferenceServerException as error:
        raise BackendError(_reason(error, address)) from error
    except Exception as error:
        if not isinstance(error, (*memory_errors(), TimeoutError)):
            raise
        raise BackendError(f"{address.model} at {address.server}: {error}") from error


def _reason(error: Any, address: Address) -> str:
    said = (error.message() or "").strip().splitlines()
    reason = said[0] if said else "it gave no reason"
    if error.status() == "StatusCode.UNAVAILABLE":
        return (
            f"no Triton server answers at {address.server} ({reason}): start it, or give "
            "the port of its --grpc-port"
        )
    if error.status() == "StatusCode.DEADLINE_EXCEEDED":
        return (
            f"Triton at {address.server} did not answer in {address.timeout:g} s: give it "
            "longer with ?timeout=S"
        )
    return f"Triton at {address.server} refused {address.model} ({reason})"
