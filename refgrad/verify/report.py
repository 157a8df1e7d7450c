"""What a check found: rows that a person reads as a table and a program as JSON."""

import builtins
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from refgrad._text import table

OK, FAIL = "ok", "fail"
KINK = "kink"  # a tie or hinge: the rule takes one of the one-sided derivatives, or a value between them
JUMP = "jump"  # the function is not continuous there: there is no derivative
END = "end of the domain"  # the function exists on one side: the rule takes the slope from inside
NOT_FINITE = "truth is not finite"  # nothing to compare with
NOT_DECIDED = "not decided"  # neither exact arithmetic nor float64 autodiff says what is right
RIGHT = "right; autodiff is wrong here"  # autodiff of the plain forward is not its derivative
LESS = "less accurate"  # within the allowance, but farther from the truth than autodiff is
COMPILER = "compiler"  # the rule is right, and XLA's compiled program of it is not
UNAVAILABLE = "not available"  # JAX offers no such transformation of this rule


@dataclasses.dataclass(frozen=True)
class Row:
    """One property of one argument: `error` and `allowed` are relative to the largest expected entry."""

    property: str
    argument: str
    verdict: str
    index: tuple[int, ...] | None = None  # of the worst entry; None where the whole leaf is meant
    got: complex | None = None
    expected: complex | None = None
    error: float | None = None
    allowed: float | None = None
    note: str = ""
    where: str = ""  # file:line of the method that is meant, where a rule has several
    variant: str = ""  # of the arguments, where they are not the given ones

    @builtins.property
    def failed(self) -> bool:
        """Whether this row makes the report red: every other verdict is an answer, not a fault."""
        return self.verdict == FAIL

    def cells(self) -> tuple[str, ...]:
        """The row as text, a cell for each of `HEADER`."""
        index = "" if self.index is None else "[" + ", ".join(map(str, self.index)) + "]"
        numbers = map(number, (self.got, self.expected, self.error, self.allowed))
        verdict = self.verdict + (f": {self.note}" if self.note else "")
        argument = self.argument + (f" at {self.variant}" if self.variant else "")
        return (self.property, argument, index, *numbers, verdict)


HEADER = ("property", "argument", "index", "got", "expected", "error", "allowed", "verdict")


@dataclasses.dataclass(frozen=True)
class Report:
    """The outcome of `check`. Prints as a table; `ok` is False as soon as one row failed.

    `facts` says under what conditions the rows hold: oracle, matmul precision, dtypes, draws, device, limits.
    `where` is `file:line` of each backward rule concerned. `replays` are the calls that repeat what failed at variants
    of the arguments.
    """

    subject: str
    rows: tuple[Row, ...]
    facts: Mapping[str, str]
    where: tuple[str, ...] = ()
    replays: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no row failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Row, ...]:
        """The rows that failed, in the order of the table."""
        return tuple(row for row in self.rows if row.failed)

    def of(self, property: str) -> tuple[Row, ...]:
        """The rows of one property, one per argument as a rule."""
        return tuple(row for row in self.rows if row.property == property)

    def __str__(self) -> str:
        failed = len(self.failures)
        outcome = f"{failed} of {len(self.rows)} FAIL" if failed else f"ok, {len(self.rows)} rows"
        lines = [f"{self.subject}: {outcome}", *(f"{k}: {v}" for k, v in self.facts.items())]
        if failed and self.where:
            lines += [f"rule: {where}" for where in self.where]
        lines += [f"replay: {call}" for call in self.replays]
        return "\n".join([*lines, _table(_glance(self.rows))])

    def summary(self) -> str:
        """The failures alone, with the file and line of the backward rule: what `assert_ok` raises."""
        lines = [f"{self.subject}: {len(self.failures)} of {len(self.rows)} rows fail"]
        lines += [f"rule: {where}" for where in self.where]
        lines += [f"replay: {call}" for call in self.replays]
        return "\n".join([*lines, _table(self.failures)])

    def data(self) -> dict[str, Any]:
        """The report as plain dicts, lists, strings and numbers (complex and non-finite ones as strings)."""
        rows = [
            {f.name: _plain(getattr(row, f.name)) for f in dataclasses.fields(row)} | {"failed": row.failed}
            for row in self.rows
        ]
        facts = {"subject": self.subject, "ok": self.ok, "facts": dict(self.facts)}
        return {**facts, "where": list(self.where), "replays": list(self.replays), "rows": rows}

    def json(self) -> str:
        """`data()` as JSON text."""
        return json.dumps(self.data(), ensure_ascii=False, indent=1)


def number(x: complex | None) -> str:
    """Four significant digits; nothing for None."""
    if x is None:
        return ""
    return f"{x:.4g}"


def _glance(rows: Iterable[Row]) -> list[Row]:
    """Accuracy row by row; of every other property whatever is not plainly ok, and the worst row for the rest."""
    shown: list[Row] = []
    plain: dict[str, list[Row]] = {}
    for row in rows:
        if row.verdict != OK or row.property == "accuracy":
            shown.append(row)
            continue
        if row.property not in plain:
            shown.append(row)
        plain.setdefault(row.property, []).append(row)
    worst = {name: max(group, key=_excess) for name, group in plain.items()}
    first = {id(group[0]): name for name, group in plain.items()}
    return [
        _standing(worst[name], len(plain[name])) if (name := first.get(id(row))) is not None else row for row in shown
    ]


def _standing(row: Row, count: int) -> Row:
    more = f"{row.note}; " if row.note else ""
    return dataclasses.replace(row, note=f"{more}worst of {count}") if count > 1 else row


def _excess(row: Row) -> float:
    return (row.error or 0.0) / (row.allowed or 1.0)


def _table(rows: Iterable[Row]) -> str:
    return table(HEADER, [row.cells() for row in rows])


def _plain(x: Any) -> Any:
    if isinstance(x, tuple):
        return [int(i) for i in x]
    if isinstance(x, complex) or (isinstance(x, float) and not math.isfinite(x)):
        return str(x)
    return x
