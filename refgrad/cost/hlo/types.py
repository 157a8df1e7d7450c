"""Results of the walk over an HLO module: totals, rows, loops, conditionals."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from refgrad.cost.hlo.parse import Instruction, Module
from refgrad.jaxpr.versions import SCAN_BODIES


class ExactCounts(NamedTuple):
    """FLOPs and transcendentals, exact.

    Attributes:
      flops: FLOPs.
      transcendentals: exp, log, tanh, ….

    Example:
      >>> from refgrad.cost.hlo import ExactCounts
      >>> ExactCounts(60, 10).transcendentals
      10
    """

    flops: int
    transcendentals: int


class HloRow(NamedTuple):
    """One executed instruction: its place, its cost in one execution as XLA counts it, and how often it runs.

    Attributes:
      instruction: the instruction.
      computation: the name of the computation that holds it.
      scope: the path of JAX's named scopes, down to the primitive.
      flops: FLOPs of one execution.
      transcendentals: transcendentals of one execution.
      times: the number of executions, in which a loop of unknown trip count stands for one trip.
      taken: False in the branches of a conditional that are not the costliest in all.

    Example:
      >>> import jax
      >>> from refgrad.cost import hlo
      >>> lowered = jax.jit(jax.numpy.tanh).lower(jax.ShapeDtypeStruct((8,), "float32"))
      >>> text = lowered.as_text(dialect="hlo", debug_info=True)
      >>> [(row.primitive, row.transcendentals) for row in hlo.cost(text).rows if row.transcendentals]
      [('tanh', 8)]
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
    """A while loop of a module.

    Attributes:
      instruction: its instruction.
      scope: its scope.
      trips: its trip count in one execution, or None where it is not known.

    Example:
      >>> import jax
      >>> from refgrad.cost import hlo
      >>> f = jax.jit(lambda x: jax.lax.fori_loop(0, 5, lambda _, x: 2 * x, x))
      >>> [loop.trips for loop in hlo.cost(f.lower(1.0).as_text(dialect="hlo")).loops]
      [5]
    """

    instruction: Instruction
    scope: str
    trips: int | None


class Conditional(NamedTuple):
    """A conditional: its scope, the exact cost of each branch, and how often it runs.

    Attributes:
      scope: its scope.
      branches: the cost of each branch.
      times: the number of executions; 0 inside a branch that does not count.
      runs: how often each branch is taken where that was given, and empty otherwise.

    Example:
      >>> import jax
      >>> from refgrad.cost import hlo
      >>> f = jax.jit(lambda x: jax.lax.cond(x > 0, lambda x: x * x + x, lambda x: x * x, x))
      >>> (conditional,) = hlo.cost(f.lower(1.0).as_text(dialect="hlo")).conditionals
      >>> [branch.flops for branch in conditional.branches]
      [1, 2]
    """

    scope: str
    branches: tuple[ExactCounts, ...]
    times: int
    runs: tuple[int, ...] = ()


@dataclass(frozen=True)
class HloCost:
    """Cost of a module.

    Attributes:
      module: the module.
      flops: XLA's FLOPs in exact integers (a loop's body once).
      transcendentals: XLA's transcendentals, likewise.
      replayed: the same sums in float32 in XLA's order, equal to `cost_analysis()` bit for bit.
      loops: every loop with its trips.
      conditionals: every conditional with its branches.
      rows: every executed instruction.
      unknown: instructions without a rule, where they were to be collected (they count 0).

    Example:
      >>> import jax
      >>> from refgrad.cost import hlo
      >>> f = jax.jit(lambda x: jax.lax.fori_loop(0, 5, lambda _, x: 2 * x, x))
      >>> cost = hlo.cost(f.lower(1.0).as_text(dialect="hlo"))
      >>> cost.flops, cost.executed.flops  # body, counter and comparison: once, and with the trips
      (3, 16)
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
