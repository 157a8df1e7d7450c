"""Sections → one HTML file that holds everything it shows: style, script, figures, formulas."""

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from jinja2 import Environment, PackageLoader, StrictUndefined

from refgrad._text import numeric
from refgrad.report.cells import cell, derivations, explained, site_from
from refgrad.report.sections.section import Section, outcome

VERDICTS = {
    **{"ok": "good", "holds": "good", "holds when": "note", "is wrong": "wrong", "undecided": "bad"},
    "not run": "grey",
}


def assemble(sections: Sequence[Section], command: str, folder: Path) -> str:
    """Return the page, which will stand in `folder`.

    Args:
      sections: What was gathered, in order; neighbours of one group stand under one heading.
      command: The command that makes the page.
      folder: The folder from which the page links to the documentation's site.
    """
    groups = [(name, list(members)) for name, members in itertools.groupby(sections, key=lambda one: one.group)]
    commands = [[s.title, s.command, f"{s.seconds:.1f}", s.verdict] for s in sections]
    ledger = {row["id"] for section in sections if section.name == "ledger" for row in section.data.get("rows", ())}
    page = _environment(folder).get_template("page.html.j2")
    ok = all(section.ok for section in sections)
    return page.render(
        groups=groups, rows_of_commands=commands, command=command, ok=ok, outcome=outcome(sections), ledger=ledger
    )


def verdict(cell: object) -> str:
    """The class of a cell that holds a verdict; "" for any other."""
    text = str(cell)
    return "bad" if text.startswith("FAIL") else VERDICTS.get(text, "")


def columns(rows: Sequence[Sequence[object]]) -> list[bool]:
    """Return a flag for each column, True if it holds numbers."""
    return list(map(numeric, zip(*rows, strict=True)))


def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=PackageLoader("refgrad.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ids = map("table-{}".format, itertools.count(1))
    site = site_from(folder)
    derivation = derivations(site)
    functions = {"verdict": verdict, "columns": columns, "next_id": lambda: next(ids), "operation_of": operation_of}
    links = {"derivation": derivation, "display": partial(cell, derivation=derivation)}
    environment.globals.update(functions, **links, explained=partial(explained, site=site))
    return environment


def operation_of(file: str) -> str:
    """The operation whose file this is: `refgrad/ops/fused/gelu.py` is fused.gelu's."""
    parts = PurePosixPath(file).with_suffix("").parts
    return ".".join(parts[2:])
