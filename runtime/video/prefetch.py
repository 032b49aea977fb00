"""An iterator that runs ahead of its consumer in a thread of its own, as an owned thing.

    with in_thread(decoded(), ahead=4, name="decode") as frames:
        with in_thread(interpolated(frames), ahead=4, name="inference") as shown:
            for frame in shown:
                encode(frame)

An error in any of the three ends the other two and reaches the caller.
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
    """Runs `items` in a thread while the `with` block that this opens uses them.

    Leaving the block, in whatever way, stops the thread after the item that it is making, closes
    the generator there (its `finally` blocks run in its own thread) and waits for the thread.

    Args:
        items: What to run; a generator, or anything else to iterate over.
        ahead: Items that may wait for the consumer, 1 or more; one more is being made.
        name: Of the thread.
        weight: What an item counts, for streams in which some count little: 0 for an item that
            never waits for room. An item that counts more than `ahead` counts `ahead`. By
            default each counts 1.
    """
    return Prefetcher(items, ahead=ahead, name=name, weight=weight)


class Prefetcher(Iterator[T]):
    """The consumer's end of an iterator in a thread; see `prefetch`. For one consumer.

    The items come in order; an error of the iterator comes after the items before it, with its
    own traceback.

    Attributes:
        waited: Seconds that the consumer has waited for an item, the first one included.
        blocked: Seconds that the thread has waited for room.
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
        # Two of these rather than one queue.Queue: a SimpleQueue holds no lock in Python code,
        # which a Ctrl-C in the middle could leave taken. Room is handed to and fro as tokens.
        self._made: queue.SimpleQueue[tuple[T, int] | _End] = queue.SimpleQueue()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(ahead):
            self._room.put(None)
        self._stopping = False
        self._ended = False
        self._error_of_closing: BaseException | None = None

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
        self._room.put(None)
        # The thread is a daemon: a second Ctrl-C here lets the process end without it.
        self._thread.join()
        self._made = queue.SimpleQueue()  # frees what nobody took
        failed, self._error_of_closing = self._error_of_closing, None
        if error is None and failed is not None:
            raise failed

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._stopping:
            raise ValueError(f"{self._thread.name} is closed: use it inside its with block")
        if self._ended:
            raise StopIteration
        made, seconds = _taken(self._made)
        self.waited += seconds
        if isinstance(made, _End):
            self._ended = True
            if made.error is None:
                raise StopIteration
            try:
                raise made.error
            finally:
                del made  # or the error's traceback would hold the error: a cycle
        item, weight = made
        for _ in range(weight):
            self._room.put(None)
        return item

    def _run(self) -> None:
        try:
            self._pass_on()
        except BaseException as error:
            self._made.put(_End(error))
        else:
            self._made.put(_End(None))
        if isinstance(self._items, Generator):
            try:
                self._items.close()
            except BaseException as error:
                self._error_of_closing = error

    def _pass_on(self) -> None:
        for item in self._items:
            weight = 1 if self._weight is None else min(self._weight(item), self._ahead)
            for _ in range(weight):
                self.blocked += _taken(self._room)[1]
                if self._stopping:
                    return
            self._made.put((item, weight))
            del item  # the consumer's from now on, also while the next is being made
            if self._stopping:
                return


class _End:
    """Behind the last item; with the error where it ended by one."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def _taken(entries: queue.SimpleQueue[T]) -> tuple[T, float]:
    """The next entry, and the seconds waited for it."""
    try:
        return entries.get_nowait(), 0.0
    except queue.Empty:
        started = time.perf_counter()
        entry = entries.get()
        return entry, time.perf_counter() - started
