"""A page of real parts that are quick to gather: a table, D0's claims, two figures."""

import dataclasses
from functools import partial

from refgrad._text import Table
from refgrad.bench.contenders import Workload
from refgrad.bench.run import ContenderRow
from refgrad.claims import KINDS, LEDGER, run_claim
from refgrad.models import gpt2
from refgrad.report import figures, page
from refgrad.report.sections import Task, bench, experiments, gather
from refgrad.report.sections.section import Section, Shown
from refgrad.symbols import b, h, s

KNOWN = ("D0.1", "D0.4", "D0.6")
ROWS = [[f"row {n}", f"{(7 * n) % 11 - 5:,}", "1,234" if n else "", "ok" if n % 2 else "FAIL"] for n in range(12)]


def table():
    return Section("A table", {"shown": [Shown("Numbers", Table(["name", "number", "big", "verdict"], ROWS))]})


def polynomials():
    rows = [["matmul", 8 * b * s * h + h**2 - s * h / 2], ["no operation", b]]
    return Section("Polynomials", {"shown": [Shown("Formulas", Table(["operation", "polynomial"], rows))]})


def ledger():
    rows = [run_claim(LEDGER[name]).data() for name in KNOWN]
    return Section("Claims", {"rows": rows, "kinds": KINDS}, "ledger.html.j2")


def experiment(name, folder):
    """A card as an experiment leaves it, its figure drawn as experiments draw."""
    with figures.draw(folder / f"{name}.svg", "A line", "It rises from 0 to 3.") as axes:
        axes.plot([0, 1, 2], [0, 1, 3], **figures.series(0))
        axes.set(xlabel="layers", ylabel="time (s)")
    card = {
        "name": name,
        "question": "Does it rise?",
        "explanation": "With y = x² it does.",
        "claims": ["D0.6"],
        "answer": ["It rises to y = 3."],
        "holds": True,
        "failures": [],
        "table": {"header": ["x", "y"], "rows": [["0", "0"], ["1", "1"], ["2", "3"]]},
        "figures": [{"file": f"{name}.svg", "title": "A line", "alt": "It rises from 0 to 3."}],
    }
    return experiments.shown(card, folder, True)


def measured():
    """A run of the bench, as `refgrad bench --json` writes it."""
    row = ContenderRow(
        "autodiff", "autodiff", "float32", 1.0, (0.9, 1.1), 0.5, 128.0, 1e9, 10**6, 1.0, 10**8, 0.1, 0.2, 5, None
    )
    fused = dataclasses.replace(row, name="fused", label="fused rules", ratio=0.8, temporaries_ratio=0.5)
    machine = {"processor": "a processor", "cores": 2, "versions": {"jax": "0.10.2"}}
    rows = [dataclasses.asdict(one) for one in (row, fused)]
    return bench.measured(
        {"machine": machine, "work": Workload(gpt2.Config(), 1, 64).data(), "rounds": 1, "rows": rows}
    )


def left_out():
    return Section("Is it large?", about="Not run for this page.", ran=False)


def broken():
    raise RuntimeError("this one's source failed: <b>")


def sample(folder):
    """The page's HTML, and its sections."""
    found = [
        Task("numbers", "Verification", "refgrad verify", table),
        Task("polynomials", "Verification", "refgrad verify", polynomials),
        Task("ledger", "Claims", "refgrad claims", ledger),
        Task("first", "Experiments", "python experiments/first.py", partial(experiment, "first", folder)),
        Task("second", "Experiments", "python experiments/second.py", partial(experiment, "second", folder)),
        Task("large", "Experiments", "python experiments/large.py", left_out),
        Task("broken", "Experiments", "python experiments/broken.py", broken),
        Task("bench-1", "Bench", "refgrad bench --json run.json", measured),
    ]
    sections = [gather(task) for task in found]
    return page.assemble(sections, "refgrad report --quick", folder), sections
