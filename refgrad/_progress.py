"""Progress on standard error, so that standard output holds the results alone."""

from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

T = TypeVar("T", covariant=True)


class Steps(Sized, Iterable[T], Protocol[T]):
    """Something with a length that can be walked."""


def track(steps: Steps[T], what: str) -> Iterator[T]:
    """Walk `steps` with a bar that names the one under way; it disappears at the end. Silent without a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(steps))
        for step in steps:
            progress.update(task, description=str(step))
            yield step
            progress.advance(task)
