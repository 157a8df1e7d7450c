"""Build one HTML page with everything: rules verified, costs, claims, experiments, from this machine."""

import argparse
import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from refgrad._extras import install
from refgrad._files import write_text
from refgrad._workers import pool
from refgrad.jaxpr.scaffold import scaffold_everything

if TYPE_CHECKING:
    from refgrad.report.sections import Task
    from refgrad.report.sections.section import Section

WORKERS = 2


def run(options: argparse.Namespace) -> int:
    """Gather, show progress, write; returns 0 if everything in the page holds, else 1.

    Raises ValueError where the extra `report` is missing or the page or the bench's file cannot be used.
    """
    try:
        from refgrad.report import figures, page
        from refgrad.report.sections import bench, tasks
        from refgrad.report.sections.section import outcome

        figures.require()
    except ModuleNotFoundError as missing:
        raise ValueError(f"{missing.name} is not installed: {install('report')}") from missing
    out = Path(options.out)
    runs = {path: bench.read(Path(path)) for path in options.bench}
    begun = time.perf_counter()
    sections = gather_all(tasks(options.quick, runs), options.quick)
    command = "refgrad report" + " --quick" * options.quick
    write_text(out, page.assemble(sections, command, out.absolute().parent))
    failed = [section.name for section in sections if not section.ok]
    print(f"{out}: {len(sections)} sections in {time.perf_counter() - begun:.0f} s: {outcome(sections)}.")
    print(f"NOT everything holds: {'; '.join(failed)}" if failed else "Everything that was run holds.")
    return 1 if failed else 0


def gather_all(wanted: "list[Task]", quick: bool) -> "list[Section]":
    """Every section, two processes side by side; a line for each on standard error as it is done."""
    from refgrad.report.sections import failed, gather

    prepare = scaffold_everything if quick else None
    with _progress(len(wanted)) as progress, pool(WORKERS, prepare) as executor:
        futures: dict[Future, Task] = {executor.submit(gather, task): task for task in wanted}
        found: dict[str, Section] = {}
        for future in as_completed(futures):
            task, error = futures[future], future.exception()  # of a process that died
            section = found[task.name] = failed(task, error) if error else future.result()
            progress.console.print(f"{section.seconds:6.1f} s  {section.verdict.ljust(7)}  {section.name}")
            progress.advance(progress.task_ids[0])
    return [found[task.name] for task in wanted]


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Progress]:
    columns = (TextColumn("sections"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task("", total=total)
        yield progress
