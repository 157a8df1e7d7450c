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

SHARE = 4  # pieces a worker, at least: it takes seconds to start

Each = Callable[[Callable, Sequence, str], Iterator[Any]]
_forked: list[ProcessPoolExecutor] = []


@contextlib.contextmanager
def forked() -> Iterator[None]:
    """Fork a worker for each core, with all that is imported by now, for the first `workers` inside.

    JAX must not have started its devices: a process that is forked inherits their threads' locks. Elsewhere than on
    Linux, and where there is one core, no worker is forked.
    """
    if sys.platform == "linux" and (processes := cores() or 1) > 1:
        _forked.append(pool(processes, method="fork"))
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
    executor = _forked.pop() if _forked else pool(processes)

    def each(f: Callable, items: Sequence, what: str) -> Iterator[Any]:
        futures = [executor.submit(_piece, setup, f, item) for item in items]
        return (future.result() for _, future in zip(track(items, what), futures, strict=True))

    try:
        yield each
    finally:
        _end(executor)


def pool(processes: int, setup: Callable[[], None] | None = None, method: str = "spawn") -> ProcessPoolExecutor:
    """Return an executor whose workers call `setup` first, and end when their parent does."""
    return ProcessPoolExecutor(processes, multiprocessing.get_context(method), _start, (setup,))


def _end(executor: ProcessPoolExecutor) -> None:
    children = multiprocessing.active_children()
    executor.shutdown(wait=False, cancel_futures=True)
    for child in children:
        child.terminate()


def _piece(setup: Callable[[], None] | None, f: Callable, item: Any) -> Any:
    if setup is not None:
        setup()
    return f(item)


def _start(setup: Callable[[], None] | None) -> None:
    """Prepare a worker, which calls `setup` and ends when its parent does, however that ended."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command itself is interrupted, and ends its workers
    if setup is not None:
        setup()


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
