"""Batches made ahead by a thread, so that a step finds the next one ready, and the time spent waiting for them."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Loader(Generic[T]):
    """An iterator over `make(first)`, `make(first + 1)`, …, which one thread makes ahead.

        with Loader(batches.at, first=step) as loader:
            for tokens, targets in loader: ...

    `make` may also put the batch on a device. An exception in it is raised by the `next` that asks for that batch.
    """

    def __init__(self, make: Callable[[int], T], first: int = 0, depth: int = 2) -> None:
        """Begin at once, and stay up to `depth` batches ahead. Raise ValueError for a depth below 1."""
        if depth < 1:
            raise ValueError(f"depth is {depth}, but must be at least 1")
        self._make, self._next = make, first
        self._thread = ThreadPoolExecutor(1, "refgrad-loader")
        self._ahead: deque[Future[T]] = deque()
        self.waited = 0.0
        """Total seconds that `next` has waited for batches."""
        for _ in range(depth):
            self._submit()

    def _submit(self) -> None:
        self._ahead.append(self._thread.submit(self._make, self._next))
        self._next += 1

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if not self._ahead:
            raise StopIteration  # closed
        start = time.perf_counter()
        value = self._ahead.popleft().result()
        self.waited += time.perf_counter() - start
        self._submit()
        return value

    def close(self) -> None:
        """End the thread after the current batch; the iterator then ends."""
        self._thread.shutdown(cancel_futures=True)
        self._ahead.clear()

    def __enter__(self) -> "Loader[T]":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
