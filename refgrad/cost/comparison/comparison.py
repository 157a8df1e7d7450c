"""Two programs' costs side by side, and every difference with its cause, its scope and its line."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from refgrad.cost.comparison import allowances
from refgrad.cost.comparison.items import FIGURES, Figures, by, summed
from refgrad.cost.comparison.naming import MOVED, UNEXPLAINED, Difference, compiled_differences, differences
from refgrad.cost.comparison.printing import text
from refgrad.cost.comparison.program import STAGES, Program, of_count
from refgrad.cost.comparison.stages import lowering_differences
from refgrad.cost.types import Count


@dataclass(frozen=True)
class Comparison:
    """The differences of two programs; they print as tables by cause, by scope and by source line.

    The change of each figure is the sum of the differences, to the last unit.

    Attributes:
      before: the earlier program.
      after: the later one.
      differences: every difference, with its cause, its scope and its source line.
      allowed: figure → the growth that it may have.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> x = jnp.ones(4)
      >>> programs = cost.program(lambda x: 2 * x, x), cost.program(lambda x: 2 * x + x, x)
      >>> cost.compare(*programs).exceeded
      ['flops', 'bytes']
    """

    before: Program
    after: Program
    differences: tuple[Difference, ...]
    allowed: Mapping[str, allowances.Allowance]

    @cached_property
    def figures(self) -> tuple[Figures, Figures]:
        """The figures of both programs."""
        return self.before.figures, self.after.figures

    @property
    def change(self) -> Figures:
        """The later program's figures less the earlier one's."""
        before, after = self.figures
        return after.minus(before)

    @cached_property
    def unexplained(self) -> Figures:
        """The sum of the absolute values of all differences without a cause."""
        named = Figures()
        nameless = [0] * len(FIGURES)
        for one in self.differences:
            named = named.plus(one.change)
            if one.cause == UNEXPLAINED:
                nameless = [n + abs(x) for n, x in zip(nameless, one.change, strict=True)]
        rest = self.change.minus(named)
        return Figures(*(n + abs(x) for n, x in zip(nameless, rest, strict=True)))

    @property
    def exceeded(self) -> list[str]:
        """The figures that grow by more than is allowed."""
        return allowances.exceeded(*self.figures, self.allowed)

    @property
    def ok(self) -> bool:
        """True where no figure grows by more than is allowed."""
        return not self.exceeded

    @property
    def by_cause(self) -> dict[str, Figures]:
        """Cause → change."""
        return _by(self.differences, "cause")

    @property
    def by_scope(self) -> dict[str, Figures]:
        """Scope path → change, without those that are 0."""
        if self.before.stage == self.after.stage:
            return _by(self.differences, "scope")
        a, b = (by(one.stages[one.stage], "scope") for one in (self.before, self.after))
        changes = {scope: b.get(scope, Figures()).minus(a.get(scope, Figures())) for scope in dict.fromkeys((*a, *b))}
        return {scope: change for scope, change in changes.items() if any(change)}

    @property
    def by_source(self) -> dict[str, Figures]:
        """file:line → change, without those that are 0; work that only moved to another place does not count."""
        return _by((one for one in self.differences if one.cause != MOVED), "source")

    def json(self) -> dict[str, Any]:
        """The comparison as plain data."""
        before, after = self.figures
        return {
            "ok": self.ok,
            "before": _head(self.before),
            "after": _head(self.after),
            "figures": {n: {"before": a, "after": b} for n, a, b in zip(FIGURES, before, after, strict=True)},
            "exceeded": self.exceeded,
            "unexplained": self.unexplained._asdict(),
            "by_cause": _plain(self.by_cause),
            "by_scope": _plain(self.by_scope),
            "by_source": _plain(self.by_source),
            "differences": [{**one._asdict(), "change": one.change._asdict()} for one in self.differences],
        }

    def __str__(self) -> str:
        return text(self)


def compare(a: Program | Count, b: Program | Count, allow: allowances.Given = None) -> Comparison:
    """Say what b costs more or less than a, by cause, by scope and by source line.

    Args:
      a: the earlier program: `cost.program(f, …)`, a count, or what `cost.load` reads.
      b: the later one.
      allow: what may grow, such as "flops=1%,bytes=0" or {"flops": "1%"}; no other figure may.

    Returns:
      A `Comparison`; `.ok` is False where a figure grows by more than is allowed.

    Raises:
      TypeError: for anything else than a program.
      ValueError: for programs with different outputs, a forward and a backward pass, and a malformed allowance.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> x = jnp.ones(4)
      >>> before, after = cost.program(lambda x: 2 * x, x), cost.program(lambda x: 2 * x + x, x)
      >>> cost.compare(before, after).change.flops
      4
    """
    allowed = allowances.parse(allow)
    before, after = (_program(name, one) for name, one in (("a", a), ("b", b)))
    _check(before, after)
    first, last = STAGES.index(before.stage), STAGES.index(after.stage)
    base = min(first, last)
    found = differences(before, after, STAGES[base])
    found = [*_back(_down(before, base, first)), *found, *_down(after, base, last)]
    return Comparison(before, after, tuple(one for one in found if any(one.change)), allowed)


def _down(program: Program, start: int, end: int) -> list[Difference]:
    """The differences between two stages of one program."""
    found = []
    for stage in range(start, end):
        step = lowering_differences if STAGES[stage] == "counted" else _compiling
        found += step(program)
    return found


def _compiling(program: Program) -> list[Difference]:
    return compiled_differences(program, program)


def _back(found: Iterable[Difference]) -> list[Difference]:
    return [one._replace(change=one.change.times(-1)) for one in found]


def _program(name: str, given: Any) -> Program:
    if isinstance(given, Count):
        return of_count(given)
    if not isinstance(given, Program):
        raise TypeError(
            f"{name}={given!r:.60} is not a program: give cost.program(f, *args), a count, or cost.load(path)"
        )
    return given


def _check(before: Program, after: Program) -> None:
    if before.outputs and after.outputs and before.backward != after.backward:
        raise ValueError(
            f"{before.name} and {after.name}: a forward pass and a backward pass; give both the same backward="
        )
    a, b = before.outputs, after.outputs
    if not (a and b):
        return
    if before.inputs != after.inputs:  # other sizes: the same outputs, of as many dimensions
        a, b = ([one.rpartition(" ")[0] for one in outputs] for outputs in (a, b))
    if a != b:
        one, other = next(
            (pair for pair in zip(a, b, strict=False) if pair[0] != pair[1]), (f"{len(a)} outputs", f"{len(b)} outputs")
        )
        raise ValueError(
            f"{before.name} returns {one}, but {after.name} returns {other}: compare functions with the same outputs, "
            f"such as lambda *args: f(*args)[0]"
        )


def _by(found: Iterable[Difference], key: str) -> dict[str, Figures]:
    parts = summed((getattr(one, key), one.change) for one in found)
    return {name: change for name, change in parts.items() if any(change)}


def _head(program: Program) -> dict[str, Any]:
    keys = ("name", "stage", "backward", "versions", "device", "flags")
    return {key: getattr(program, key) for key in keys}


def _plain(parts: Mapping[str, Figures]) -> dict[str, dict[str, int]]:
    return {name: change._asdict() for name, change in parts.items()}
