"""Report of a check: rows that a person reads as a table and a program as JSON."""

import builtins
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from refgrad._text import columns, counted, table, wrapped

OK, FAIL = "ok", "fail"
WRONG, PARTIAL, NOTHING = "wrong", "partial", "nothing to check"  # of a whole report
PAGE = "docs/verdicts.md"  # has a heading for each verdict
LOOSEST = 0.1  # the largest tolerance that a report proposes
KINK = "kink"  # a tie or hinge: the rule takes one of the one-sided derivatives, or a value between them
JUMP = "jump"  # the function is not continuous there, and has no derivative
END = "end of the domain"  # the function exists on one side: the rule takes the slope from inside
NOT_FINITE = "truth is not finite"  # nothing to compare with
NOT_DECIDED = "not decided"  # neither exact arithmetic nor float64 autodiff says what is right
RIGHT = "right; autodiff is wrong here"  # autodiff of the plain forward is not its derivative
LESS = "less accurate"  # within the allowance, but farther from the truth than autodiff is
COMPILER = "compiler"  # the rule is right, and XLA's compiled program of it is not
UNAVAILABLE = "not available"  # JAX offers no such transformation of this rule


@dataclasses.dataclass(frozen=True)
class Row:
    """One property of one argument: `error` and `allowed` are relative to the largest expected entry.

    Attributes:
      property: the property that was checked, a key of `PROPERTIES`.
      argument: the argument's name.
      verdict: "ok", "FAIL", or an answer that is not a fault, such as "kink".
      index: the index of the worst entry; None where the whole leaf is meant.
      got: the rule's value there.
      expected: the truth there.
      error: the leaf's error.
      allowed: the error that it may have.
      note: a remark on the verdict.
      where: file:line of the method that is meant, where a rule has several.
      cause: the sentence that explains why it fails, where other rows fail for the same reason.
      variant: the variant of the arguments, where they are not the given ones.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import check
      >>> (row,) = check(jax.nn.relu, jnp.array([-1.0, 2.0])).of("accuracy")
      >>> row.argument, row.verdict, row.failed
      ('x', 'ok', False)
    """

    property: str
    argument: str
    verdict: str
    index: tuple[int, ...] | None = None
    got: complex | None = None
    expected: complex | None = None
    error: float | None = None
    allowed: float | None = None
    note: str = ""
    where: str = ""
    cause: str = ""
    variant: str = ""

    @builtins.property
    def failed(self) -> bool:
        """True if this row makes the report red: every other verdict is an answer, not a fault."""
        return self.verdict == FAIL

    @builtins.property
    def place(self) -> str:
        """The argument, and at which variant of the arguments."""
        return self.argument + (f" at {self.variant}" if self.variant else "")

    def cells(self) -> tuple[str, ...]:
        """The row as text, a cell for each of `HEADER`."""
        index = "" if self.index is None else "[" + ", ".join(map(str, self.index)) + "]"
        numbers = map(number, (self.got, self.expected, self.error, self.allowed))
        return (self.property, self.place, index, *numbers, self.verdict)


HEADER = ("property", "argument", "index", "got", "expected", "error", "allowed", "verdict")


@dataclasses.dataclass(frozen=True)
class Report:
    """The outcome of `check`. Prints as a table; `ok` is False as soon as one row failed or a property was left out.

    Attributes:
      subject: the function, with its types and its place in the source.
      rows: a row for each property and argument.
      facts: the conditions under which the rows hold: oracle, matmul precision, dtypes, draws, device, limits.
      where: `file:line` of each backward rule concerned.
      left_out: the properties that the budget of seconds did not reach.
      replays: the calls that repeat what failed at variants of the arguments.
      nothing: the reason why no gradient can be checked, or none at these arguments.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import check
      >>> square = jax.custom_vjp(lambda x: x * x)
      >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (3 * x * dy,))
      >>> report = check(square, jnp.array([1.0, 2.0]), properties=["accuracy"])
      >>> report.status, report.causes
      ('wrong', ('the rule returns 1.5 times the gradient for x',))
    """

    subject: str
    rows: tuple[Row, ...]
    facts: Mapping[str, str]
    where: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    replays: tuple[str, ...] = ()
    nothing: str = ""

    @property
    def ok(self) -> bool:
        """True where there was a gradient, every property was looked at, and no row failed."""
        return self.status == OK

    @property
    def status(self) -> str:
        """`"ok"`, `"wrong"`, `"nothing to check"`, or `"partial"` where time ran out before anything failed."""
        return WRONG if self.failures else NOTHING if self.nothing else PARTIAL if self.left_out else OK

    @property
    def failures(self) -> tuple[Row, ...]:
        """The rows that failed, in the order of the table."""
        return tuple(row for row in self.rows if row.failed)

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants of the arguments, and their other sizes, at which a row failed."""
        return tuple(dict.fromkeys(row.variant for row in self.failures if row.variant))

    def of(self, property: str) -> tuple[Row, ...]:
        """The rows of one property, one per argument as a rule."""
        return tuple(row for row in self.rows if row.property == property)

    @property
    def causes(self) -> tuple[str, ...]:
        """A sentence for each thing that is wrong, the first the most telling."""
        sentences = dict.fromkeys(row.cause for row in self.failures if row.cause)
        others = [row for row in self.failures if not row.cause]
        return (*map(_sentence, others[:1]), *sentences)

    @property
    def tolerance(self) -> float | None:
        """The `tolerance` under which every comparison would pass, up to 10 %; None where none would."""
        needed = max((_needed(row) for row in self.failures), default=math.inf)
        if not needed <= LOOSEST:
            return None
        step = 10.0 ** (math.floor(math.log10(needed)) - 1)
        return float(f"{math.ceil(needed / step * (1 + 1e-9)) * step:.2g}")

    def __str__(self) -> str:
        return "\n".join([self._head(), *(wrapped(f"{k}: {v}") for k, v in self.facts.items()), *self._body(self.rows)])

    def summary(self) -> str:
        """The failures alone, with the file and line of the backward rule: what `assert_ok` raises."""
        return "\n".join([self._head(), *self._body(self.failures)])

    def _head(self) -> str:
        """The outcome, its cause first."""
        failed, count = len(self.failures), len(self.rows)
        if failed:
            lines = [wrapped(f"WRONG: {'; '.join(self.causes)}"), wrapped(f"{self.subject}: {failed} of {count} FAIL")]
        elif self.nothing:
            lines = [wrapped(f"{self.subject}: {NOTHING}: {self.nothing}")]
        else:
            lines = [wrapped(f"{self.subject}: {self.status}, {counted(count, 'row')}")]
        if self.left_out:
            lines.append(wrapped(f"left out, the time is spent: {', '.join(self.left_out)}"))
        return "\n".join(lines)

    def _body(self, rows: Sequence[Row]) -> list[str]:
        """The rule, what would pass, and the table; of the rows that one cause explains, the first."""
        lines = [wrapped(f"rule: {where}") for where in self.where] if self.failures else []
        lines += [f"replay: {call}" for call in self.replays]
        if (tolerance := self.tolerance) is not None:
            lines.append(f"tolerance={tolerance:g} would pass")
        first = {cause: next(row for row in rows if row.cause == cause) for cause in {r.cause for r in rows} if cause}
        shown = [row for row in rows if not row.cause or row is first[row.cause]]
        folded = [row.property for row in rows if row.cause and row is not first[row.cause]]
        if shown:
            lines.append(_table(_glance(shown)) if rows is self.rows else _table(shown))
        if folded:
            lines.append(wrapped(f"{len(folded)} rows that follow are folded: {', '.join(dict.fromkeys(folded))}"))
        if found := list(dict.fromkeys(anchor(row.verdict) for row in shown if row.verdict != OK)):
            lines.append(wrapped(f"what it means: {PAGE}{', '.join(found)}"))
        return lines

    def data(self) -> dict[str, Any]:
        """The report as plain dicts, lists, strings and numbers (complex and non-finite ones as strings)."""
        rows = [
            {f.name: _plain(getattr(row, f.name)) for f in dataclasses.fields(row)} | {"failed": row.failed}
            for row in self.rows
        ]
        facts = {"subject": self.subject, "ok": self.ok, "status": self.status, "facts": dict(self.facts)}
        causes = {"causes": list(self.causes), "left_out": list(self.left_out), "nothing": self.nothing}
        return {**facts, **causes, "where": list(self.where), "replays": list(self.replays), "rows": rows}

    def json(self) -> str:
        """`data()` as JSON text."""
        return json.dumps(self.data(), ensure_ascii=False, indent=1)


def number(x: complex | None) -> str:
    """Four significant digits; nothing for None."""
    if x is None:
        return ""
    return f"{x:.4g}"


def _glance(rows: Iterable[Row]) -> list[Row]:
    """Return every row of accuracy; of other properties, the rows that are not plainly ok and the worst of the rest."""
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


def _sentence(row: Row) -> str:
    """Describe one failing row."""
    of = f"{row.property} of {row.place}" if row.argument else row.property
    if row.note:
        return f"{of}: {row.note}"
    got, expected = number(row.got), number(row.expected)
    values = f"{got} where {expected} is right, " if got != expected else ""
    return f"{of}: {values}a relative error of {number(row.error)} where {number(row.allowed)} is allowed"


def anchor(verdict: str) -> str:
    """Return the place of a verdict on its page."""
    return "#" + verdict.replace(";", "").replace(" ", "-")


def _needed(row: Row) -> float:
    """The tolerance that a failing comparison needs; ∞ where a comparison is not what failed."""
    if row.error is None or not row.allowed or row.property == "points":
        return math.inf
    return row.error


def _table(rows: Iterable[Row]) -> str:
    cells, notes = [], []
    for row in rows:
        cells.append(list(row.cells()))
        notes.append(row.cause or row.note)
    left = columns() - sum(2 + max(map(len, column)) for column in list(zip(HEADER, *cells, strict=True))[:-1])
    for k, (row, note) in enumerate(zip(cells, notes, strict=True)):  # a short note stands beside its verdict
        if note and len(beside := f"{row[-1]}: {note}") <= left:
            row[-1], notes[k] = beside, ""
    return table(HEADER, cells, notes=notes)


def _plain(x: Any) -> Any:
    if isinstance(x, tuple):
        return [int(i) for i in x]
    if isinstance(x, complex) or (isinstance(x, float) and not math.isfinite(x)):
        return str(x)
    return x
