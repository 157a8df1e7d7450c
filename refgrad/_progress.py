"""Progress on standard error, so that standard output holds the results alone."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

from refgrad._text import counted

T = TypeVar("T", covariant=True)
PAUSE = 10.0  # seconds between two lines without a terminal


class Steps(Sized, Iterable[T], Protocol[T]):
    """Something with a length that can be walked."""


def track(steps: Steps[T], what: str) -> Iterator[T]:
    """Walk `steps` with a bar that names the one under way; it disappears at the end.

    Without a terminal, a line says that the walk begins, and another every ten seconds how far it is.
    """
    # 0.2 s, while the first steps are computed elsewhere
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from _told(steps, what)
        return
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(steps))
        for step in steps:
            progress.update(task, description=str(step))
            yield step
            progress.advance(task)


def _told(steps: Steps[T], what: str) -> Iterator[T]:
    start = said = time.monotonic()
    print(f"{what}: {counted(len(steps), 'step')}", file=sys.stderr, flush=True)
    for n, step in enumerate(steps):
        if (now := time.monotonic()) - said >= PAUSE:
            print(f"{what}: {n} of {len(steps)} after {now - start:.0f} s, now {step}", file=sys.stderr, flush=True)
            said = now
        yield step


def verdict(name: str, ok: bool) -> None:
    """Print a verdict as soon as it is known."""
    print(f"{'ok  ' if ok else 'FAIL'}  {name}", file=sys.stderr, flush=True)
