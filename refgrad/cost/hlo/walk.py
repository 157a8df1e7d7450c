"""Add up an HLO module: exactly in integers, and in float32 in the very order in which XLA adds.

XLA keeps its sums in float32, so above 2²⁴ its answer depends on the order of the additions. It visits a computation
depth first from its root (first operand first, then control predecessors), after the instructions that nobody uses;
a called computation is summed on its own and enters its caller as one number. Replaying that gives XLA's figure bit
for bit, which certifies the integers beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from refgrad.cost.hlo.parse import Computation, Instruction, Module, parse
from refgrad.cost.hlo.rules import UnknownInstruction, Work, work
from refgrad.cost.hlo.trips import Context, trip_count


class Pair(NamedTuple):
    """FLOPs and transcendentals."""

    flops: float
    transcendentals: float


class Row(NamedTuple):
    """One executed instruction: its place, its cost in one execution as XLA counts it, and how often it runs.

    `times` is None inside a loop whose trip count is not known. `scope` is the path of JAX's named scopes, down to
    the primitive.
    """

    instruction: Instruction
    computation: str
    scope: str
    flops: int
    transcendentals: int
    times: int | None


class Loop(NamedTuple):
    """A while loop: its instruction, its scope, and its trip count in one execution, or None where it is not known."""

    name: str
    scope: str
    trips: int | None


@dataclass(frozen=True)
class HloCost:
    """Cost of a module. `flops`, `transcendentals`: XLA's count in exact integers (a loop's body once).

    `replayed`: the same sums in float32 in XLA's order, equal to `cost_analysis()` bit for bit. `loops`: every loop
    with its trips; `conditionals`: the scope of every conditional. `unknown`: instructions without a rule, where they were to be collected (they count 0).
    """

    module: Module
    flops: int
    transcendentals: int
    replayed: Pair
    loops: tuple[Loop, ...]
    conditionals: tuple[str, ...]
    rows: tuple[Row, ...]
    unknown: tuple[str, ...]

    @cached_property
    def executed(self) -> Pair | None:
        """Integers with every loop multiplied by its trips; None where a trip count is not known."""
        if any(loop.trips is None for loop in self.loops):
            return None
        return Pair(
            sum(row.flops * row.times for row in self.rows if row.times is not None),
            sum(row.transcendentals * row.times for row in self.rows if row.times is not None),
        )

    def custom_calls(self) -> list[tuple[str, Row]]:
        """(target, row) of every custom call, each of which XLA counts as −1 FLOP."""
        return [
            (row.instruction.attribute("custom_call_target") or "", row)
            for row in self.rows
            if row.instruction.opcode == "custom-call"
        ]

    def by(self, key: Literal["scope", "opcode"]) -> dict[str, Pair]:
        """Once-counts summed by scope or by opcode, in order of first appearance; they add up to the whole."""
        totals: dict[str, Pair] = {}
        for row in self.rows:
            name = row.scope if key == "scope" else row.instruction.opcode
            flops, transcendentals = totals.get(name, (0, 0))
            totals[name] = Pair(flops + row.flops, transcendentals + row.transcendentals)
        return totals


def cost(text: str, unknown: Literal["raise", "collect"] = "raise") -> HloCost:
    """Cost of a module given as HLO text, lowered or compiled.

    Raises UnknownInstruction for an opcode without a rule (with `unknown="collect"` they are listed in the result
    and count 0), HloSyntaxError for text that is not HLO.
    """
    walk = _Walk(parse(text), unknown)
    exact, replayed = walk.total(walk.module.entry)
    rows = tuple(walk.rows(walk.module.entry, "", 1, Context(walk.module)))
    return HloCost(
        walk.module,
        int(exact.flops),
        int(exact.transcendentals),
        replayed,
        tuple(walk.loops),
        tuple(walk.conditionals),
        rows,
        tuple(walk.unknown),
    )


def visit_order(computation: Computation) -> list[str]:
    """The order in which XLA adds: the trees of instructions without users first, then the root's; post-order."""
    instructions = computation.instructions
    predecessors = {name: _predecessors(i) for name, i in instructions.items()}
    used = {name for names in predecessors.values() for name in names}
    order: list[str] = []
    state: dict[str, bool] = {}  # False: on the way, True: done
    for start in [*(name for name in instructions if name not in used), computation.root]:
        stack = [start]
        while stack:
            name = stack[-1]
            if name not in state:
                state[name] = False
                stack.extend(p for p in reversed(predecessors[name]) if p not in state)
                continue
            stack.pop()
            if not state[name]:
                state[name] = True
                order.append(name)
    return order


def _predecessors(instruction: Instruction) -> tuple[str, ...]:
    if "control-predecessors" in instruction.attributes:
        return instruction.operands + instruction.computations("control-predecessors")
    return instruction.operands


class _Walk:
    """One pass over a module; sums of a computation are kept, because they do not depend on who calls it."""

    def __init__(self, module: Module, unknown: Literal["raise", "collect"]):
        self.module, self.collect = module, unknown == "collect"
        self.unknown: list[str] = []
        self.loops: list[Loop] = []
        self.conditionals: list[str] = []
        self._totals: dict[str, tuple[Pair, Pair]] = {}
        self._works: dict[tuple[str, str], Work] = {}

    def work(self, instruction: Instruction, computation: Computation) -> Work:
        key = computation.name, instruction.name
        if key not in self._works:
            try:
                self._works[key] = self._fusion(instruction) or work(instruction, computation)
            except UnknownInstruction as error:
                if not self.collect:
                    raise
                self.unknown.append(f"{error.opcode} ({instruction.name})")
                self._works[key] = Work()
        return self._works[key]

    def _fusion(self, instruction: Instruction) -> Work | None:
        """XLA takes a custom fusion that holds a gather or a scatter for that one instruction."""
        if instruction.opcode != "fusion" or instruction.attribute("kind") != "kCustom":
            return None
        inner = self.module.computations[instruction.computations("calls")[0]]
        for i in inner.instructions.values():
            if i.opcode in ("gather", "scatter"):
                return work(i, inner)
        return None

    def total(self, name: str) -> tuple[Pair, Pair]:
        """(exact, replayed) sums of one computation."""
        if name not in self._totals:
            computation = self.module.computations[name]
            flops = transcendentals = 0
            flops32 = transcendentals32 = np.float32(0)
            for instruction_name in visit_order(computation):
                exact, replayed = self.own(self.work(computation.instructions[instruction_name], computation))
                flops, transcendentals = flops + exact.flops, transcendentals + exact.transcendentals
                flops32 = np.float32(flops32 + replayed.flops)
                transcendentals32 = np.float32(transcendentals32 + replayed.transcendentals)
            replay = Pair(float(flops32), float(transcendentals32))
            self._totals[name] = Pair(flops, transcendentals), replay
        return self._totals[name]

    def own(self, w: Work) -> tuple[Pair, Pair]:
        """(exact, replayed) cost of one instruction with everything it calls."""
        if not w.calls:
            return Pair(w.flops, w.transcendentals), Pair(np.float32(w.flops), np.float32(w.transcendentals))
        parts = [(times, *self.total(name)) for times, name in w.calls]
        merge = _dearest if w.kind == "branches" else sum
        exact = Pair(*(merge([times * e[k] for times, e, _ in parts]) for k in (0, 1)))
        replay = Pair(*(merge([np.float32(times) * np.float32(r[k]) for times, _, r in parts]) for k in (0, 1)))
        return exact, replay

    def rows(self, name: str, prefix: str, times: int | None, context: Context) -> Iterator[Row]:
        """The instructions that run, calls opened up, reductions and the like as one row each."""
        computation = self.module.computations[name]
        for instruction in computation.instructions.values():
            w = self.work(instruction, computation)
            scope = _join(prefix, instruction.op_name)
            if w.kind == "applied":
                exact, _ = self.own(w)
                yield Row(instruction, name, scope, int(exact.flops), int(exact.transcendentals), times)
            elif w.kind == "loop":
                yield from self._loop(instruction, scope, times, context.at(name))
            elif w.kind == "branches":
                yield from self._branches(w, scope, times, context.at(name))
            else:
                for _, callee in w.calls:
                    yield from self.rows(callee, scope, times, context.at(name).into(instruction))

    def _loop(self, instruction: Instruction, scope: str, times: int | None, context: Context) -> Iterator[Row]:
        trips = trip_count(instruction, context)
        self.loops.append(Loop(instruction.name, scope, trips))
        (body,), (condition,) = instruction.computations("body"), instruction.computations("condition")
        known = times is not None and trips is not None
        inner = context.into(None)
        yield from self.rows(body, scope, times * trips if known else None, inner)
        yield from self.rows(condition, scope, times * (trips + 1) if known else None, inner)

    def _branches(self, w: Work, scope: str, times: int | None, context: Context) -> Iterator[Row]:
        """Each property comes from its own dearest branch, as in XLA; the rows of the others count 0."""
        self.conditionals.append(scope)
        totals = [self.total(name)[0] for _, name in w.calls]
        dearest = [max(range(len(totals)), key=lambda b, k=k: totals[b][k]) for k in (0, 1)]
        for branch, (_, name) in enumerate(w.calls):
            for row in self.rows(name, scope, times, context.into(None)):
                yield row._replace(
                    flops=row.flops if branch == dearest[0] else 0,
                    transcendentals=row.transcendentals if branch == dearest[1] else 0,
                )


def _dearest(costs: list) -> float:
    """XLA's maximum over branches: a branch that costs nothing does not take part."""
    return max([costs[0], *(c for c in costs[1:] if c != 0)])


def _join(prefix: str, op_name: str) -> str:
    """Full scope: inside a called computation a name may be relative to the call's, or already start at the module's
    own `jit(…)`."""
    if not prefix or op_name.split("/", 1)[0] == prefix.split("/", 1)[0]:
        return op_name or prefix
    return f"{prefix}/{op_name}" if op_name else prefix
