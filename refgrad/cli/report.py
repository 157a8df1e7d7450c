"""Build one HTML page with everything: rules verified, costs, claims, experiments, from this machine."""

import argparse
import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from refgrad._extras import install
from refgrad._files import write_text
from refgrad._workers import REPORT, executor
from refgrad.jaxpr.scaffold import scaffold_everything

try:  # all of it here, before the workers are forked
    from refgrad.report import figures

    figures.require()
    from refgrad.report import page
    from refgrad.report.sections import Task, bench, failed, gather, tasks
    from refgrad.report.sections.section import Section, outcome
except ModuleNotFoundError as missing:
    raise ValueError(f"{missing.name} is not installed: {install('report')}") from missing


def run(options: argparse.Namespace) -> int:
    """Gather, show progress, write; returns 0 if everything in the page holds, else 1.

    Raises ValueError where the page or the bench's file cannot be used.
    """
    out = Path(options.out)
    runs = {path: bench.read(Path(path)) for path in options.bench}
    begun = time.perf_counter()
    sections = gather_all(tasks(options.quick, runs), options.quick)
    command = "refgrad report" + " --quick" * options.quick
    write_text(out, page.assemble(sections, command, out.absolute().parent))
    red = [section.name for section in sections if not section.ok]
    print(f"{out}: {len(sections)} sections in {time.perf_counter() - begun:.0f} s: {outcome(sections)}.")
    print(f"NOT everything holds: {'; '.join(red)}" if red else "Everything that was run holds.")
    return 1 if red else 0


def gather_all(wanted: list[Task], quick: bool) -> list[Section]:
    """Every section, two processes side by side; a line for each on standard error as it is done."""
    with _progress(len(wanted)) as progress, executor(REPORT) as pool:
        futures: dict[Future, Task] = {pool.submit(_gather, task, quick): task for task in wanted}
        found: dict[str, Section] = {}
        for future in as_completed(futures):
            task, error = futures[future], future.exception()  # of a process that died
            section = found[task.name] = failed(task, error) if error else future.result()
            progress.console.print(f"{section.seconds:6.1f} s  {section.verdict.ljust(7)}  {section.name}")
            progress.advance(progress.task_ids[0])
    return [found[task.name] for task in wanted]


def _gather(task: Task, quick: bool) -> Section:
    """Run a task in a worker; a quick report compiles without LLVM's optimisation."""
    if quick:
        scaffold_everything()
    return gather(task)


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Progress]:
    columns = (TextColumn("sections"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task("", total=total)
        yield progress
