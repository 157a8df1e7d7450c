"""Results of the walk over an HLO module: totals, rows, loops, conditionals."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from refgrad.cost.hlo.parse import Instruction, Module
from refgrad.jaxpr.versions import SCAN_BODIES


class ExactCounts(NamedTuple):
    """FLOPs and transcendentals, exact."""

    flops: int
    transcendentals: int


class HloRow(NamedTuple):
    """One executed instruction: its place, its cost in one execution as XLA counts it, and how often it runs.

    In `times` a loop of unknown trip count stands for one trip. `scope` is the path of JAX's named scopes, down to
    the primitive. `taken` is False in the branches of a conditional that are not the costliest in all.
    """

    instruction: Instruction
    computation: str
    scope: str
    flops: int
    transcendentals: int
    times: int
    taken: bool = True

    @property
    def primitive(self) -> str:
        """The JAX primitive that this instruction comes from: the last part of the scope."""
        return self.scope.rsplit("/", 1)[-1]


class Loop(NamedTuple):
    """A while loop: its instruction, its scope, and its trip count in one execution, or None where it is not known."""

    instruction: Instruction
    scope: str
    trips: int | None


class Conditional(NamedTuple):
    """A conditional: its scope, the exact cost of each branch, and how often it runs.

    `runs` says how often each branch is taken where that was given, and is empty otherwise. `times` is 0 inside a
    branch that does not count.
    """

    scope: str
    branches: tuple[ExactCounts, ...]
    times: int
    runs: tuple[int, ...] = ()


@dataclass(frozen=True)
class HloCost:
    """Cost of a module. `flops`, `transcendentals`: XLA's count in exact integers (a loop's body once).

    `replayed`: the same sums in float32 in XLA's order, equal to `cost_analysis()` bit for bit. `loops`: every loop
    with its trips; `conditionals`: every conditional with its branches. `unknown`: instructions without a rule, where
    they were to be collected (they count 0).
    """

    module: Module
    flops: int
    transcendentals: int
    replayed: tuple[float, float]
    loops: tuple[Loop, ...]
    conditionals: tuple[Conditional, ...]
    rows: tuple[HloRow, ...]
    unknown: tuple[str, ...]

    @cached_property
    def executed(self) -> ExactCounts:
        """Integers with every loop multiplied by its trips, one trip where they are not known (see `loops`)."""
        return ExactCounts(
            sum(row.flops * row.times for row in self.rows), sum(row.transcendentals * row.times for row in self.rows)
        )

    @cached_property
    def counter_rows(self) -> list[HloRow]:
        """Rows that a `scan` adds for itself, its counter and index: they stand in its loop's body or condition, while
        the scan's own equations stand below a name of their own (`SCAN_BODIES`)."""
        own: dict[str, str] = {}
        for loop in self.loops:
            body, condition = (loop.instruction.computations(key)[0] for key in ("body", "condition"))
            inside = self.module.computations[body].instructions.values()
            scopes = (f"{loop.instruction.op_name}/body/{name}" for name in SCAN_BODIES)
            equations = next((s for s in scopes if any(_is_below(i.op_name, s) for i in inside)), None)
            if equations is not None:
                own |= dict.fromkeys((body, condition), equations)
        return [
            row
            for row in self.rows
            if row.computation in own
            and row.instruction.shape.dims == ()
            and not _is_below(row.instruction.op_name, own[row.computation])
        ]

    @cached_property
    def program_rows(self) -> list[HloRow]:
        """All rows but `counter_rows`."""
        counters = set(map(id, self.counter_rows))
        return [row for row in self.rows if id(row) not in counters]

    def custom_calls(self) -> list[tuple[str, HloRow]]:
        """(target, row) of every custom call, each of which XLA counts as −1 FLOP."""
        return [
            (row.instruction.attribute("custom_call_target") or "", row)
            for row in self.rows
            if row.instruction.opcode == "custom-call"
        ]

    def by(self, key: Literal["scope", "opcode"]) -> dict[str, ExactCounts]:
        """Once-counts summed by scope or by opcode, in order of first appearance; they add up to the whole."""
        totals: dict[str, ExactCounts] = {}
        for row in self.rows:
            name = row.scope if key == "scope" else row.instruction.opcode
            flops, transcendentals = totals.get(name, ExactCounts(0, 0))
            totals[name] = ExactCounts(flops + row.flops, transcendentals + row.transcendentals)
        return totals


def _is_below(op_name: str, scope: str) -> bool:
    """Return True if an instruction's name is the scope, or a path that starts with it."""
    return op_name == scope or op_name.startswith(scope + "/")
