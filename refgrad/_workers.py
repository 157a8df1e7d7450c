"""Independent pieces of a command, computed on every core: tracing holds Python's lock, so each worker is a process."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from refgrad._machine import cores
from refgrad._progress import track

REPORT = 2  # workers of a report, however many cores there are: they share its memory
SHARE = 4  # pieces a worker, at least: it takes seconds to start

Each = Callable[[Callable, Sequence, str], Iterator[Any]]
_forked: list[ProcessPoolExecutor] = []


@contextlib.contextmanager
def forked(processes: int) -> Iterator[None]:
    """Fork workers, with all that is imported by now, for the first `workers` or `executor` inside.

    JAX must not have started its devices: a process that is forked inherits their threads' locks. Elsewhere than on
    Linux none is forked.
    """
    if sys.platform == "linux" and processes > 1:
        _forked.append(_pool(processes, "fork"))
        _forked[0].submit(os.getpid)  # the first piece forks them all
    try:
        yield
    finally:
        while _forked:
            _end(_forked.pop())


@contextlib.contextmanager
def workers(pieces: int, setup: Callable[[], None] | None = None, processes: int | None = None) -> Iterator[Each]:
    """Provide `each(f, items, what)`: the results of `f(item)` in the items' order, with a bar of progress.

    Every call starts all of its items at once, to be computed while other results are read. Where there is one core, or
    little to do, this process computes each result when it is read.

    Args:
      pieces: how many items there are in all.
      setup: called in the worker before each piece. Like `f`, the items and the results, it can be pickled.
      processes: the number of workers; as many as there are cores by default.
    """
    processes = min(cores() or 1 if processes is None else processes, pieces // SHARE)
    if processes < 2:
        yield lambda f, items, what: map(f, track(items, what))
        return

    def each(f: Callable, items: Sequence, what: str) -> Iterator[Any]:
        futures = [pool.submit(_piece, setup, f, item) for item in items]
        return (future.result() for _, future in zip(track(items, what), futures, strict=True))

    with executor(processes) as pool:
        yield each


@contextlib.contextmanager
def executor(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Provide the workers that were forked, or so many new ones; they end with the block, or with their parent."""
    pool = _forked.pop() if _forked else _pool(processes, "spawn")
    try:
        yield pool
    finally:
        _end(pool)


def _pool(processes: int, method: str) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(processes, multiprocessing.get_context(method), _start)


def _end(pool: ProcessPoolExecutor) -> None:
    children = multiprocessing.active_children()
    pool.shutdown(wait=False, cancel_futures=True)
    for child in children:
        child.terminate()


def _piece(setup: Callable[[], None] | None, f: Callable, item: Any) -> Any:
    if setup is not None:
        setup()
    return f(item)


def _start() -> None:
    """Prepare a worker, which ends when its parent does, however that ended."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command itself is interrupted, and ends its workers


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
