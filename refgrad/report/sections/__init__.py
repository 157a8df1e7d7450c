"""The sections of the page, each gathered by a function of its own, so that they can run side by side."""

import dataclasses
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from refgrad.report.sections import bench, costs, experiments, ledger, verification, versions
from refgrad.report.sections.section import Section

COST = "refgrad cost --config configs/gpt2_124m.toml"


class Task(NamedTuple):
    """A section to gather: its name, the heading it stands under, the command that shows the same, and its function."""

    name: str
    group: str
    command: str
    gather: Callable[[], Section]


def tasks(quick: bool, runs: Mapping[str, dict[str, Any]] | None = None) -> list[Task]:
    """Every section's task in the page's order; each can be sent to another process.

    `runs` maps the name of a bench's file to its data, as `bench.read` gives it.
    """
    verify = "refgrad verify" + " --dtype float32" * quick
    found = [
        Task("rules", "Verification", verify, partial(verification.rules, "derived", quick)),
        Task("fused", "Verification", f"{verify} --rules fused", partial(verification.rules, "fused", quick)),
        Task("networks", "Verification", verify, partial(verification.small_networks, quick)),
        Task("parameters", "Verification", verify, partial(verification.parameters, quick)),
        Task("tree", "Costs", COST, costs.tree),
        Task("tallies", "Costs", COST, costs.tallies),
        Task("kept", "Costs", COST, costs.kept),
        Task("ledger", "Claims", "refgrad claims", ledger.ledger),
    ]
    for script in experiments.scripts():
        name, command = script.stem, f"python experiments/{script.name}"
        left_out = name in experiments.LARGE or (quick and name in experiments.SLOW)
        short = not left_out and (quick or name in experiments.LONG)
        work = partial(experiments.named, script) if left_out else partial(experiments.experiment, script, short)
        found.append(Task(name, "Experiments", command + " --quick" * short, work))
    if not experiments.scripts():
        found.append(Task("experiments", "Experiments", "python experiments/NAME.py", experiments.absent))
    for n, (path, data) in enumerate((runs or {}).items(), 1):
        found.append(Task(f"bench-{n}", "Bench", f"refgrad bench --json {path}", partial(bench.measured, data)))
    command = "refgrad report" + " --quick" * quick
    return [*found, Task("versions", "Versions", command, partial(versions.versions, quick))]


def gather(task: Task) -> Section:
    """Run a task with 64-bit types on; an error becomes a section that shows it, so that the others still stand."""
    start = time.perf_counter()
    try:
        with jax.enable_x64(True):
            section = task.gather()
    except Exception as error:
        return failed(task, error)
    return _named(section, task, time.perf_counter() - start)


def failed(task: Task, error: BaseException) -> Section:
    """The section that replaces one that could not be gathered."""
    frames = traceback.extract_tb(error.__traceback__)[-1:]
    place = "".join(f" at {Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    section = Section(f"Not gathered: {task.name}", ok=False, error=f"{type(error).__name__}{place}: {error}")
    return _named(section, task, 0.0)


def _named(section: Section, task: Task, seconds: float) -> Section:
    return dataclasses.replace(section, name=task.name, group=task.group, command=task.command, seconds=seconds)
