"""Runs an iterator ahead of its consumer, in a thread that a `with` block owns.

    with prefetch(decoded(), ahead=4, name="decode") as frames:
        with prefetch(interpolated(frames), ahead=4, name="inference") as shown:
            for frame in shown:
                encode(frame)

An exception in any of the threads ends the others and reaches the caller.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")


def prefetch(
    items: Iterable[T], *, ahead: int, name: str, weight: Callable[[T], int] | None = None
) -> Prefetcher[T]:
    """Iterates over `items` in a thread; use the result in a `with` block.

    Leaving the block, also by an exception, stops the thread after the current item, closes the
    generator (its `finally` blocks run in the thread) and waits for the thread.

    Args:
        items: A generator or another iterable.
        ahead: Limit of the items that wait for the consumer, 1 or more; the thread computes one
            more.
        name: Name of the thread.
        weight: Returns how much an item counts against `ahead`; 0 for an item that never waits. A
            result above `ahead` counts as `ahead`. By default each item counts 1.
    """
    return Prefetcher(items, ahead=ahead, name=name, weight=weight)


class Prefetcher(Iterator[T]):
    """Context manager and iterator over items that a thread computes; created by `prefetch`.

    It is for one consumer. Items keep their order; an exception of the iterator is raised after the
    items before it, with its own traceback.

    Attributes:
        waited: Seconds that the consumer has waited for items, the first one included.
        blocked: Seconds that the thread has waited because `ahead` items were waiting.
    """

    def __init__(
        self, items: Iterable[T], *, ahead: int, name: str, weight: Callable[[T], int] | None
    ) -> None:
        if ahead < 1:
            raise ValueError(f"ahead is {ahead}: it is 1 or more")
        self.waited = 0.0
        self.blocked = 0.0
        self._items = items
        self._ahead = ahead
        self._weight = weight
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        # Two SimpleQueues instead of one queue.Queue: they hold no lock in Python code, which
        # Ctrl-C could leave locked. Each entry of `_permits` permits one more entry in `_ready`.
        self._ready: queue.SimpleQueue[tuple[T, int] | _End] = queue.SimpleQueue()
        self._permits: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(ahead):
            self._permits.put(None)
        self._stopping = False
        self._ended = False
        self._closing_error: BaseException | None = None

    def __enter__(self) -> Prefetcher[T]:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping = True
        self._permits.put(None)
        # The thread is a daemon: a second Ctrl-C here lets the process end without it.
        self._thread.join()
        self._ready = queue.SimpleQueue()  # Frees the items that were not consumed.
        failed, self._closing_error = self._closing_error, None
        if error is None and failed is not None:
            raise failed

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._stopping:
            raise ValueError(f"{self._thread.name} is closed: use it inside its with block")
        if self._ended:
            raise StopIteration
        entry, seconds = _timed_get(self._ready)
        self.waited += seconds
        if isinstance(entry, _End):
            self._ended = True
            if entry.error is None:
                raise StopIteration
            try:
                raise entry.error
            finally:
                del entry  # Otherwise the traceback would refer to its own exception.
        item, weight = entry
        for _ in range(weight):
            self._permits.put(None)
        return item

    def _run(self) -> None:
        try:
            self._produce()
        except BaseException as error:
            self._ready.put(_End(error))
        else:
            self._ready.put(_End(None))
        if isinstance(self._items, Generator):
            try:
                self._items.close()
            except BaseException as error:
                self._closing_error = error

    def _produce(self) -> None:
        for item in self._items:
            weight = 1 if self._weight is None else min(self._weight(item), self._ahead)
            for _ in range(weight):
                self.blocked += _timed_get(self._permits)[1]
                if self._stopping:
                    return
            self._ready.put((item, weight))
            del item  # Otherwise this thread would keep it in memory while it computes the next.
            if self._stopping:
                return


class _End:
    """Marks the end of the items; `error` is the exception that ended them, or None."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def _timed_get(entries: queue.SimpleQueue[T]) -> tuple[T, float]:
    """Removes the next entry; returns it with the seconds waited for it."""
    try:
        return entries.get_nowait(), 0.0
    except queue.Empty:
        started = time.perf_counter()
        entry = entries.get()
        return entry, time.perf_counter() - started
