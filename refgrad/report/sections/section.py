"""A section of the page: what one command gathered, as data for a template."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from refgrad._text import Table
from refgrad.ops import TABLE
from refgrad.report.mathml import NotMathematics, polynomial


@dataclasses.dataclass(frozen=True)
class Section:
    """One section. `data` is what its template shows, `error` what stands in its place where gathering failed.

    `ran` is False where it was left out. `name`, `group`, `command` and `seconds` are its task's, see
    `refgrad.report.sections.gather`.
    """

    title: str
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    template: str = "tables.html.j2"
    about: str = ""
    ok: bool = True
    ran: bool = True
    error: str = ""
    name: str = ""
    group: str = ""
    command: str = ""
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """`"ok"`, `"FAIL"` or `"not run"`."""
        return "not run" if not self.ran else "ok" if self.ok else "FAIL"


def outcome(sections: Sequence[Section]) -> str:
    """Say how many sections hold, do not hold, and were not run."""
    counts = Counter(section.verdict for section in sections)
    held = f"{counts['ok']} of {len(sections)} hold"
    failed = f", {counts['FAIL']} {'does' if counts['FAIL'] == 1 else 'do'} NOT" if counts["FAIL"] else ""
    return held + failed + (f", {counts['not run']} not run" if counts["not run"] else "")


@dataclasses.dataclass(frozen=True)
class Shown:
    """A table of a section: its caption, whether its order may change (a tree's may not), and a note below it."""

    caption: str
    table: Table
    sortable: bool = True
    note: str = ""


def anchor(operation: str) -> Markup:
    """An operation's name as a link to its derivation; other text as it is."""
    if operation not in TABLE:
        return escape(operation)
    return Markup('<a href="#op-{0}"><code>{0}</code></a>').format(operation)


def mathematics(text: object) -> Markup:
    """A polynomial as mathematics; text that is not one as it is."""
    try:
        return Markup(polynomial(text))
    except NotMathematics:
        return escape(str(text))


def mapped(table: Table, **columns: Any) -> Table:
    """The table with a function applied to the cells of the columns named, spaces in a name written as _.

    Raises ValueError where the table has no such column.
    """
    at = {list(table.header).index(name.replace("_", " ")): change for name, change in columns.items()}
    rows = [[at[n](cell) if n in at else cell for n, cell in enumerate(row)] for row in table.rows]
    return Table(table.header, rows)


def formulas(expressions: Mapping[str, object], header: Sequence[str] = ("what", "polynomial")) -> Table:
    """Name → polynomial as a table of two columns."""
    return Table(header, [[name, mathematics(expression)] for name, expression in expressions.items()])
