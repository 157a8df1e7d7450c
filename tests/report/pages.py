"""A page of real parts that are quick to gather: derivations, totals, D0's claims, two figures."""

from functools import partial

from refgrad._text import Table
from refgrad.claims import KINDS, LEDGER, run_claim
from refgrad.report import figures, page
from refgrad.report.sections import Section, Task, derivations, experiments, gather
from refgrad.report.sections.section import Shown

KNOWN = ("D0.1", "D0.4", "D0.6")
ROWS = [[f"row {n}", f"{(7 * n) % 11 - 5:,}", "1,234" if n else "", "ok" if n % 2 else "FAIL"] for n in range(12)]


def table():
    return Section("A table", {"shown": [Shown("Numbers", Table(["name", "number", "big", "verdict"], ROWS))]})


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


def broken():
    raise RuntimeError("this one's source failed: <b>")


def sample(folder):
    """The page's HTML, and its sections."""
    found = [
        Task("numbers", "Verification", "refgrad verify", table),
        Task("derivations", "Derivations", "refgrad verify --op NAME", derivations.derivations),
        Task("ledger", "Claims", "refgrad claims", ledger),
        Task("first", "Experiments", "python experiments/first.py", partial(experiment, "first", folder)),
        Task("second", "Experiments", "python experiments/second.py", partial(experiment, "second", folder)),
        Task("broken", "Experiments", "python experiments/broken.py", broken),
    ]
    sections = [gather(task) for task in found]
    return page.assemble(sections, "refgrad report --quick"), sections
