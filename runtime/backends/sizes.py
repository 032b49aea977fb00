"""Prepares a model of free size for each size of frames that is used.

A graph whose height and width are free computes shapes at run time, and backends optimise it less.
Measured with the demo weights on two threads of an AMD EPYC with AVX-512, at 480x640 and 720x1280,
against a model that was exported for the size (`bench/results/free_size/`):

- Not prepared, a pair takes 4.5 % more time in OpenVINO, 4.2 and 7.2 % more in ONNX Runtime.
- Prepared, it takes between 1.2 % less and 1.1 % more.
- Preparing takes 0.2 s in OpenVINO, with reading the file, and 0.05 s in ONNX Runtime.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from runtime.errors import BackendError

MAX_PREPARED_SIZES = 2
"""Number of sizes that stay prepared; a model that is prepared for 1080p may need a gigabyte."""

T = TypeVar("T")


class PreparedSizes(Generic[T]):
    """A cache of prepared models for the sizes that were used last. Threads may share it.

    Args:
        prepare: Prepares the model for a size (height, width) in pixels.
        limit: Number of sizes that stay prepared.
    """

    def __init__(
        self, prepare: Callable[[tuple[int, int]], T], *, limit: int = MAX_PREPARED_SIZES
    ) -> None:
        self._prepare: Callable[[tuple[int, int]], T] | None = prepare
        self._limit = limit
        self._prepared: OrderedDict[tuple[int, int], T] = OrderedDict()
        self._lock = threading.Lock()

    def at(self, size: tuple[int, int]) -> T:
        """The model for a size, prepared at its first use.

        A model that left the cache stays usable for callers that have a reference to it.

        Raises:
            BackendError: If `close` was called, or `prepare` raises it.
        """
        with self._lock:
            if self._prepare is None:
                raise BackendError("the model is closed: open it again")
            if size not in self._prepared:
                # Before the new one is prepared, so that at most `limit` models are in memory.
                while len(self._prepared) >= self._limit:
                    self._prepared.popitem(last=False)
                self._prepared[size] = self._prepare(size)
            self._prepared.move_to_end(size)
            return self._prepared[size]

    def close(self) -> list[T]:
        """Empties the cache and returns its models; `at` raises from now on."""
        with self._lock:
            self._prepare = None
            prepared = list(self._prepared.values())
            self._prepared.clear()
            return prepared
