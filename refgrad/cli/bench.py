"""Measure a training step: each contender in a process of its own, in turns with autodiff, beside the roofline."""

import argparse
import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from refgrad._files import write_json
from refgrad.bench import machine, parts, sweep
from refgrad.bench import run as bench
from refgrad.bench.contenders import BASELINE, CONTENDERS, Workload
from refgrad.cli.settings import load
from refgrad.report import bench as report
from refgrad.report import figures

QUICK = ("model.n_layer=2", "model.n_embd=128", "model.n_positions=128", "model.vocab_size=4096")
QUICK_NAMES = ("derived", "fused", "fast", "small", "roofline")


def run(options: argparse.Namespace) -> int:
    """Measure, print, write; returns 0. Raises ValueError for bad options, before anything is built, and ImportError
    where an extra that they need is missing."""
    _check(options)
    if options.quick and options.config is None:
        options.set = [*QUICK, *options.set]
    config, sizes = load(options.config, options.set, whole_sequence=True)
    work = Workload(config, sizes["batch"], sizes["sequence"])
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the accelerator's memory is for the contenders
    facts = machine.facts()

    def save(found: dict[str, Any]) -> None:
        if options.json:
            write_json(options.json, {"machine": facts, "work": work.data(), "rounds": options.rounds, **found})

    if options.parts or options.sweep == "length":
        save(_parts(options, work, facts))
    elif options.sweep:
        save(_sweep(options, work, facts))
    else:
        _steps(options, work, facts, save)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Raise ValueError for options that contradict each other, or whose result could be neither drawn nor written."""
    if options.rounds < 1:
        raise ValueError(f"--rounds is {options.rounds}, but a pair takes at least 1 turn each")
    if options.points and (options.sweep is None or min(options.points) < 1):
        raise ValueError(f"--points {options.points}: give values of at least 1, for --sweep {'|'.join(sweep.POINTS)}")
    if options.parts and options.sweep not in (None, "length"):
        raise ValueError(f"--parts are measured at one size, or by --sweep length, but --sweep is {options.sweep}")
    if options.contender and (options.parts or options.sweep == "length"):
        raise ValueError(f"--contender {options.contender[0]} makes whole steps: leave out --parts and --sweep length")
    drawn = 1 + len(set(options.contender or ()))
    if options.sweep and options.figure and drawn > len(figures.COLORS):
        raise ValueError(f"--figure has {len(figures.COLORS)} lines at most, but {drawn} contenders: name fewer")
    if options.figure:
        figures.require()


def _steps(
    options: argparse.Namespace, work: Workload, facts: dict[str, Any], save: Callable[[dict[str, Any]], None]
) -> None:
    """Every contender's step, saved as it is measured."""
    names = _names(options)
    bench.check_memory(work)
    print(_heading(work, facts))
    keep = lambda rows: save({"rows": list(map(dataclasses.asdict, rows))})  # noqa: E731
    with _status() as say:
        rows = bench.measure(work, names, options.rounds, not options.default_allocator, say, keep)
    print(f"\n{report.contender_table(rows)}\n\n{report.LEGEND}")
    if options.figure:
        report.draw(rows, Path(options.figure), report.title(work))


def _sweep(options: argparse.Namespace, work: Workload, facts: dict[str, Any]) -> dict[str, Any]:
    """The step against batch or layers."""
    names = _names(options) if options.contender else sweep.NAMES
    values = sorted({*(options.points or sweep.POINTS[options.sweep])})
    print(_heading(work, facts))
    with _status() as say:
        keep = not options.default_allocator
        points = sweep.steps(work, options.sweep, values, names, options.rounds, keep, say)
    print(f"\n{report.sweep_table(options.sweep, points)}")
    if options.figure:
        report.draw_sweep(options.sweep, points, Path(options.figure))
    return {"sweep": options.sweep, "points": list(map(dataclasses.asdict, points))}


def _parts(options: argparse.Namespace, work: Workload, facts: dict[str, Any]) -> dict[str, Any]:
    """The model's parts, at one length or at several."""
    print(_heading(work, facts))
    with _status() as say:
        if options.sweep:
            values = sorted({*(options.points or sweep.POINTS["length"])})
            rows = sweep.lengths(work, values, options.rounds, not options.default_allocator, say)
        else:
            rows = parts.measure(work, parts.parts_of(work), options.rounds, not options.default_allocator, say)
    print(f"\n{report.part_table(rows)}")
    if options.figure:
        (report.draw_lengths if options.sweep else report.draw_parts)(rows, Path(options.figure))
    return {"parts": list(map(dataclasses.asdict, rows))}


def _names(options: argparse.Namespace) -> list[str]:
    """The contenders to run: those asked for, or all that can run here, naming those left out.

    Raises ValueError where one that was asked for needs a module that is not installed.
    """
    asked = options.contender or (QUICK_NAMES if options.quick else [name for name in CONTENDERS if name != BASELINE])
    names = []
    for name in dict.fromkeys(asked):
        missing = CONTENDERS[name].missing
        if not missing:
            names.append(name)
        elif options.contender:
            raise ValueError(f"--contender {name}: {missing}")
        else:
            print(f"{name} is left out: {missing}")
    return names


def _heading(work: Workload, facts: dict[str, Any]) -> str:
    """Return the heading: the work that is measured, and the machine."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    device = f"{facts['accelerator']}, float32 products in TF32; " if facts["accelerator"] else ""
    return (
        f"refgrad bench: AdamW, batch {work.batch} × {work.sequence} tokens, {work.config}\n"
        f"{device}{facts['processor']}, {facts['vector'] or 'vector extensions unknown'}, {facts['cores']} cores, "
        f"{facts['memory'] / 1e9:.1f} GB; {versions}"
    )


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """A line on standard error about the contender under way: a spinner on a terminal, one line each elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: console.print(text, highlight=False)
        return
    with console.status("starting") as status:
        yield status.update
